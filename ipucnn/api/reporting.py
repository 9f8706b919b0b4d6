"""Progress, callbacks and Ctrl-C of jobs that are called from Python."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    TypeVar,
    Union,
)

from ipucnn.api.modes import ordinary_modes
from ipucnn.core.errors import IpucnnError, PluginError, UsageError
from ipucnn.core.names import printable, printable_lines
from ipucnn.core.options.conversion import builtin
from ipucnn.core.progress import CALLBACK, Listener, Status, StopTraining
from ipucnn.core.progress import Progress as ImageProgress
from ipucnn.core.registry.loading import cause_of, describe, remedy_for
from ipucnn.core.registry.registry import registry

ResultT = TypeVar("ResultT")

Progress = Union[bool, str, Callable[[Status], Any]]
"""Whether progress is shown: `True`, `False`, or `"auto"`, on a terminal and in a notebook; or a
function that receives each `Status`."""

Callback = Callable[[Dict[str, Any]], Any]
"""Receives a row of metrics; it ends the training with `True` or `StopTraining`."""

Callbacks = Union[Callback, Sequence[Callback], None]

_CHOICES = {True: "on", False: "off", None: "auto", "on": "on", "off": "off", "auto": "auto"}
_INTERVAL = 0.2
"""Seconds between two updates of a notebook's line."""


def trained(job: Callable[[Listener], ResultT], progress: Progress,
            callbacks: Callbacks = ()) -> ResultT:
    """Call the job of a training with a listener, and return its result.

    A Ctrl-C in the main thread ends it after the current host call; a second one raises.

    Args:
        job: receives the listener.
        progress: see `Progress`.
        callbacks: one or several functions.

    Raises:
        UsageError: a wrong value of `progress`, or a callback that cannot be called.
        BaseException: what a callback or `progress` raised, once the training has ended and saved.
    """
    listener = _PythonListener(_display(progress), _callbacks(callbacks))
    with listener.display, interruptible(listener.interrupted), ordinary_modes(), _no_exit():
        result = job(listener)
    if listener.error is not None:
        if isinstance(listener.error, IpucnnError) and listener.error.partial is None:
            listener.error.partial = result
        raise listener.error
    return result


@contextmanager
def _no_exit() -> Iterator[None]:
    """Return a context in which a plugin cannot end the process with `sys.exit`."""
    try:
        yield
    except SystemExit as leaving:
        plugin = registry().raised_by(leaving)
        if plugin is None:
            raise
        raise PluginError(f"{describe(plugin)} failed: {cause_of(leaving)}",
                          remedy_for(plugin)) from leaving


@contextmanager
def counted(progress: Progress, reason: str) -> Iterator[ImageProgress]:
    """Return a progress function for a job that counts images.

    Args:
        progress: see `Progress`.
        reason: the activity before images are counted.

    Raises:
        UsageError: a wrong value of `progress`.
    """
    with ordinary_modes(), _no_exit(), _counted(progress, reason) as report:
        yield report


@contextmanager
def _counted(progress: Progress, reason: str) -> Iterator[ImageProgress]:
    if callable(progress):
        callback = progress
        yield lambda phase, done, total: callback(Status(phase, done=done, total=total or 0))
        return
    choice = _choice(progress)
    if not _shown(choice):
        yield lambda *_: None
    elif _in_notebook():
        from ipucnn.terminal.progress import RunProgress
        from ipucnn.terminal.progress import counted as in_words

        line = _Line()
        with line:
            line.show(reason)
            yield lambda phase, done, total: line.show(
                RunProgress.WORDS[phase] + ("" if phase in RunProgress.UNCOUNTED else
                                            f" {in_words(done, total)}"))
    else:
        from ipucnn.terminal.progress import RunProgress

        with RunProgress(choice, reason) as update:
            yield update


