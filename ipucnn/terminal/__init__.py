"""The command-line interface: flags, help, tables, progress and signals.

It uses interfaces of core and no job; commands pass the data to show.
Import its modules from commands only.
"""
