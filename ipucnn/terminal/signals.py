"""Handles Ctrl-C and termination, also if a library swallows the raised exception."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from threading import Timer
from time import monotonic
from typing import Any, Callable, Iterator

from ipucnn.core.execution.launching import launched_count
from ipucnn.core.exit_codes import ending_signals, leave_closed_terminal

_pending = ""
_raised = ""
_since = 0.0

_COPIED = 2.0
"""Seconds in which a launcher may forward a signal that its processes have also received directly,
for example after Ctrl-C in their terminal."""

_AGAIN = 0.05
"""Seconds after which a signal is sent again whose exception was raised in a finalizer."""

_report: Callable[[Any], Any] = sys.__unraisablehook__


def install() -> None:
    """Make the signals that end a command raise a `KeyboardInterrupt` that carries their name."""
    global _pending, _raised, _report
    _pending = _raised = ""
    for number in ending_signals():
        signal.signal(number, _raise)
    if sys.unraisablehook is not _unraisable:
        _report, sys.unraisablehook = sys.unraisablehook, _unraisable


@contextmanager
def graceful() -> Iterator[None]:
    """Record the first signal (`pending`) instead of raising; a second one raises."""
    for number in ending_signals():
        signal.signal(number, _remember)
    try:
        yield
    finally:
        for number in ending_signals():
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
    name = signal.Signals(number).name
    if name == _pending == "SIGHUP":  # shells send that of a closed terminal again
        return
    _pending = _raised = name
    leave_closed_terminal()
    raise KeyboardInterrupt(_pending)


def _unraisable(failure: Any) -> None:
    """Send a signal again whose exception Python would print and drop.

    Finalizers, callbacks of weak references and of C libraries cannot pass on an exception.
    """
    if not (_pending and isinstance(failure.exc_value, KeyboardInterrupt)):
        _report(failure)
        return
    again = Timer(_AGAIN, _send_again)
    again.daemon = True
    with suppress(RuntimeError):  # the interpreter is about to end
        again.start()


def _send_again() -> None:
    global _pending
    name, _pending = _pending, ""
    os.kill(os.getpid(), signal.Signals[name])


def _remember(number: int, frame: Any) -> None:
    global _pending, _since
    name = signal.Signals(number).name
    leave_closed_terminal()
    if not _pending:
        _pending, _since = name, monotonic()
        return
    recent = monotonic() - _since <= _COPIED
    # shells send the SIGHUP of a closed terminal again, and login managers SIGTERM as well
    if name == "SIGHUP" or (recent and _pending == "SIGHUP"):
        return
    if name != _pending or not recent or launched_count() == 1:
        _raise(number, frame)
