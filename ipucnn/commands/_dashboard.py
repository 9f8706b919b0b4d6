"""`train --dashboard`: the dashboard of this process's own training."""

from __future__ import annotations

import functools
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Dict, List

from ipucnn.core.progress import Status
from ipucnn.models.store_paths import place_of
from ipucnn.reports.metric_rows import MetricRows
from ipucnn.runs.dashboard import View, drawn
from ipucnn.runs.found import changed, classes_in, folders
from ipucnn.runs.watching import EVERY, screen
from ipucnn.terminal import tables as render
from ipucnn.terminal.progress import TrainProgress


class DashboardProgress(TrainProgress):
    """Shows a training on the whole terminal, and prints its lines of results afterwards.

    Args:
        folder: the log folder, or its parent folder.
        summary: see `TrainProgress`.
    """

    def __init__(self, folder: str, summary: bool = True) -> None:
        super().__init__("off", summary)
        self._folder = folder
        self._view = View("ipucnn train")
        self._validated = False
        self._rows = MetricRows()
        self._kept: List[Any] = []
        self._notes: List[str] = []
        self._held = ExitStack()
        self._next = 0.0

    def __enter__(self) -> DashboardProgress:
        self._picture = self._held.enter_context(screen())
        return self

    def __exit__(self, *error: object) -> None:
        self._signals.close()
        self._held.close()
        for write, text in self._kept:
            write(text)

    def status(self, status: Status) -> None:
        """Show the status, at most once per second."""
        known = {name: value for name, value in asdict(status).items() if value is not None}
        self._view.status = {**self._view.status, **known}
        self._refresh()

    def row(self, row: Dict[str, Any]) -> None:
        """Add a row of metrics to the curves."""
        super().row(row)
        if row.get("kind") != "epoch":  # not drawn, and not in the files either
            self._rows.add(row)
        self._validated |= row.get("kind") == "validation"

    def line(self, text: str) -> None:
        """Keep a line of results for the end."""
        self._kept.append((super().line, text))

    def note(self, text: str) -> None:
        """Show a note, and keep it for the end."""
        self._notes.append(text)
        self._kept.append((render.note, text))
        self._refresh()

    def explain(self, text: str) -> None:
        """Show the effect of a signal as a note."""
        self.note(text)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            if self._validated:  # once for each validation: there may be many log folders
                self._view.classes, self._validated = self._classes(), False
            view = View(self._view.title, status=self._view.status, rows=self._rows,
                        notes=self._notes, classes=self._view.classes)
            self._picture(functools.partial(drawn, view))

    def _classes(self) -> List[Dict[str, Any]]:
        """Return the classes of the last validation, which the logger `files` has written."""
        folder = place_of(self._folder, writes=True)  # the local copies, if it is on a store
        found = sorted(folders(folder), key=changed) if folder.is_dir() else []
        return classes_in(found[-1]) if found else []
