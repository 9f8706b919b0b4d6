"""Launcher 'frozen-launcher' for ipucnn."""
