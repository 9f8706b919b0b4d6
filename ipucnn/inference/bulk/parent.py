"""The parent of `--instances`: starts processes, receives messages, and combines results."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

from ipucnn.core import machine
from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.launching import LOCAL, environment_of
from ipucnn.core.exit_codes import ending_signals, leave_closed_terminal
from ipucnn.core.names import printable
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.inference.bulk import prediction_parts as parts
from ipucnn.inference.bulk.failures import failure_of
from ipucnn.inference.bulk.processes import Child, log_folder
from ipucnn.inference.delivery import delivered, target_of
from ipucnn.inference.options import RunOptions
from ipucnn.inference.run_result import RunResult

if TYPE_CHECKING:
    from ipucnn.core.progress import Progress

log = logging.getLogger("ipucnn.instances")

TICK = 0.1
"""Seconds after which the processes are polled when none of them sends a message."""

GRACE = 30.0
"""Seconds that processes have to finish after an interrupt."""


def run(options: RunOptions, plugins: PluginSettings, progress: Progress) -> RunResult:
    """Run inference in `--instances` processes.

    An interrupt ends the run early, as in a run of one process; a second one ends it immediately.

    Args:
        options: what to run; checked as far as possible in one process.
        plugins: plugins that the processes may load.
        progress: receives the combined progress.

    Raises:
        IpucnnError: a process failed; the others finish their parts, and `partial` holds the
            result so far.
    """
    folder = log_folder(options.results.log_path)
    with ExitStack() as stack:
        target: Optional[Path] = None
        if options.results.predictions:
            target = target_of(options.results.predictions)
            stack.enter_context(parts.claimed(target))
            stack.enter_context(delivered(options.results.predictions))
        return _run(options, plugins, folder, target, progress)


def _run(options: RunOptions, plugins: PluginSettings, folder: Path, target: Optional[Path],
         progress: Progress) -> RunResult:
    parent = _Parent(options, plugins, folder, progress)
    unmerged: Optional[IpucnnError] = None
    try:
        with _noted_signals() as signals:
            parent.start()
            parent.listen(signals)
    finally:
        parent.end()
        try:
            if target:
                parts.merge(target, options.execution.instances)
        except IpucnnError as failure:
            unmerged = failure
    result = parent.result()
    error = unmerged if parent.stopped_by else failure_of(parent.children, unmerged)
    if error is not None:
        if result is not None:
            result.stopped_by = "error"
            error.partial = result
        raise error
    if result is None:
        raise KeyboardInterrupt(parent.stopped_by)
    return result


class _Parent:
    """The processes of one run, and their messages."""

    def __init__(self, options: RunOptions, plugins: PluginSettings, folder: Path,
                 progress: Progress) -> None:
        self.children: List[Child] = []
        self.stopped_by = ""
        self._options, self._plugins, self._folder = options, plugins, folder
        self._progress = progress
        self._deadline = 0.0

    def start(self) -> None:
        """Start all processes.

        Raises:
            IpucnnError: the machine cannot start so many.
        """
        count = self._options.execution.instances
        for index, share in enumerate(machine.shares(count)):
            task = {"share": share, "plugins": self._plugins, "options": self._options.as_dict(),
                    "given": self._options.given, "command": list(sys.argv),
                    "log_level": logging.getLogger("ipucnn").getEffectiveLevel()}
            try:
                self.children.append(Child(index, self._folder / f"log_{index}", task,
                                           environment_of(LOCAL, index, count)))
            except OSError as error:
                raise IpucnnError(f"cannot start instance {index} of {count}: {error.strerror}",
                                  "use fewer '--instances'") from error

    def listen(self, signals: List[str]) -> None:
        """Receive messages until all processes have ended.

        Args:
            signals: names of received signals, appended meanwhile; the first one stops the run.

        Raises:
            KeyboardInterrupt: a second one has arrived.
        """
        while any(child.exit_code is None for child in self.children):
            wait([child.connection for child in self.children if not child.connection.closed],
                 timeout=TICK)
            for child in self.children:
                before = child.stopped_by
                for kind, value in child.messages():
                    self._hear(child, kind, value)
                if child.stopped_by and not before:
                    log.warning("instance %d, process %d, is stopped by %s; 'kill -CONT %d' "
                                "continues it", child.index, child.number, child.stopped_by,
                                child.number)
            self._answer()
            self._show_output()
            if len(signals) > 1:
                raise KeyboardInterrupt(signals[0])
            if signals:
                self._stop(signals[0])

    def _hear(self, child: Child, kind: str, value: Any) -> None:
        if kind == "progress":
            child.phase, child.done, child.total = value
            if not self.stopped_by:
                phases = [other.phase for other in self.children]
                self._progress("run" if "run" in phases else "compile",
                               sum(other.done for other in self.children), child.total)
        elif kind == "gather":
            child.gathering, child.value = True, value
        elif kind == "failing":
            log.warning("instance %d failed, the others continue: %s", child.index, value)
        elif kind == "done":
            child.result = value
        else:
            child.failure = value if kind == "failed" else {"message": value}
            child.result = child.failure.pop("partial", None)

    def _answer(self) -> None:
        """Send all values to all processes once every running process has sent its value."""
        working = [child for child in self.children if child.working]
        if working and all(child.gathering for child in working):
            values = [child.value for child in working]
            for child in working:
                child.gathering, child.value = False, None
                child.send(("gathered", values))

    def _stop(self, name: str) -> None:
        if not self.stopped_by:
            self.stopped_by = name
            self._deadline = time.monotonic() + GRACE
            for child in self.children:
                if not child.connection.closed:
                    child.send(("stop", name))
        elif time.monotonic() > self._deadline:
            self._deadline += GRACE  # for processes that are waiting for others
            for child in self.children:
                if child.exit_code is None and not child.gathering:
                    log.warning("instance %d does not stop within %.0f s and is killed",
                                child.index, GRACE)
                    child.kill()

    def _show_output(self) -> None:
        if self._options.results.hide_output:
            return
        for child in self.children:
            for line in child.output():
                with suppress(OSError):
                    print(f"[{child.index}] {printable(line)}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Terminate processes still running."""
        for child in self.children:
            child.kill()

    def result(self) -> Optional[RunResult]:
        """Return the combined result, or None when no process produced one."""
        results = [child.result for child in self.children if child.result is not None]
        if not results:
            return None
        result: RunResult = max(results, key=lambda found: found.images)
        # the figures are combined; report versions and cores of the whole run as well
        result.environment = {**describe(), "backend": result.environment["backend"]}
        figures = {own["index"]: own for own in result.instances}
        result.instances = [self._entry(child, figures.get(child.index)) for child in self.children]
        result.stopped_by = self.stopped_by or result.stopped_by
        return result

    @staticmethod
    def _entry(child: Child, own: Optional[Dict[str, Any]]) -> Dict[str, Any]:
        lost = {"index": child.index, "images": child.done, "throughput": None, "latency_ms": None}
        return {**(own or lost), "log": str(child.log), "exit_code": child.exit_code}


@contextmanager
def _noted_signals() -> Iterator[List[str]]:
    """Record signals that end a command instead of raising an exception; yield their names.

    An exception at an arbitrary point would truncate messages.
    """
    noted: List[str] = []

    def note(number: int, _frame: Any) -> None:
        leave_closed_terminal()
        name = signal.Signals(number).name
        if name != "SIGHUP" or not noted:  # shells send that of a closed terminal again
            noted.append(name)

    replaced: Dict[signal.Signals, Callable[..., Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for number in ending_signals():
            answer = signal.getsignal(number)
            if callable(answer):
                replaced[number] = answer
                signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, answer in replaced.items():
            signal.signal(number, answer)
