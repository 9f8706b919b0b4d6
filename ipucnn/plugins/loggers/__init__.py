"""Loggers that ship with ipucnn; they record trainings."""
