"""Model 'frozen-model' for ipucnn."""
