"""Optimizer 'frozen-optimizer' for ipucnn."""
