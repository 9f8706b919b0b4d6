"""Metrics: running sums of a training (`figures`), and the evaluation of a model (`validation`)."""
