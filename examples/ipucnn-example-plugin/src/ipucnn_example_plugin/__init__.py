"""Example plugins for ipucnn, one of each of six kinds."""
