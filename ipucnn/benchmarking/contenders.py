"""Handles of the processes of contenders in `ipucnn bench`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, Optional, Tuple

from ipucnn.benchmarking.case import (
    OVER,
    PEER,
    READY,
    REFUSED,
    TURN,
    Case,
    Contender,
    Facts,
    RefusedError,
)
from ipucnn.benchmarking.contender_process import START
from ipucnn.core.names import printable
from ipucnn.core.registry.discovery import PluginSettings

PATIENCE = 600.0
"""Timeout of a contender in seconds."""

_NO_TELEMETRY = {"openvino": {"CI": "true"}, "onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"}}
"""Variables that disable the telemetry of other programs, by the first part of their names; they
are read on import."""


class Process:
    """A process that measures one contender; close it in any case.

    A process that has ended, or that was killed because it did not respond, is replaced for the
    next case.

    Args:
        contender: what it measures.
        settings: the plugins that it may load.
    """

    def __init__(self, contender: Contender, settings: PluginSettings) -> None:
        self.contender = contender
        self._settings = settings
        self._start()

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._connection, theirs = Pipe()
        program = self.contender.name.partition("-")[0] if self.contender.kind == PEER else ""
        quiet = _NO_TELEMETRY.get(program, {})
        with theirs:
            # a session of its own: Ctrl-C on the terminal is for the parent
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), str(os.getpid()),
                 *map(str, sys.path)], env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()], start_new_session=True)
        self._send((self.contender, self._settings))

    def prepare(self, case: Case) -> None:
        """Prepare a case.

        Raises:
            RefusedError: the contender cannot; the message states the reason.
        """
        if self._process.poll() is not None:
            self.close()
            self._start()
        self._send(case)
        self._receive(READY)

    def turn(self, seconds: float) -> float:
        """Return the images (or operations) per second of a turn.

        Raises:
            RefusedError: it failed.
        """
        self._send(seconds)
        _, images, taken = self._receive(TURN)
        return float(images) / float(taken) if taken > 0 else 0.0

    def end(self) -> Facts:
        """End the case; return the contender's facts.

        Raises:
            RefusedError: it failed.
        """
        self._send(None)
        facts: Facts = self._receive(OVER)[1]
        return facts

    def close(self) -> None:
        """End the process, at once."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._connection.close()
        self._log.close()

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # the process has ended, which `_receive` reports
            self._connection.send(message)

    def _receive(self, expected: str) -> Tuple[Any, ...]:
        answer: Optional[Tuple[Any, ...]] = None
        try:
            if not self._connection.poll(PATIENCE):
                self._process.kill()  # it would disturb others, and answer the next case
                self._process.wait()
                raise RefusedError(f"no response in {PATIENCE:.0f} seconds")
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise RefusedError(self._ended()) from None
        if answer[0] == REFUSED:
            raise RefusedError(printable(str(answer[1])))
        if answer[0] != expected:
            raise RefusedError(f"it ended early: {answer[0]}")
        return answer

    def _ended(self) -> str:
        """Return how the process ended, with the last line that it wrote."""
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
        return printable(f"its process {how}" + (f": {last[:200]}" if last else ""))
