"""Handles Ctrl-C and termination, also if a library swallows the raised exception."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from time import monotonic
from typing import Any, Iterator

from ipucnn.core.execution.launching import launched_count

_pending = ""
_raised = ""
_since = 0.0

_COPIED = 2.0
"""Seconds in which a launcher may forward a signal that its processes have also received directly,
for example after Ctrl-C in their terminal."""


def install() -> None:
    """Make SIGINT and SIGTERM raise a `KeyboardInterrupt` that carries their name."""
    global _pending, _raised
    _pending = _raised = ""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


@contextmanager
def graceful() -> Iterator[None]:
    """Record the first signal (`pending`) instead of raising; a second one raises."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _remember)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _raise)


@contextmanager
def held() -> Iterator[None]:
    """Defer a signal to the end of the block, which should be short; a second one raises.

    Some libraries cannot be interrupted: torch 2.0 may abort the process when an exception is
    raised during its import.
    """
    with graceful():
        yield
    raise_if_swallowed()


def pending() -> str:
    """Return the name of the signal that has arrived, or an empty string."""
    return _pending


def raised() -> str:
    """Return the name of the signal that was raised, or an empty string.

    Libraries may convert it to another exception: an interrupt during the initialisation of an
    extension module becomes an `ImportError`.
    """
    return _raised


def raise_if_swallowed() -> None:
    """Raise a swallowed interrupt again.

    Some libraries' imports and callbacks catch every exception: torch 2.0 loses a Ctrl-C while it
    is being imported. A long job calls this between its steps.
    """
    if _pending:
        raise KeyboardInterrupt(_pending)


def _raise(number: int, _frame: Any) -> None:
    global _pending, _raised
    _pending = _raised = signal.Signals(number).name
    raise KeyboardInterrupt(_pending)


def _remember(number: int, frame: Any) -> None:
    global _pending, _since
    name = signal.Signals(number).name
    if not _pending:
        _pending, _since = name, monotonic()
    elif name != _pending or monotonic() - _since > _COPIED or launched_count() == 1:
        _raise(number, frame)
