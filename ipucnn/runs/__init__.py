"""The jobs behind `runs` and `watch`, which read the log folders of trainings."""
