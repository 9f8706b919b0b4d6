"""Losses that ship with ipucnn."""
