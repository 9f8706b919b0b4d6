"""Launchers that ship with ipucnn: they recognise and connect the processes of one run."""