@contextmanager
def interruptible(remember: Callable[[str], bool]) -> Iterator[None]:
    """Call `remember` with the signal of a Ctrl-C in the block; raise if it returns false.

    Outside the main thread, where Python handles no signals, this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: Any) -> None:
        name = signal.Signals(number).name
        if not remember(name):
            raise KeyboardInterrupt(name)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


class _PythonListener(Listener):
    """Forwards progress to the display and the callbacks; a signal or a callback stops the job."""

    def __init__(self, display: _Display, callbacks: Sequence[Callback]) -> None:
        self.display = display
        self._callbacks = callbacks
        self._stop, self._signal, self._explained = "", "", False
        self.error: Optional[BaseException] = None

    def status(self, status: Status) -> None:
        with self._stopping():
            self.display.status(status)

    def line(self, text: str) -> None:
        self.display.line(text)

    def note(self, text: str) -> None:
        self.display.note(text)

    def row(self, row: Dict[str, Any]) -> None:
        for callback in self._callbacks:
            with self._stopping():
                if builtin(callback(dict(row))) is True:  # also numpy's and torch's True
                    raise StopTraining

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Return a context in which an exception stops the job."""
        try:
            yield
        except StopTraining:
            self._stop = self._stop or CALLBACK
        except BaseException as error:  # raised again when the training has saved
            if self._signal and isinstance(error, KeyboardInterrupt):
                raise  # the second Ctrl-C
            self.error = self.error or error
            self._stop = self._stop or CALLBACK

    def stop(self) -> str:
        if self._signal and not self._explained:  # not in the handler: it may interrupt a `print`
            self._explained = True
            self.display.note(f"{self._signal}: stopping after this step; a second one raises")
        return self._signal or self._stop

    def interrupted(self, name: str) -> bool:
        """Store a signal; return false if it is the second one."""
        if self._signal:
            return False
        self._signal = name
        return True


class _Display(Listener):
    """Shows nothing; base of the displays."""

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the display."""


class _Function(_Display):
    """Passes each status to a function."""

    def __init__(self, function: Callable[[Status], Any]) -> None:
        self._function = function

    def status(self, status: Status) -> None:
        self._function(status)


class _Terminal(_Display):
    """The progress of the command line, all of it on standard error."""

    def __init__(self, choice: str) -> None:
        from ipucnn.terminal.progress import TrainProgress

        self._shown = TrainProgress(choice, summary=False)

    def __enter__(self) -> _Terminal:
        self._shown.__enter__()
        self._shown.preparing()
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.__exit__(*error)

    def status(self, status: Status) -> None:
        self._shown.status(status)

    def line(self, text: str) -> None:
        self._shown.line(text)

    def note(self, text: str) -> None:
        self._shown.note(text)


class _Line(_Display):
    """A line of text in a notebook, which is updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next = 0.0

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)

    def show(self, text: str) -> None:
        """Replace the displayed text."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _INTERVAL
        if self._handle is None:
            from IPython import display

            shown: Any = display.display  # typed in no release
            self._handle = shown({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)

    def status(self, status: Status) -> None:
        from ipucnn.terminal.progress import describe

        self.show(describe(status))

    def line(self, text: str) -> None:
        print(printable_lines(text))

    def note(self, text: str) -> None:
        print(f"note: {printable(text)}")


def _display(progress: Progress) -> _Display:
    if callable(progress):
        return _Function(progress)
    choice = _choice(progress)
    if not _shown(choice):
        return _Display()
    return _Line() if _in_notebook() else _Terminal(choice)


def _choice(progress: Any) -> str:
    if isinstance(progress, (bool, str, type(None))) and progress in _CHOICES:
        return _CHOICES[progress]
    raise UsageError(f"option 'progress' is {progress!r}",
                     "values: True, False, 'auto', or a function that receives the status")


def _shown(choice: str) -> bool:
    from ipucnn.terminal.tables import wants_bar

    return choice == "on" or (choice == "auto" and (_in_notebook() or wants_bar(choice)))


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _callbacks(callbacks: Callbacks) -> List[Callback]:
    if callbacks is None:
        return []
    listed = [callbacks] if callable(callbacks) or not isinstance(callbacks, Iterable) \
        else list(callbacks)
    for callback in listed:
        if not callable(callback):
            raise UsageError(f"callback {callback!r} cannot be called",
                             "a callback is a function of one argument, a row of metrics")
    return listed
