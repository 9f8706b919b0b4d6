"""What `ipucnn data bench` found, in a form for people, for JSON and for Python."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional

from ipucnn.bench.compute import Compute

MUCH = 0.1
"""Share of waiting from which on it is worth doing something."""


@dataclass(frozen=True)
class Loading:
    """What the loader reached with a number of workers; rates are medians of all passes.

    Attributes:
        workers: threads, or processes where the mode says so.
        images_per_second: of whole batches.
        limit: images per second of libjpeg-turbo decoding the same files in as many threads; None
            where there is nothing of that kind.
        ratio: of the two, within a pass.
    """

    workers: int
    images_per_second: float
    limit: Optional[float] = None
    ratio: Optional[float] = None


@dataclass(frozen=True)
class Waiting:
    """What a model would wait for.

    Attributes:
        workers: number of workers with which the loader is fastest.
        images_per_second: of that loader.
        share: part of the model's time that it would wait for images, 0 to 1.
    """

    workers: int
    images_per_second: float
    share: float


@dataclass
class BenchResult:
    """The result of `ipucnn data bench`.

    Attributes:
        dataset: canonical name.
        options: the resolved options.
        environment: versions and machine.
        decoders: what decodes and resizes.
        job: `train` or `inference`.
        images: that the dataset has.
        samples: of them, what every pass goes through.
        batch_size: images per batch, the last one perhaps fewer.
        input_size: height and width of the prepared images, in pixels.
        pixels: the form they are prepared in, one of `ipucnn.data.prepare.PIXELS`.
        mode: who prepares them: threads, or a mode of PopTorch's loader.
        steps: images per second of one thread in each step alone; None of one that there is not.
        loading: the loader, by number of workers.
        compute: the model, when one is named.
        waiting: what that would wait.
        skipped: images left out by `--skip-bad-samples`: their number, and the first of them.
        notes: what the user should know.
    """

    dataset: str
    options: Dict[str, Any]
    environment: Dict[str, Any]
    decoders: Dict[str, str]
    job: str
    images: int
    samples: int
    batch_size: int
    input_size: int
    pixels: str
    mode: str
    steps: Dict[str, Optional[float]]
    loading: List[Loading] = field(default_factory=list)
    compute: Optional[Compute] = None
    waiting: Optional[Waiting] = None
    skipped: Dict[str, Any] = field(default_factory=lambda: {"count": 0, "first": []})
    notes: List[str] = field(default_factory=list)

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        return {"format": "ipucnn.data-bench/1", **asdict(self)}


def waiting(loading: List[Loading], compute: float) -> Waiting:
    """Return what a model waits that computes so many images per second.

    While it computes a batch the next one is prepared, so that a call takes as long as the slower
    of the two.
    """
    best = max(loading, key=lambda one: one.images_per_second)
    share = max(0.0, 1 - best.images_per_second / compute) if compute > 0 else 0.0
    return Waiting(best.workers, best.images_per_second, share)
