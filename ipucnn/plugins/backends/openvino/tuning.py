"""Measures how many calls in flight are fastest, and remembers it for a network and a machine."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Mapping, Optional

from ipucnn.core.environment import processor
from ipucnn.core.errors import IpucnnError
from ipucnn.core.files import parsed_json, private_folder
from ipucnn.core.machine import thread_count
from ipucnn.core.staging import staged
from ipucnn.data.remote.download import cache_dir

if TYPE_CHECKING:
    from ipucnn.onnx.engine_base import Graph

ROUNDS = 3
SECONDS = 0.5
"""Each candidate is measured in so many rounds of so many seconds, in turn with the others."""


@dataclass(frozen=True)
class Record:
    """The file that remembers the number of calls for a network on a machine."""

    path: Path

    @classmethod
    def of(cls, graph: Graph, values: Mapping[str, Any]) -> Record:
        """Return the record of a graph's operators and shapes, and of what else decides."""
        text = json.dumps({**values, "processor": processor()}, sort_keys=True, default=str)
        digest = hashlib.sha256(graph.structure() + text.encode()).hexdigest()[:32]
        return cls(cache_dir() / "tuning" / f"openvino-{digest}.json")

    def read(self) -> Optional[int]:
        """Return what was measured; None where nothing was, or the file cannot be read."""
        with suppress(OSError, ValueError, IpucnnError, KeyError, TypeError):
            count = parsed_json(self.path.read_text())["requests"]
            if isinstance(count, int) and 1 <= count <= 1024:
                return count
        return None

    def write(self, count: int) -> None:
        """Store a number; a folder that cannot be written loses it."""
        with suppress(OSError):
            private_folder(self.path.parent)
            with staged(self.path) as partial:
                partial.write_text(json.dumps({"requests": count}))


def measured(compiled: Callable[[int], Any], images: Any) -> Dict[int, float]:
    """Return images per second for 1, 2, 4 ... requests in flight, up to the threads.

    Args:
        compiled: returns the model compiled for a number of requests.
        images: a micro-batch.
    """
    counts = sorted({1, *(1 << power for power in range(1, thread_count().bit_length())),
                     thread_count()})
    requests = {}
    for count in counts:
        model = compiled(count)
        requests[count] = [model.create_infer_request() for _ in range(count)]
        for request in requests[count]:
            request.infer([images])
    rates: Dict[int, List[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            rates[count].append(len(images) * _calls_per_second(requests[count]))
    return {count: statistics.median(values) for count, values in rates.items()}


def _calls_per_second(requests: List[Any]) -> float:
    """Return how many calls per second end while all requests are kept in flight."""
    flying: Deque[Any] = deque()
    done, started = 0, time.perf_counter()
    for request in requests:
        request.start_async()
        flying.append(request)
    while time.perf_counter() - started < SECONDS:
        request = flying.popleft()
        request.wait()
        done += 1
        request.start_async()
        flying.append(request)
    for request in flying:
        request.wait()
        done += 1
    return done / (time.perf_counter() - started)
