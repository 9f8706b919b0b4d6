"""Executes and times the host calls of inference."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Callable, Deque, Generator, List, Optional, Sequence, Tuple

import numpy

from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.session_checks import logits_of
from ipucnn.data.loader import Batch, Loader
from ipucnn.inference.run_result import Meter


@dataclass
class HostCalls:
    """Executes host calls, in device calls of the session's largest size.

    Device calls are started ahead, up to the number that the session supports, before results are
    read.

    Attributes:
        plan: of the run.
        session: compiled.
        batches: the images, or None for each call where the device generates them.
        time_limit: seconds after which no further call is started; None for no limit.
        report: receives the number of images done.
        outputs: of the model.
        plugin: a third-party backend in words; its logits are checked.
    """

    plan: ExecutionPlan
    session: InferenceSession
    batches: Generator[Optional[Batch], None, None]
    time_limit: Optional[float]
    report: Callable[[int], None]
    outputs: int = 0
    plugin: str = ""

    def __post_init__(self) -> None:
        self.meter = Meter()
        self.images = 0
        self.out_of_time = False
        self._started = time.perf_counter()
        self._pending: Deque[Tuple[Optional[Batch], float, Callable[[], Any]]] = deque()
        self._waited = 0.0
        self._failure: Optional[Exception] = None

    def execute(self, deliver: Callable[[Batch, Any], None]) -> bool:
        """Execute one combined batch; return whether there may be more.

        Args:
            deliver: receives its indices and labels, without the images, and the logits. It is
                called once, because each call takes longer than a further image in it.
        """
        samples, self._waited = 0, 0.0
        done: List[Tuple[Batch, Any]] = []
        latencies: List[float] = []
        begin = time.perf_counter()
        more = True
        try:
            while more and samples < self.plan.local_batch:
                self._start_calls()
                if not self._pending:
                    more = False
                    break
                batch, called, result = self._pending.popleft()
                images = self.session.samples_per_call if batch is None else len(batch)
                logits = logits_of(result, images, self.outputs, self.plugin)
                latencies.append(time.perf_counter() - called)
                samples += images
                if batch is not None:
                    done.append((replace(batch, images=None), logits))  # their memory is reused
                self.report(self.images + samples)
        finally:  # device calls done before an interrupt are counted, too
            self.images += samples
            if done:
                deliver(*_joined(done))
            if samples:
                counters = self.session.device_latency()
                self.meter.iteration(samples, time.perf_counter() - begin, self._waited,
                                     [counters[2]] if counters else latencies)
        return more

    def _start_calls(self) -> None:
        """Start calls up to the maximum in flight, or until there are no more images.

        Raises:
            Exception: an image cannot be read, or a call cannot be started; the calls in flight
                before it have been completed.
        """
        while len(self._pending) < max(1, self.session.in_flight):
            if self._failure is not None:
                if self._pending:
                    return
                raise self._failure
            requested = time.perf_counter()
            if self.time_limit is not None and requested - self._started >= self.time_limit:
                self.out_of_time = True
                return
            try:
                batch = next(self.batches)
            except StopIteration:
                return
            except Exception as error:
                self._failure = error
                continue
            called = time.perf_counter()
            self._waited += called - requested
            try:
                result = self.session.start(None if batch is None else batch.images)
            except Exception as error:
                self._failure = error
                continue
            self._pending.append((batch, called, result))

    def close(self) -> None:
        """Stop prefetching."""
        self.batches.close()


def batches(loader: Optional[Loader], total: int,
            size: int) -> Generator[Optional[Batch], None, None]:
    """Yield the batches of a loader, or None for each where the device generates the images.

    Args:
        loader: None when no images are transferred.
        total: total number of images.
        size: images per batch.
    """
    if loader is not None:
        yield from loader
    else:  # the device generates its images
        yield from repeat(None, -(-total // size))


def _joined(done: Sequence[Tuple[Batch, Any]]) -> Tuple[Batch, Any]:
    """Return batches and their logits as one."""
    if len(done) == 1:
        return done[0]
    batches = [batch for batch, _ in done]
    joined = Batch(None, [index for batch in batches for index in batch.indices],
                   [label for batch in batches for label in batch.labels], batches[-1].consumed)
    return joined, numpy.concatenate([numpy.asarray(logits)[:len(batch)]
                                      for batch, logits in done])
