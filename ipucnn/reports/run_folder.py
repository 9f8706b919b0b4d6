"""Names of the log folder of a training and of its files."""

from __future__ import annotations

LOGS = "logs"
"""The folder of trainings for which no folder is given."""

TRAINING = "training.json"
"""The result of a training, or its preliminary result while it runs."""

VALIDATION = "validation.json"
"""The last validation: its scores, and data on its predictions for a report."""

METRICS = "metrics.jsonl"
"""Rows of metrics, one JSON object a line."""

OPTIONS = "options.yaml"
"""The resolved options."""

REPORT = "report.html"
"""The report."""

WRITTEN = (METRICS, "metrics.csv", OPTIONS, TRAINING, VALIDATION, "classes.json", "status.json",
           REPORT)
"""The files of a training in its log folder."""

FILES = (TRAINING, VALIDATION, METRICS, OPTIONS)
"""The files that a report reads."""
