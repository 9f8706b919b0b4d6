"""Filters of Python's warnings for a block; the process has one list of them for all threads."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import Iterator, List

_TURN = threading.RLock()


@contextmanager
def own_filters(record: bool = False) -> Iterator[List[warnings.WarningMessage]]:
    """Return a context whose filters of warnings are removed at its end, for any thread.

    With `warnings.catch_warnings` alone, two threads can restore each other's filters in the wrong
    order, so that those of one of them stay.

    Args:
        record: whether warnings are put into the list that the context returns, instead of shown.
    """
    with _TURN, warnings.catch_warnings(record=record) as recorded:
        yield [] if recorded is None else recorded
