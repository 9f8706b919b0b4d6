"""Shows progress on standard error: a bar or a spinner on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, ClassVar, Dict, Iterator, Optional, Tuple

from ipucnn.core.errors import IpucnnError
from ipucnn.core.progress import Listener, Status
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.layout import clock

_WIDE = 110
"""Minimum terminal columns for a bar beside the figures."""


class _Lines:
    """Prints periodic lines if there is no bar; `off` prints none."""

    def __init__(self, choice: str) -> None:
        self._on = choice != "off"
        self._next = time.monotonic() + render.LINE_INTERVAL

    def line(self, text: Callable[[], str]) -> None:
        """Print a line if the last one is long enough ago."""
        if self._on and time.monotonic() >= self._next:
            self._next = time.monotonic() + render.LINE_INTERVAL
            render.info(text())


IMPORTING = "importing torch"
PREPARING = "opening the data and building the model"
COMPILING = "compiling the model"
"""Text of a spinner before the first image is computed."""


class Spinner:
    """A line with the current activity and its duration, on a terminal only.

    Args:
        show: whether to show it; see `tables.wants_bar`.
    """

    def __init__(self, show: bool) -> None:
        self._show = show
        self._line: Any = None
        self._task: Any = None

    def say(self, reason: str) -> None:
        """Show an activity until the next one, or until `stop`."""
        if not self._show:
            return
        if self._line is None:
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._line = Progress(SpinnerColumn(), TextColumn("{task.description}"),
                                  TimeElapsedColumn(), console=render.console(),
                                  transient=True)
            self._task = self._line.add_task(reason, total=None)
            self._line.start()
        self._line.update(self._task, description=reason)

    def stop(self) -> None:
        """Remove the line."""
        if self._line is not None:
            self._line.stop()
            self._line = None


@contextmanager
def busy(reason: str, choice: str = "auto") -> Iterator[None]:
    """Show a spinner with the reason during the block, on a terminal only.

    Args:
        reason: the activity, such as "compiling the model".
        choice: `--progress`: `auto`, `on` or `off`.
    """
    spinner = Spinner(render.wants_bar(choice))
    spinner.say(reason)
    try:
        yield
    finally:
        spinner.stop()


@contextmanager
def importing_torch(choice: str = "auto") -> Iterator[None]:
    """Import torch in the block: show a spinner, and defer an interrupt to its end."""
    show = "torch" not in sys.modules and render.wants_bar(choice)
    with busy(IMPORTING, choice if show else "off"), signals.held():
        yield


class TrainProgress(Listener):
    """Shows a training's progress on standard error, its summary lines on standard output.

    A signal interrupts the preparation at once. From the first call of `stop`, after the first
    step, it is only recorded, and the training or validation ends with its current step.

    Args:
        choice: `auto`, `on` or `off`: whether there is a bar.
        summary: whether summary lines go to standard output; otherwise they go to standard error
            (with `--json`, whose document must stand alone).
    """

    def __init__(self, choice: str, summary: bool = True) -> None:
        self._show = render.wants_bar(choice)
        self._lines = _Lines(choice)
        self._summary = summary
        self._unwritten: Optional[Exception] = None
        self._bar: Any = None
        self._task: Any = None
        self._stopping = False
        self._signals = ExitStack()
        self._recording = False
        self._spinner = Spinner(self._show)
        self._reason = PREPARING if "torch" in sys.modules else IMPORTING

    def __enter__(self) -> TrainProgress:
        self._spinner.say(self._reason)
        return self

    def preparing(self) -> None:
        """Show that torch is imported, and that the data and the model are prepared."""
        self._reason = PREPARING
        self._spinner.say(self._reason)

    def __exit__(self, *error: object) -> None:
        self._signals.close()
        self._end_bar()

    def status(self, status: Status) -> None:
        """Show the status of the training."""
        if not self._show:
            self._lines.line(lambda: describe(status))
            return
        if status.phase == "preparing":
            self._reason = COMPILING
            self._spinner.say(self._reason)
            return
        if self._bar is None:
            self._start_bar(brief(status))
        self._bar.update(self._task, description=brief(status), completed=status.done,
                         total=status.total or None)

    def line(self, text: str) -> None:
        """Write a line of results, unless an earlier one could not be written."""
        self._end_bar()
        if not self._summary:
            render.info(text)
        elif self._unwritten is None:
            try:
                render.emit(text)
            except (BrokenPipeError, IpucnnError) as error:  # must not end the work
                self._unwritten = error

    def check_output(self) -> None:
        """Raise the error of a line of results that could not be written.

        Call it after the files of the results are written.
        """
        if self._unwritten is not None:
            raise self._unwritten

    def note(self, text: str) -> None:
        """Print a note for the user."""
        waiting = bool(self._reason) and self._bar is None
        self._end_bar()
        render.note(text)
        if waiting:
            self._spinner.say(self._reason)

    def stop(self) -> str:
        """Return the signal that has arrived; when it is first returned, explain its effect."""
        if not self._recording:
            self._recording = True
            self._signals.enter_context(signals.graceful())
        name = signals.pending()
        if name and not self._stopping:
            self._stopping = True
            self.explain(f"{name}: saving after this step; a second one aborts")
        return name

    def explain(self, text: str) -> None:
        """Print the effect of a signal."""
        self._end_bar()
        render.info(text)

    def _start_bar(self, text: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._spinner.stop()
        self._reason = ""
        console = render.console()
        # on a narrow terminal only the figures are shown, without the bar
        bar = [BarColumn(bar_width=20)] if console.width >= _WIDE else []
        self._bar = Progress(*bar, TextColumn("{task.description}"), console=console,
                             transient=True)
        self._task = self._bar.add_task(text, total=None)
        self._bar.start()

    def _end_bar(self) -> None:
        self._spinner.stop()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(status: Status) -> str:
    """Return a status as one line."""
    if status.phase == "preparing":
        return "preparing"
    if status.phase == "validating":
        return f"validating epoch {status.epoch}: {counted(status.done, status.total)}"
    return " | ".join([f"epoch {_of(status.epoch, status.epochs)}, "
                       f"call {_of(status.done, status.total)}", *_figures(status, in_bar=False)])


def brief(status: Status) -> str:
    """Return a status in about 80 characters, for the bar."""
    if status.phase != "training":
        return describe(status)
    return " ".join([f"{_of(status.epoch, status.epochs)} {_of(status.done, status.total)}",
                     *_figures(status, in_bar=True)])


_FIGURES = (
    ("loss", "Loss:{:.4f}", "loss {:.3f}"), ("accuracy", "Accuracy:{:.2f}%", "acc {:.1f}%"),
    ("learning_rate", "lr {:.4g}", "lr {:.3g}"),
    ("images_per_second", "{:.1f} img/s", "{:.0f} img/s"),
    ("data_wait_share", "waiting for data {:.0%}", "data {:.0%}"))
"""Fields of a status, and their texts in a line and in the bar."""


def _figures(status: Status, in_bar: bool) -> Iterator[str]:
    """Yield the known figures of a status as text."""
    for name, line, short in _FIGURES:
        value = getattr(status, name)
        if value is not None:
            yield (short if in_bar else line).format(value)
    if status.seconds_left is not None:
        yield f"{clock(status.seconds_left)} left"


def counted(done: int, total: Optional[int], unit: str = "images") -> str:
    """Return "3 of 8 images", or "3 images" when the total is not known."""
    return f"{done} of {total} {unit}" if total else f"{done} {unit}"


def _of(done: int, total: int) -> str:
    return f"{done}/{total}" if total else str(done)


class RunProgress:
    """Shows the progress of a job that counts images, on standard error; a context manager.

    On a terminal it shows a spinner, and a bar once images are counted; elsewhere periodic lines.

    Args:
        choice: `--progress`: `auto`, `on` or `off`.
        reason: the activity before images are counted.
        unit: the counted unit, if not images.
    """

    WORDS: ClassVar[Dict[str, str]] = {
        "compile": COMPILING, "run": "classifying", "convert": "converting", "measure": "measuring",
        "tune": "measuring backends"}

    UNCOUNTED: ClassVar[Tuple[str, ...]] = ("compile", "tune")
    """The phases that do not count images."""

    def __init__(self, choice: str, reason: str = PREPARING, unit: str = "images") -> None:
        self._unit = unit
        self._bar: Any = None
        self._task: Any = None
        self._show = render.wants_bar(choice)
        self._lines = _Lines(choice)
        self._spinner = Spinner(self._show)
        self._reason = reason

    def __enter__(self) -> Callable[[str, int, Optional[int]], None]:
        self._spinner.say(self._reason)
        return self._update

    def __exit__(self, *error: object) -> None:
        self._spinner.stop()
        if self._bar is not None:
            self._bar.stop()

    def _update(self, phase: str, done: int, total: Optional[int]) -> None:
        signals.raise_if_swallowed()
        words = self.WORDS[phase]
        if not self._show:
            self._lines.line(lambda: words if phase in self.UNCOUNTED else
                             counted(done, total, self._unit))
        elif phase in self.UNCOUNTED:
            self._spinner.say(words)
        else:
            if self._bar is None:
                self._start_bar(words, counted(done, total, self._unit))
            self._bar.update(self._task, description=words, completed=done, total=total,
                             count=counted(done, total, self._unit))

    def _start_bar(self, words: str, count: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._spinner.stop()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(), console=render.console(), transient=True)
        self._task = self._bar.add_task(words, total=None, count=count)
        self._bar.start()
