"""Inference: the job behind `run`.

It classifies a dataset through a backend's session, measures speed and accuracy, and writes
predictions.
Import `inference.bulk` (one process or several), `inference.options` and `inference.run_result`.
"""
