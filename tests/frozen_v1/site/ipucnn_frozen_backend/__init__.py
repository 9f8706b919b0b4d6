"""Training backend 'frozen-backend' for ipucnn."""
