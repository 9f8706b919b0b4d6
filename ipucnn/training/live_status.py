"""The status of a training in its log folder, for `ipucnn watch` and `ipucnn runs`."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Mapping

from ipucnn.core.files import json_text
from ipucnn.core.progress import Status

FILE = "status.json"
"""Name of the file."""

EVERY = 1.0
"""Seconds between two writings."""

RUNNING = "running"
"""The state of a training that has not ended, or was killed: then the file is old."""


class LiveStatus:
    """Writes the status at most once per second; a failure to write is ignored.

    Args:
        folder: the log folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._next = 0.0
        self._last: Dict[str, Any] = {}
        self._begun = time.time()

    def write(self, status: Status, facts: Mapping[str, Any]) -> None:
        """Write the current status, unless that was done in the last second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        self._last = {**asdict(status), **facts}
        self._save(RUNNING)

    def end(self, state: str) -> None:
        """Write that the training has ended."""
        self._save(state)

    def _save(self, state: str) -> None:
        content = {**self._last, "state": state, "time": time.time(), "begun": self._begun,
                   "pid": os.getpid(), "host": socket.gethostname()}
        # one name, so that what a killed process left is written over
        part = self._path.with_name(f".{FILE}.part")
        with suppress(OSError):  # it only informs, and need not survive a power cut
            part.write_text(json_text(content), encoding="utf-8")
            os.replace(part, self._path)
