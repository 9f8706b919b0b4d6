"""The result of `ipucnn data bench` as text, JSON and Python objects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional

from ipucnn.benchmarking.compute import Compute

MUCH = 0.1
"""Share of waiting above which advice is given."""


@dataclass(frozen=True)
class Loading:
    """The loader's throughput with a number of workers; rates are medians of all passes.

    Attributes:
        workers: number of threads or processes, according to the mode.
        images_per_second: of whole batches.
        limit: images per second of libjpeg-turbo decoding the same files in as many threads; None
            where this does not apply.
        ratio: of the two, within a pass.
    """

    workers: int
    images_per_second: float
    limit: Optional[float] = None
    ratio: Optional[float] = None


@dataclass(frozen=True)
class Waiting:
    """The estimated time that a model waits for images.

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
        decoders: names and versions of decoders and resizers.
        job: `train` or `inference`.
        images: number of images in the dataset.
        samples: how many of them each pass uses.
        batch_size: images per batch; the last one may have fewer.
        input_size: height and width of the prepared images, in pixels.
        pixels: their pixel format, one of `ipucnn.data.prepare.PIXELS`.
        mode: `threads`, or the loader of the backend.
        steps: images per second of one thread in each step alone; None where a step is absent.
        loading: the loader, by number of workers.
        compute: the model, when one is named.
        waiting: the estimated waiting time of the model.
        skipped: images left out by `--skip-bad-samples`: their number, and the first of them.
        notes: notes for the user.
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
    """Return the waiting time of a model that computes `compute` images per second.

    While the model computes a batch the next one is prepared, so that a call takes as long as the
    slower of the two.
    """
    best = max(loading, key=lambda one: one.images_per_second)
    share = max(0.0, 1 - best.images_per_second / compute) if compute > 0 else 0.0
    return Waiting(best.workers, best.images_per_second, share)
