"""Isolates the process from side effects of plugin imports.

Standard output carries data (JSON, tables), so nothing that a plugin's import prints may reach it,
whether by `print`, from a C library or from a child process. Settings of the whole process that an
import changed are restored.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import os
import sys
import threading
from typing import Any, ContextManager, FrozenSet, Iterator, List, Optional

from ipucnn.core.registry.process_settings import unchanged


@contextlib.contextmanager
def isolated(who: str, trusted: bool = False) -> Iterator[None]:
    """Return a context for running a plugin's code.

    Standard output is redirected to standard error, in Python and at the level of the file
    descriptor. Changed settings of the process are restored at the end (`process_settings`).

    Args:
        who: the plugin, for the warning about changed settings.
        trusted: the code is known to change only the output, so that other changes are those of
            other threads.
    """
    kept: ContextManager[None] = contextlib.nullcontext()
    if not trusted:
        kept = unchanged(who)
    with kept:
        _redirection.begin()
        try:
            yield
        finally:
            _redirection.end()


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
