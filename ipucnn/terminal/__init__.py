"""The command-line interface: flags, help, tables, progress, signals and exit codes.

It uses interfaces of core and no job; commands pass the data to show.
Import its modules from commands only.
"""
