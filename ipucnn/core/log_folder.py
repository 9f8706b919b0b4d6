"""Names of the log folder of a training and of its files."""

from __future__ import annotations

LOGS = "logs"
"""The folder of trainings for which no folder is given."""

METRICS = "metrics.jsonl"
"""Rows of metrics, one JSON object a line."""

METRICS_TABLE = "metrics.csv"
"""The same rows as a table."""

OPTIONS = "options.yaml"
"""The resolved options."""

CLASSES = "classes.json"
"""The accuracy of each class in the last validation, with its confusion matrix."""

STATUS = "status.json"
"""The current status, for `ipucnn watch` and `ipucnn runs`."""

TRAINING = "training.json"
"""The result of a training, or its preliminary result while it runs."""

VALIDATION = "validation.json"
"""The last validation: its scores, and data on its predictions for a report."""

REPORT = "report.html"
"""The report."""

WRITTEN = (METRICS, METRICS_TABLE, OPTIONS, TRAINING, VALIDATION, CLASSES, STATUS, REPORT)
"""All of these files."""

RUNNING = "running"
"""The state in `STATUS` and `TRAINING` of a training that has not ended or was killed."""
