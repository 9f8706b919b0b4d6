"""Optimizers that ship with ipucnn."""
