"""Dataset formats that ship with ipucnn."""
