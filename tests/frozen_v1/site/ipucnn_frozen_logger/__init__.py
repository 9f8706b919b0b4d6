"""Logger 'frozen-logger' for ipucnn."""
