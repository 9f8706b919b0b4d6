"""Interfaces shared by all parts of ipucnn: registry, options, execution, errors.

It imports only itself, does not need torch, and depends on no plugin, job or command.
"""
