"""Remote files: downloads over HTTP, files on stores, and bounded local copies of them.

Used for datasets, weights, checkpoints and reports.
"""
