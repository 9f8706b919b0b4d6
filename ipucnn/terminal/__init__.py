"""The command-line interface: flags, help, tables, progress and signals.

It uses interfaces of core and no job; commands pass the data to show.
Jobs import from it only where they write to a terminal, or check command lines.
"""
