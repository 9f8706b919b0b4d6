"""Dataset 'frozen-dataset' for ipucnn."""
