"""Sends records in the background, so that a slow or absent receiver never delays a training."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Optional, Tuple

MOST = 10_000
"""Maximum number of waiting records; further ones are discarded."""

ATTEMPTS = 8
"""Number of attempts to send a record before it is discarded."""

LONGEST_PAUSE = 60.0
"""Seconds between attempts; they begin with one second and double."""

PATIENCE = 30.0
"""Seconds that the end of a training waits for the remaining records."""

Record = Callable[[], Any]


class Sender:
    """Calls functions one after the other in a thread.

    A function that raises is called again after a pause, so that records are sent after a temporary
    failure of the receiver. No exception is raised.

    Args:
        name: the logger, for notes.
        most: maximum number of waiting records.
        pause: seconds before the second attempt.
    """

    def __init__(self, name: str, most: int = MOST, pause: float = 1.0) -> None:
        self._name, self._most, self._pause = name, most, pause
        self._waiting: Deque[Record] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._cause = ""
        self._noted = False
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name=f"logger {name}", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> Optional[str]:
        """Add a record; return a note for the user once, if records cannot be sent."""
        with self._changed:
            if len(self._waiting) < self._most:
                self._waiting.append(record)
            else:
                self.lost += 1
            self._changed.notify_all()
            if not self._cause or self._noted:
                return None
            self._noted = True
            return (f"logger {self._name!r} cannot record now: {self._cause}; up to {self._most} "
                    "records are kept and tried again")

    def close(self, patience: float = PATIENCE) -> Optional[str]:
        """Send waiting records within some seconds; return a note if records are lost."""
        until = time.monotonic() + patience
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            lost = self.lost + len(self._waiting)
            self._waiting.clear()
        if not lost:
            return None
        cause = self._cause or f"no answer within {patience:g} s"
        return f"logger {self._name!r} could not record {lost} records: {cause}"

    def _run(self) -> None:
        failures = 0
        while True:
            record, closing = self._next()
            if record is None:
                return
            try:
                record()
            except Exception as error:  # of any client library
                failures += 1
                with self._changed:
                    self._cause = _first_line(error)
                    if closing:  # no time for further attempts
                        return
                    if failures >= ATTEMPTS:
                        self.lost += 1
                        self._done()
                        failures = 0
                    else:
                        pause = min(LONGEST_PAUSE, self._pause * 2 ** (failures - 1))
                        self._changed.wait_for(lambda: self._closing, pause)
            else:
                failures = 0
                with self._changed:
                    self._done()

    def _next(self) -> Tuple[Optional[Record], bool]:
        """Return the oldest record; it stays in the queue until it is sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return (self._waiting[0] if self._waiting else None), self._closing

    def _done(self) -> None:
        if self._waiting:  # `close` may have discarded it
            self._waiting.popleft()


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if len(text) <= 200 else text[:200] + " ..."
