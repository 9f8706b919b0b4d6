"""The command-line interface: flags, help, tables, progress and signals.

It uses interfaces of core and no job; commands pass the data to show.
Jobs import `layout`, `signals` and `tables` only, where they write to a terminal themselves.
"""
