"""A case of `ipucnn bench`, and the messages between it and the process that measures it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Protocol, Tuple

from ipucnn.core.preprocessing import Preprocessing

SYNTHETIC, GENERATED, FILES = "synthetic", "generated", "files"
"""Where images come from: they are on the device; `ipucnn` makes them on the host; image files."""

INFERENCE, TRAIN, TUNE = "inference", "train", "tune"
"""Jobs of a contender; `TUNE` measures the backends of `auto` and stores the result."""

OWN, PEER, LIMIT = "ipucnn", "peer", "limit"
"""The kinds of contenders."""

READY, TURN, OVER, REFUSED = "ready", "turn", "over", "refused"
"""The first words of the messages of a contender."""


@dataclass(frozen=True)
class Contender:
    """A contender: `ipucnn` with a backend, another program, or a limit of the machine.

    Attributes:
        kind: `OWN`, `PEER` or `LIMIT`.
        name: of the backend, the other program or the limit.
    """

    kind: str
    name: str

    @property
    def label(self) -> str:
        """The name in tables."""
        return f"ipucnn {self.name}" if self.kind == OWN else self.name.replace("-", " ")


@dataclass(frozen=True)
class Case:
    """A measurement of a contender.

    Attributes:
        model: the network's name in the registry.
        batch_size: images per call.
        precision: `32.32`, `16.16`, `16.32` or `int8`; empty for that of the device.
        job: `INFERENCE`, `TRAIN` or `TUNE`.
        data: `SYNTHETIC`, `GENERATED` or `FILES`.
        preprocessing: of the network.
        folder: of image files.
        samples: images of a pass over files.
        onnx: the network as a file, for engines that read one.
        limit: seconds that a measurement of backends should take.
    """

    model: str
    batch_size: int
    precision: str = "32.32"
    job: str = INFERENCE
    data: str = SYNTHETIC
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    folder: str = ""
    samples: int = 256
    onnx: str = ""
    limit: float = 30.0

    @property
    def shape(self) -> Tuple[int, int, int, int]:
        """The shape of a batch of images."""
        size = self.preprocessing.input_size
        return self.batch_size, 3, size, size


class RefusedError(Exception):
    """A contender cannot be measured in a case; the message states the reason."""


Facts = Dict[str, Any]
"""The setup of a contender: device, threads, requests ..."""

Measure = Callable[[float], Tuple[float, float]]
"""Works for about so many seconds; returns the images (or operations) done and the seconds."""


class Link(Protocol):
    """The connection of a contender's process to `ipucnn bench`."""

    def ready(self) -> None:
        """Report that everything is prepared."""

    def wait(self) -> Optional[float]:
        """Return how many seconds to work for in the next turn, once it begins; None at the end."""

    def done(self, images: float, seconds: float) -> None:
        """Report the result of a turn."""


def serve(link: Link, measure: Measure) -> None:
    """Report that a contender is ready, and measure each turn."""
    link.ready()
    while True:
        seconds = link.wait()
        if seconds is None:
            return
        link.done(*measure(seconds))


def repeated(work: Callable[[], Any], wanted: float) -> Tuple[int, float]:
    """Call a function for so many seconds, once at least; return the calls and the seconds."""
    begin, count = time.perf_counter(), 0
    while True:
        work()
        count += 1
        seconds = time.perf_counter() - begin
        if seconds >= wanted:
            return count, seconds
