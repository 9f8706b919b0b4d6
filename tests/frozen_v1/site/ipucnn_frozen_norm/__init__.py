"""Norm layer 'frozen-norm' for ipucnn."""
