"""Model families that ship with ipucnn."""
