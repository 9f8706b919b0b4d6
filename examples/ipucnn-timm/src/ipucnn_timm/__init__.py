"""The classification networks of timm (PyTorch Image Models) as plugins of ipucnn."""
