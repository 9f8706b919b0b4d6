"""Loss 'frozen-loss' for ipucnn."""
