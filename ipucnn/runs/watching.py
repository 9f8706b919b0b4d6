"""Shows a run of another process until it ends."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from ipucnn.core.errors import UsageError
from ipucnn.runs.dashboard import View, age, drawn, facts_of
from ipucnn.runs.found import (
    CLASSES,
    METRICS,
    OPTIONS,
    Metrics,
    changed,
    folders,
    read,
    read_json,
)
from ipucnn.training.live_status import FILE as STATUS
from ipucnn.training.live_status import RUNNING

EVERY = 1.0
"""Seconds between two pictures."""

STALE = 15.0
"""Seconds without a new status after which its age is shown."""


class Watched:
    """A run that is read again and again.

    Args:
        place: its log folder, or one with runs below, of which the newest is taken.

    Raises:
        UsageError: there is no run.
    """

    def __init__(self, place: Path) -> None:
        own = any((place / name).is_file() for name in (METRICS, STATUS, OPTIONS))
        found = [place] if own else sorted(folders(place), key=changed)
        if not found:
            raise UsageError(f"there is no training in '{place}'",
                             "name the folder that '--log-dir' or '--checkpoint-path' named")
        self._folder = found[-1]
        self._metrics = Metrics(self._folder / METRICS)

    def view(self) -> View:
        """Return the run as it is now."""
        self._metrics.read_on()
        run = read(self._folder, self._metrics)
        notes = []
        silent = age(run.status)
        if run.state == RUNNING and silent > STALE:
            notes.append(f"no news for {silent:.0f} s")
        status = {**facts_of(run.options), **{
            name: value for name, value in run.status.items() if value is not None}}
        classes = read_json(self._folder / CLASSES).get("classes", [])
        return View(str(self._folder), run.state, status, self._metrics.rows,
                    classes if isinstance(classes, list) else [], notes)


def coloured(picture: str) -> Any:
    """Return a picture as Rich's text, with coloured curves."""
    from rich.text import Text

    text = Text(picture, no_wrap=True, overflow="crop")
    text.highlight_regex("[\u2800-\u28ff]+", "cyan")
    text.highlight_regex(r"\A.*", "bold")
    return text


@contextmanager
def screen() -> Iterator[Callable[[Callable[[int, int], str]], None]]:
    """Take over the terminal; yield a function that shows a picture of its size.

    The terminal is as before afterwards, whatever ends the block.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stderr, highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        def show(picture: Callable[[int, int], str]) -> None:
            width, height = console.size
            live.update(coloured(picture(width, height)), refresh=True)

        yield show


def watch(place: Path, every: float = EVERY, sleep: Callable[[float], Any] = time.sleep) -> View:
    """Show a run until it ends or Ctrl-C is pressed; return its last view."""
    watched = Watched(place)
    view = watched.view()
    try:
        with screen() as show:
            while True:
                view = watched.view()
                show(functools.partial(drawn, view))
                if view.state != RUNNING:
                    return view
                sleep(every)
    except KeyboardInterrupt:  # leaves the view; the training continues
        return view
