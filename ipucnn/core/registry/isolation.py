"""Isolates the process from side effects of plugin imports.

Standard output carries data (JSON, tables), so nothing that a plugin's import prints may reach it,
whether by `print`, from a C library or from a child process. Settings of the whole process that an
import changed are restored.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import logging
import operator
import os
import random
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any, Callable, FrozenSet, Iterator, List, Optional

log = logging.getLogger("ipucnn.plugins")


@contextlib.contextmanager
def isolated(who: str, trusted: bool = False) -> Iterator[None]:
    """Return a context for running a plugin's code.

    Standard output is redirected to standard error, in Python and at the level of the file
    descriptor. A changed working directory, random state or signal handler is restored at the end.

    Args:
        who: the plugin, for the warning about changed settings.
        trusted: the code is known to change only the output, so that other changes are those of
            other threads.
    """
    before = [] if trusted else [
        (setting, value) for setting in _settings() for value in _read(setting)]
    _redirection.begin()
    try:
        yield
    finally:
        _redirection.end()
        changed = [setting for setting, value in before
                   for now in _read(setting) if not setting.same(now, value)]
        for setting, value in before:
            if setting in changed:
                with contextlib.suppress(Exception):  # for example a folder that was removed
                    setting.restore(value)
        if changed:
            log.warning("%s changed %s while it was imported; the change was undone", who,
                        " and ".join(setting.what for setting in changed))


# -- standard output -----------------------------------------------------------------------------


class _Redirection:
    """Redirects standard output to standard error while at least one thread needs that.

    The lock is held for switching only: an import under it could wait for another thread's import
    that waits for the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._stream: Any = None
        self._descriptor: Optional[int] = None
        self._error_closed = False
        self._modules: FrozenSet[str] = frozenset()

    def begin(self) -> None:
        """Redirect, unless the redirection is already active."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            self._modules = frozenset(sys.modules)
            self._flush()
            self._stream, sys.stdout = sys.stdout, sys.stderr
            self._error_closed = not _is_open(2)
            if self._error_closed:  # then output is discarded
                _open_null(2)
            self._descriptor = os.dup(1) if _is_open(1) else None
            os.dup2(2, 1)

    def end(self) -> None:
        """Undo the redirection when its last user has ended."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            self._flush()
            sys.stdout = self._stream
            with contextlib.suppress(OSError):  # the plugin closed what it did not open
                if self._descriptor is None:
                    os.close(1)
                else:
                    os.dup2(self._descriptor, 1)
                    os.close(self._descriptor)
                if self._error_closed:
                    os.close(2)

    def _flush(self) -> None:
        """Flush all buffers for the current file descriptor 1."""
        streams: List[Any] = [sys.stdout, self._stream, sys.__stdout__]
        for stream in streams:
            with contextlib.suppress(Exception):  # absent, closed, or its reader is gone
                stream.flush()
        if "ctypes" in sys.modules or any(map(_compiled, set(sys.modules) - self._modules)):
            with contextlib.suppress(Exception):
                _c_library().fflush(None)


_redirection = _Redirection()


@functools.lru_cache(maxsize=None)
def _c_library() -> Any:
    import ctypes

    return ctypes.CDLL(None)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _open_null(descriptor: int) -> None:
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def _compiled(module: str) -> bool:
    """Return whether a module is compiled code, which may have printed through C's buffers."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return isinstance(getattr(spec, "loader", None), importlib.machinery.ExtensionFileLoader)


# -- settings of the process ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Setting:
    """A process-wide setting that an import must not change."""

    what: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]
    same: Callable[[Any, Any], bool] = operator.eq


def _read(setting: _Setting) -> List[Any]:
    """Return the setting's value in a list, which is empty if it has none."""
    try:
        return [setting.read()]
    except Exception:  # for example a working directory that was removed
        return []


def _settings() -> Iterator[_Setting]:
    """Yield the settings to guard; those of libraries only where they are imported already."""
    yield _Setting("the working directory", os.getcwd, os.chdir)
    yield _Setting("the state of 'random'", random.getstate, random.setstate)
    numpy_random: Any = sys.modules.get("numpy.random")
    if hasattr(numpy_random, "get_state"):
        yield _Setting("the state of 'numpy.random'",
                       functools.partial(numpy_random.get_state, legacy=False),
                       numpy_random.set_state, _same_arrays)
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_rng_state") and hasattr(torch, "equal"):
        yield _Setting("the random state of torch", torch.get_rng_state, torch.set_rng_state,
                       torch.equal)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            yield _signal_handler(number)


def _same_arrays(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_same_arrays(value, other.get(name)) for name, value in one.items())
    same = one == other
    return bool(same.all() if hasattr(same, "all") else same)


def _signal_handler(number: signal.Signals) -> _Setting:
    return _Setting(f"the handler of {number.name}", lambda: signal.getsignal(number),
                    lambda handler: signal.signal(number, handler))
