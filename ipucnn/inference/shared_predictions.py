"""Predictions of processes that share a run: all rows in image order, in one file of the first."""

from __future__ import annotations

import json
import os
from collections import deque
from contextlib import ExitStack, suppress
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, Deque, Iterable, Iterator, List, Optional, Sequence

from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.inference import predictions
from ipucnn.inference.delivery import delivered, target_of

_AT_A_TIME = 512
"""Number of rows that each process sends to the first one at a time."""


class SharedWriter(predictions.PredictionWriter):
    """Writes this process's rows to a temporary file, until all send them to the first process.

    Args:
        path: the file of all rows; only the first process opens it.
        columns: of the rows.
        instances: the processes; the constructor and `share` are collective.

    Raises:
        IpucnnError: the first process cannot write the file.
    """

    def __init__(self, path: str, columns: Sequence[str], instances: Instances) -> None:
        self._instances = instances
        self._stack = ExitStack()
        self._target: Optional[predictions.PredictionWriter] = None
        self._indices: Sequence[int] = ()
        failure: Optional[IpucnnError] = None
        try:
            if not instances.index:
                target = self._stack.enter_context(delivered(path))
                self._target = self._stack.enter_context(
                    predictions.writer_class(path)(target, columns))
            super().__init__(target_of(path), columns)
        except IpucnnError as error:
            failure = error
        for message, hint in instances.gather(
                ["", ""] if failure is None else [failure.message, failure.hint]):
            if message:
                self._stack.close()
                raise failure or IpucnnError(message, hint)

    def write(self, rows: Iterable[predictions.Row], indices: Sequence[int] = ()) -> None:
        """Write rows; see `PredictionWriter.write`."""
        self._indices = indices
        super().write(rows)

    def close(self) -> None:
        """Do nothing: `share` finishes the file."""

    def share(self, together: bool) -> Optional[DataError]:
        """Write the rows of all processes in the order of their images, and finish the file.

        Args:
            together: all processes call this; otherwise this one's rows are written alone.

        Returns:
            Why the first process could not write them.
        """
        instances = self._instances if together else ALONE
        failure: Optional[DataError] = None
        for rows in _in_order(self._stored(), instances):
            try:
                if self._target is not None and failure is None:
                    self._target.write(rows)
            except DataError as error:  # the other processes still send their rows
                failure = error
        try:
            self._stack.close()
        except DataError as error:
            failure = failure or error
        with suppress(OSError):  # after a failed write, which `write` has reported
            self._file.close()
        return failure

    def _stored(self) -> Iterator[Any]:
        """Yield the positions and rows that were written to the temporary file."""
        with open(os.dup(self._file.fileno()), encoding="ascii") as file:
            file.seek(0)
            yield from predictions.stored_entries(file)

    def _claim(self) -> None:
        """Do nothing: the first process has locked the file."""

    def _open(self) -> None:
        self._file = TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - closed by `share`

    def _write(self, rows: List[predictions.Row]) -> None:
        self._file.writelines(json.dumps(entry) + "\n" for entry in zip(self._indices, rows))
        self._file.flush()

    def _close(self) -> None:
        """Do nothing; see `close`."""


def _in_order(own: Iterator[Any], instances: Instances) -> Iterator[List[predictions.Row]]:
    """Yield the rows of all processes in the order of their positions; collective.

    The rows of each process are in that order, so all rows before the last one that each process
    has sent are complete.
    """
    waiting: List[Deque[Any]] = [deque() for _ in range(instances.count)]
    while True:
        sent = instances.gather(list(islice(own, _AT_A_TIME)))
        for queue, entries in zip(waiting, sent):
            queue.extend(entries)
        ends = [entries[-1][0] for entries in sent if len(entries) == _AT_A_TIME]
        whole = min(ends, default=None)
        ready = sorted((entry for queue in waiting for entry in queue
                        if whole is None or entry[0] <= whole), key=lambda entry: entry[0])
        for queue in waiting:
            while queue and (whole is None or queue[0][0] <= whole):
                queue.popleft()
        yield [row for _, row in ready]
        if whole is None:
            return
