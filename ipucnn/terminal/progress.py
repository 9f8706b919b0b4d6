"""Shows progress on standard error: a bar on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Dict, List, Optional

from ipucnn.core.progress import Listener, Status
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render

_WIDE = 110
"""Minimum terminal columns for a bar beside the figures."""


class _Lines:
    """Prints periodic lines where there is no bar; `off` prints none."""

    def __init__(self, choice: str) -> None:
        self._on = choice != "off"
        self._next = time.monotonic() + render.LINE_INTERVAL

    def line(self, text: Callable[[], str]) -> None:
        """Print a line if the last one is long enough ago."""
        if self._on and time.monotonic() >= self._next:
            self._next = time.monotonic() + render.LINE_INTERVAL
            render.info(text())


class TrainProgress(Listener):
    """Shows a training's progress on standard error, its summary lines on standard output.

    Args:
        choice: `auto`, `on` or `off`: whether there is a bar.
        summary: whether summary lines go to standard output; otherwise they go to standard error
            (with `--json`, whose document must stand alone).
    """

    def __init__(self, choice: str, summary: bool = True) -> None:
        self._show = render.wants_bar(choice)
        self._lines = _Lines(choice)
        self._summary = summary
        self._bar: Any = None
        self._task: Any = None
        self._stopping = False

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_bar()

    def status(self, status: Status) -> None:
        """Show the status of the training."""
        if not self._show:
            self._lines.line(lambda: describe(status))
            return
        if self._bar is None:
            self._start_bar()
        self._bar.update(self._task, description=brief(status), completed=status.done,
                         total=status.total or None)

    def line(self, text: str) -> None:
        """Write a line of results."""
        self._end_bar()
        if self._summary:
            render.emit(text)
        else:
            render.info(text)

    def note(self, text: str) -> None:
        """Print a note for the user."""
        self._end_bar()
        render.note(text)

    def stop(self) -> str:
        """Return the signal that has arrived; on the first call, explain its effect."""
        name = signals.pending()
        if name and not self._stopping:
            self._stopping = True
            self._end_bar()
            render.info(f"{name}: saving after this step; a second one aborts")
        return name

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(file=sys.stderr)
        # the figures matter more than the bar: on a narrow terminal they are shown alone
        bar = [BarColumn(bar_width=20)] if console.width >= _WIDE else []
        self._bar = Progress(*bar, TextColumn("{task.description}"), console=console,
                             transient=True)
        self._bar.start()
        self._task = self._bar.add_task("preparing", total=None)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(status: Status) -> str:
    """Return a status as one line."""
    if status.phase == "preparing":
        return "preparing"
    if status.phase == "validating":
        return f"validating epoch {status.epoch}: {status.done} of {status.total} images"
    parts: List[str] = [f"epoch {status.epoch}/{status.epochs}, call {status.done}/{status.total}"]
    if status.loss is not None:
        parts.append(f"Loss:{status.loss:.4f}")
    if status.accuracy is not None:
        parts.append(f"Accuracy:{status.accuracy:.2f}%")
    if status.learning_rate is not None:
        parts.append(f"lr {status.learning_rate:.4g}")
    if status.images_per_second is not None:
        parts.append(f"{status.images_per_second:.1f} img/s")
    if status.data_wait_share is not None:
        parts.append(f"waiting for data {100 * status.data_wait_share:.0f}%")
    if status.seconds_left is not None:
        parts.append(f"{_duration(status.seconds_left)} left")
    return " | ".join(parts)


def brief(status: Status) -> str:
    """Return a status in about 80 characters, for the bar."""
    if status.phase != "training":
        return describe(status)
    parts = [f"{status.epoch}/{status.epochs} {status.done}/{status.total}"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.3f}")
    if status.accuracy is not None:
        parts.append(f"acc {status.accuracy:.1f}%")
    if status.learning_rate is not None:
        parts.append(f"lr {status.learning_rate:.3g}")
    if status.images_per_second is not None:
        parts.append(f"{status.images_per_second:.0f} img/s")
    if status.data_wait_share is not None:
        parts.append(f"data {100 * status.data_wait_share:.0f}%")
    if status.seconds_left is not None:
        parts.append(f"{_duration(status.seconds_left)} left")
    return " ".join(parts)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class RunProgress:
    """Shows the progress of a job that counts images, on standard error; a context manager.

    It shows a bar on a terminal, and periodic lines elsewhere.
    """

    def __init__(self, choice: str) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._show = render.wants_bar(choice)
        self._lines = _Lines(choice)

    def __enter__(self) -> Callable[[str, int, Optional[int]], None]:
        return self._update

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, phase: str, done: int, total: Optional[int]) -> None:
        signals.raise_if_swallowed()
        if not self._show:
            self._lines.line(lambda: f"{done} of {total} images")
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("images"), TimeRemainingColumn(),
                console=Console(file=sys.stderr), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(phase, total=None)
        words: Dict[str, str] = {"compile": "preparing", "run": "classifying",
                                 "convert": "converting", "measure": "measuring"}
        self._bar.update(self._task, description=words[phase], completed=done, total=total)
