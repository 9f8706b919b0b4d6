"""Learning-rate schedules that ship with ipucnn."""
