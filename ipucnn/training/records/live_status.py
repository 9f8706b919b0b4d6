"""The status of a training in its log folder, for `ipucnn watch` and `ipucnn runs`."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Mapping, Optional, Tuple

from ipucnn.core.documents import json_text
from ipucnn.core.log_folder import RUNNING, STATUS
from ipucnn.core.progress import Status
from ipucnn.models.store_paths import on_store

EVERY = 1.0
"""Minimum seconds between two writes."""

BEAT = 10.0
"""Seconds after which the last status is written again with the current time, because validations
can be long. On a store, also the minimum seconds between two transfers."""

SHARE = 50.0
"""Factor of the pause after a transfer to a store, relative to its duration, up to `LONGEST`."""

LONGEST = 60.0

_FACTS = ("model", "dataset", "backend", "device", "error")
"""Facts of a result that the last status contains."""


class LiveStatus:
    """Writes the status at most once per second; a failure to write is ignored.

    If the folder contains the copies of a folder on a store, a thread uploads changed files at a
    low rate, and the training does not wait for it.

    Args:
        folder: the log folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATUS
        self._stored = on_store(folder)
        self._next = self._written = 0.0
        self._last: Tuple[Optional[Status], Mapping[str, Any]] = (None, {})
        self._begun = time.time()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def write(self, status: Status, facts: Mapping[str, Any]) -> None:
        """Write the current status, unless that was done in the last second."""
        self._last = status, facts
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        with self._lock:
            self._save(RUNNING)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="ipucnn-live", daemon=True)
            self._thread.start()

    def end(self, state: str, result: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Write that the training has ended; the last transfer is that of the checkpoints.

        Args:
            state: how it ended.
            result: of the training, whose facts are written: it may have had no step.
        """
        self._over.set()
        with self._lock:
            self._save(state, {name: result[name] for name in _FACTS if result.get(name)})

    def _beat(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            with self._lock:
                if time.monotonic() - self._written >= BEAT and not self._over.is_set():
                    self._save(RUNNING)
            begun = time.monotonic()
            if self._stored is not None:
                self._stored.send_watched()
            pause = min(LONGEST, max(BEAT, SHARE * (time.monotonic() - begun)))

    def _save(self, state: str, further: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._written = time.monotonic()
        status, facts = self._last
        content = {**(asdict(status) if status else {}), **facts, **further, "state": state,
                   "time": time.time(), "begun": self._begun,
                   "pid": os.getpid(), "host": socket.gethostname()}
        # a fixed name, so that files of killed processes are replaced; a link is not followed
        part = self._path.with_name(f".{STATUS}.part")
        with suppress(OSError):  # it need not survive a power failure
            with suppress(FileNotFoundError):
                part.unlink()
            with open(part, "x", encoding="utf-8") as file:
                file.write(json_text(content))
            os.replace(part, self._path)
