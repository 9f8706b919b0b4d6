"""Learning rate schedule 'frozen-schedule' for ipucnn."""
