"""The commands, one module per group: parse options, call a job, print its result.

Commands import jobs and `ipucnn.terminal`; only `ipucnn.cli` and the documentation import commands.
"""
