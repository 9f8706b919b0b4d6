"""The command-line interface: flags, help, tables, progress, signals and exit codes.

It uses core's interfaces and no job; commands pass it the data to show.
Import its modules from commands only.
"""
