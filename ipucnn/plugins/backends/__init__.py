"""Execution backends that ship with ipucnn."""
