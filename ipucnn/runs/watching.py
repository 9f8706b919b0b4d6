"""Shows a run of another process until it ends."""

from __future__ import annotations

import functools
import math
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Union

from ipucnn.core.documents import read_mapping
from ipucnn.core.errors import UsageError
from ipucnn.core.log_folder import METRICS, OPTIONS, RUNNING, STATUS
from ipucnn.data.remote.mirror import Mirror, Polling, local_path
from ipucnn.data.remote.stores import is_store
from ipucnn.runs.dashboard import View, age, drawn, encodable, facts_of
from ipucnn.runs.found import (
    DEPTH,
    FILES,
    Metrics,
    changed,
    classes_in,
    folders,
    read,
)
from ipucnn.terminal.tables import console as standard_error

EVERY = 1.0
"""Seconds between two updates of the display."""

STALE, STALE_STORE = 15.0, 30.0
"""Seconds without a new status after which its age is shown; on a store, which is polled."""

POLLED = 4.0
"""Seconds between two queries of a store."""


class Watched:
    """A run that is read repeatedly.

    Args:
        place: its log folder, or a folder with runs, of which the newest is shown; a path, or the
            URL of a folder on a store.

    Raises:
        IpucnnError: there is no run, or the store does not respond.
    """

    def __init__(self, place: Union[str, os.PathLike[str]]) -> None:
        name = local_path(place)
        self._mirror: Optional[Mirror] = None
        self._polling: Optional[Polling] = None
        if is_store(name):
            self._mirror = Mirror(name, FILES, DEPTH)
            self._mirror.refresh()
        root = self._mirror.folder if self._mirror else Path(name)
        own = any(os.path.isfile(root / file) for file in (METRICS, STATUS, OPTIONS))
        found = [root] if own else sorted(folders(root), key=changed)
        if not found:
            raise UsageError(f"there is no training in '{place}'",
                             "name the folder of '--log-dir', or else of '--checkpoint-path'")
        self._folder = found[-1]
        self._url = ""
        if self._mirror:
            self._url = self._mirror.shown(self._folder)
            self._mirror = self._mirror.of(self._folder)
            self._mirror.refresh()
            self._folder = self._mirror.folder
        self._metrics = Metrics(self._folder / METRICS)
        self._written: Any = None
        self._seen = 0.0

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Query a store periodically during the block, in a thread."""
        if self._mirror:
            self._polling = Polling(self._mirror, POLLED)
        try:
            yield
        finally:
            if self._polling:
                self._polling.stop()

    def view(self) -> View:
        """Return the current state of the run."""
        self._metrics.read_on()
        status = read_mapping(self._folder / STATUS)
        silent = self._silent(status)
        run = read(self._folder, self._metrics, self._url, silent)
        notes = []
        if self._polling and self._polling.failed:
            notes.append(self._polling.failed)
        if run.state == RUNNING and silent > (STALE_STORE if self._url else STALE):
            notes.append(f"not seen for {silent:.0f} s")
        if run.status.get("error"):
            notes.append(str(run.status["error"]))
        shown = {**facts_of(run.options), **_last_figures(run.last), **{
            name: value for name, value in run.status.items() if value is not None}}
        return View(self._url or str(self._folder), run.state, shown, self._metrics.rows,
                    classes_in(self._folder), notes)

    def _silent(self, status: Mapping[str, Any]) -> float:
        """Return the seconds since the status was new; clocks of hosts may differ."""
        now = time.monotonic()
        if status.get("time") != self._written:
            first, self._written = self._written is None, status.get("time")
            self._seen = now - (age(status) if first else 0.0)
        return now - self._seen if self._written is not None else 0.0


def _last_figures(row: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the figures in the last row of a training; a later restore may have had no step."""
    names = ("loss", "accuracy", "learning_rate", "images_per_second")
    epoch = row.get("epoch")
    return {**{name: row.get(name) for name in names},
            **({"epoch": math.ceil(epoch)} if isinstance(epoch, (int, float)) else {})}


def coloured(picture: str) -> Any:
    """Return a view as Rich text, with coloured curves."""
    from rich.text import Text

    text = Text(picture, no_wrap=True, overflow="crop")
    text.highlight_regex("[\u2800-\u28ff]+", "cyan")
    text.highlight_regex(r"\A.*", "bold")
    return text


@contextmanager
def screen() -> Iterator[Callable[[Callable[[int, int], str]], None]]:
    """Switch the terminal to full screen; yield a function that shows a view of its size.

    The terminal is restored at the end of the block.
    """
    from rich.live import Live

    console = standard_error(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        def show(picture: Callable[[int, int], str]) -> None:
            width, height = console.size
            live.update(coloured(encodable(picture(width, height), console.encoding)), refresh=True)

        yield show


def watch(place: str, every: float = EVERY, sleep: Callable[[float], Any] = time.sleep) -> View:
    """Show a run until it ends or Ctrl-C is pressed; return its last view."""
    watched = Watched(place)
    view = watched.view()
    try:
        with watched.followed(), screen() as show:
            while True:
                view = watched.view()
                show(functools.partial(drawn, view))
                if view.state != RUNNING:
                    return view
                sleep(every)
    except KeyboardInterrupt:  # leaves the view; the training continues
        return view
