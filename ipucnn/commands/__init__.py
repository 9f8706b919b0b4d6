"""The commands, one module per group: parse options, call a job, print its result.

Commands import jobs and `ipucnn.terminal`; nothing imports a command but `ipucnn.cli` and what
documents commands.
"""
