"""Finds and stores the fastest micro-batch of a device: `--batch-size auto`."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.bounded_folder import keep_record, kept_record
from ipucnn.core.environment import describe, nvidia_cards
from ipucnn.core.errors import BatchTooSmallError, IpucnnError, OutOfMemoryError, UsageError
from ipucnn.core.files import cache_dir
from ipucnn.core.machine import available_memory, compute_threads, memory_limit
from ipucnn.core.registry.records import BackendSpec
from ipucnn.models.memory_checks import memory_errors

GAIN = 1.02
"""Factor by which a micro-batch of twice the size must be faster."""

SECONDS = 15.0
"""Maximum duration of the search in seconds, without building the model."""

_CALLS, _FEWEST_SECONDS = 3, 0.3
"""Minimum number of calls, and minimum seconds, of the measurement of a size."""

_PATIENCE = 2
"""Number of consecutive sizes without improvement that ends the search."""

_TOLERANCE = 0.25
"""Relative difference of the free memory from which a result that it limited is measured again."""


def check_backend(spec: BackendSpec) -> None:
    """Reject a backend whose sessions take too long to create for measuring several sizes.

    Raises:
        UsageError: names it.
    """
    if not spec.has("batch-size-auto"):
        raise UsageError(f"'--batch-size auto' cannot be used with backend {spec.name!r}, for "
                         "which every size is compiled again",
                         "give a number: 'ipucnn plan' shows what fits into the device")


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        size: the micro-batch.
        rates: images per second by micro-batch, of those that were measured.
        why: why no larger one was measured.
        remembered: whether the result is from an earlier run.
        lasting: whether it is stored for later runs.
        limited: whether the search ended because a size did not fit into memory.
    """

    size: int
    rates: Mapping[int, float]
    why: str
    remembered: bool = False
    lasting: bool = True
    limited: bool = False

    @property
    def note(self) -> str:
        """A description of the result."""
        when = ", measured in an earlier run" if self.remembered else " measured"
        return (f"micro-batch {self.size}: {_rate(self.rates[self.size])} images/s{when}; "
                f"{self.why}; reproduce with '--batch-size {self.size}'")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


Call = Tuple[Callable[[], Any], int]
"""What computes some images, and their number."""


def search(caller: Callable[[int], Call], fewest: int, most: int,
           seconds: float = SECONDS) -> Found:
    """Measure doubled micro-batches until one fails or is not faster.

    Of sizes with about the same speed, the smaller one is selected.

    Args:
        caller: returns what computes micro-batches of a size, and the number of images; raises
            `IpucnnError` if they cannot be computed.
        fewest: the first size, at least 1.
        most: the largest size.
        seconds: time after which no further size is measured.

    Raises:
        IpucnnError: the first size cannot be computed; if 1 is too small, 2 is tried.
    """
    begin = time.perf_counter()
    rates: Dict[int, float] = {}
    best, size, why = fewest, fewest, "larger ones are not faster"
    while True:
        started = time.perf_counter()
        try:
            with memory_errors(size):
                call, images = caller(size)
                rates[size] = images / _shortest(call)
            del call  # its memory, before the next size takes some
        except IpucnnError as error:
            if not rates:
                if size > 1 or most < 2 or not isinstance(error, BatchTooSmallError):
                    raise
                best = size = 2
                continue
            if not isinstance(error, OutOfMemoryError):
                return Found(best, rates, f"{size} is not possible: {error.message}",
                             lasting=False)
            return Found(best, rates, f"{size} does not fit into memory", limited=True)
        doublings = (size // best).bit_length() - 1
        if rates[size] > GAIN ** doublings * rates[best]:
            best = size
        elif size >= best << _PATIENCE:
            break
        if 2 * size > most:
            why = f"{most} is the largest possible size"
            break
        # calls of the next size, its first one included, take about twice as long
        now = time.perf_counter()
        if now - begin + now - started + (_CALLS + 1) * images / rates[size] > seconds:
            why = "measuring larger ones takes too long"
            break
        size *= 2
    return Found(best, rates, why)


def _shortest(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of some calls; the first one is not counted."""
    call()
    times: List[float] = []
    begin = time.perf_counter()
    while len(times) < _CALLS or time.perf_counter() - begin < _FEWEST_SECONDS:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


@dataclass(frozen=True)
class Record:
    """The file with the result for a network on a machine.

    Attributes:
        path: of the file.
        device: that computes, in words.
        place: its name in options (`cuda:1`); None for the default one.
    """

    path: Path
    device: str = "CPU"
    place: Optional[str] = None

    @classmethod
    def of(cls, structure: str, values: Mapping[str, Any],
           place: Optional[str] = None) -> Record:
        """Return the record for a text that describes the network and the other conditions."""
        machine = describe()
        text = json.dumps({
            **values, "machine": {name: machine[name] for name in ("processor", "packages")},
            "cards": nvidia_cards(),
            "threads": compute_threads(), "memory": memory_limit() >> 28},
            sort_keys=True, default=str)
        digest = hashlib.sha256((structure + text).encode()).hexdigest()[:32]
        return cls(cache_dir() / "tuning" / f"batch-{digest}.json", values["device"], place)

    def result(self, measured: Callable[[], Found]) -> Found:
        """Return the stored result, or else that of a measurement, which is stored if it lasts.

        A result that memory limited applies only while about as much is free: other programs may
        have used the rest. Errors of writing are ignored.
        """
        free = _free_memory(self.device, self.place)
        found = self._stored(free)
        if found is None:
            found = measured()
            if found.lasting:
                keep_record(self.path, {
                    "size": found.size, "rates": dict(found.rates), "why": found.why,
                    "free": free if found.limited else None})
        return found

    def _stored(self, free: Optional[int]) -> Optional[Found]:
        """Return the stored result; None if there is none, it cannot be read or does not apply."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            stored = kept_record(self.path)
            rates = {int(size): float(rate) for size, rate in stored["rates"].items()}
            size, why, before = stored["size"], stored["why"], stored.get("free")
            similar = before is None or free is None or \
                abs(free - before) <= _TOLERANCE * max(free, before)
            if size in rates and min(rates.values()) > 0 and isinstance(why, str) and similar:
                return Found(int(size), rates, why, remembered=True)
        return None


def _free_memory(device: str, place: Optional[str]) -> Optional[int]:
    """Return the free bytes of a device's memory; None if it is not known."""
    if device.startswith("CPU"):
        return available_memory()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with suppress(RuntimeError):  # the measurement reports why the GPU cannot be used
            index = int(place[5:]) if place and place.startswith("cuda:") else None
            free: int = torch.cuda.mem_get_info(index)[0]
            return free
    return None
