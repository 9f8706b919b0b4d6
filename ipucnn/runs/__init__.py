"""The jobs behind `runs` and `watch`: what trainings have written into their log folders."""
