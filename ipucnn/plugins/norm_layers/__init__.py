"""Normalisation layers that ship with ipucnn."""
