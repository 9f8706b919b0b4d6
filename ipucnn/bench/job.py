"""The job behind `ipucnn data bench`."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Any, Callable, List, Optional, Sequence

from ipucnn.bench import compute, host
from ipucnn.bench.bench_result import MUCH, BenchResult, Loading, Waiting, waiting
from ipucnn.core.environment import describe
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.feeding import Fed
from ipucnn.core.execution.instances import launched
from ipucnn.core.execution.selection import check_offer, choose_backend
from ipucnn.core.machine import usable_cores
from ipucnn.core.options import BenchOptions, RunOptions, TrainOptions
from ipucnn.core.options.declaration import build
from ipucnn.core.registry.records import DatasetSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import ImageDataset
from ipucnn.data.augment import TrainTransform
from ipucnn.data.images import decoder_versions
from ipucnn.data.loader import Loader
from ipucnn.data.prepare import Preparation
from ipucnn.inference.preparation import check_data_options, make_dataset, make_model

Progress = Callable[[str, int, Optional[int]], None]
"""Called with the phase (`measure`), the images done and the images in all."""


def bench(options: BenchOptions, registry: Optional[Registry] = None,
          progress: Optional[Progress] = None) -> BenchResult:
    """Measure how fast images are prepared, and perhaps how fast a model takes them.

    Every pass goes through the same images. The first one times the steps in one thread, and reads
    files as they are on the disk or in the page cache; from then on they are in the page cache if
    that has room for them. Passes of the loader and of bare decoding take turns.

    Args:
        options: what to measure.
        registry: where names are looked up; this process's when not given.
        progress: told how far it is.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry = registry or current_registry()
    launch = launched()
    if launch is not None and launch.count > 1:
        raise UsageError(f"'data bench' measures one process, and poprun started {launch.count}",
                         "leave poprun out")
    feeding = build(RunOptions, {**options.feeding, "model": options.model or TrainOptions.model})
    data = registry.get_typed(DatasetSpec, options.data)
    prepare = _preparation(options, feeding, data, registry)
    dataset = prepare.dataset
    with ExitStack() as stack:
        fed = Fed() if options.mode == "threads" else stack.enter_context(
            _session(feeding, data, dataset, registry))
        computing = _computing(options, registry) if options.model else None
        host_side = _Host(options, prepare, fed, progress or (lambda *_: None))
        result = BenchResult(
            dataset=data.name, options=options.as_dict(), environment=describe(),
            decoders=decoder_versions(), job=options.job, images=len(dataset),
            samples=len(host_side.indices), batch_size=options.batch_size,
            input_size=prepare.input_size, pixels=prepare.pixels, mode=options.mode, steps={},
            notes=list(dataset.notes))
        host_side.measure(result)
    if computing is not None:
        result.compute = computing()
        result.waiting = waiting(result.loading, result.compute.images_per_second)
        if result.waiting.share > MUCH:
            result.notes.append(_advice(result.waiting, prepare.pixels))
    return result


def _preparation(options: BenchOptions, feeding: RunOptions, data: DatasetSpec,
                 registry: Registry) -> Preparation:
    """Return how an image of the dataset is prepared."""
    if data.on_device:
        raise UsageError(f"dataset {data.name!r} makes its images on the device: there is nothing "
                         "to measure on the host", "'--data generated' makes images on the host")
    check_data_options(feeding, data, {})
    train = options.job == "train"
    model = registry.get_typed(ModelSpec, feeding.model)
    dataset = make_dataset(feeding, model, data, registry,
                           length=None if data.finite else options.samples,
                           split="train" if train else None)
    if not len(dataset):
        raise DataError(f"dataset {data.name!r} has no images", "name another folder")
    size = feeding.input_size or model.input_size
    return Preparation(dataset, size, TrainTransform(size, options.seed, dataset) if train
                       else None, feeding.plan(False).pixels)


def _computing(options: BenchOptions, registry: Registry) -> Callable[[], compute.Compute]:
    """Return what measures the model, which is checked already."""
    measure = compute.training if options.job == "train" else compute.inference
    return measure({**options.computing,
                    "batch_size": options.compute_batch_size or compute.BATCH_SIZE}, registry)


def _session(feeding: RunOptions, data: DatasetSpec, dataset: ImageDataset,
             registry: Registry) -> Any:
    """Return a session of the backend that has the data loader asked for; it computes nothing."""
    plan = feeding.plan(False)
    chosen = choose_backend(feeding.backend, registry, plan, feeding)
    check_offer(feeding, plan, chosen.spec, registry)
    built = make_model(feeding, data, dataset, registry)
    return chosen.backend.inference(built.module, plan, built.input_size)


class _Host:
    """Measures the host's side.

    Attributes:
        indices: images that every pass goes through.
    """

    def __init__(self, options: BenchOptions, prepare: Preparation, fed: Fed,
                 progress: Progress) -> None:
        self._options, self._prepare, self._fed = options, prepare, fed
        dataset = prepare.dataset
        order: Any = range(len(dataset)) if prepare.transform is None \
            else dataset.order(options.seed, 0)
        self.indices = [int(index) for index in order[:options.samples]]
        self._counts = options.dataloader_worker or tuple(sorted({1, usable_cores()}))
        self._limited = True
        self._progress = progress
        self._done = 0
        self._total = len(self.indices) * (1 + 2 * options.iterations * len(self._counts))

    def measure(self, result: BenchResult) -> None:
        """Fill in what is measured."""
        steps = host.steps(self._prepare, self.indices, self._options.skip_bad_samples, self._tell)
        result.steps = steps.rates()
        result.skipped = {"count": steps.skipped_count, "first": steps.skipped}
        self.indices = steps.readable
        result.samples = len(self.indices)
        if not steps.files:
            result.notes.append("this dataset gives pixels, not files: 'decode' is its making of "
                                "an image")
        result.loading = [self._loading(count, result.notes) for count in self._counts]

    def _loading(self, workers: int, notes: List[str]) -> Loading:
        """Have the loader and bare decoding take turns."""
        if self._options.mode != "threads":  # processes start with the first pass
            host.loading(self._loader(workers, self.indices[:self._options.batch_size]),
                         lambda _: None)
        count = len(self.indices)
        rates: List[float] = []
        limits: List[float] = []
        for _ in range(self._options.iterations):
            rates.append(count / host.loading(self._loader(workers, self.indices), self._tell))
            if self._limited:
                try:
                    limits.append(count / host.bare_decoding(
                        self._prepare.dataset, self.indices, workers, self._tell))
                except host.NoLimitError as reason:
                    self._limited = False
                    notes.append(f"no limit by bare decoding: {reason}")
            else:
                self._tell(count)
        if not self._limited:
            return Loading(workers, median(rates))
        return Loading(workers, median(rates), median(limits),
                       median(rate / limit for rate, limit in zip(rates, limits)))

    def _loader(self, workers: int, indices: Sequence[int]) -> Loader:
        prepare = self._prepare
        return self._fed.loader(
            prepare.dataset, prepare.input_size, self._options.batch_size, indices,
            workers=workers, transform=prepare.transform, pixels=prepare.pixels)

    def _tell(self, images: int) -> None:
        self._done += images
        self._progress("measure", min(self._done, self._total), self._total)


def _advice(found: Waiting, pixels: str) -> str:
    """Return what helps a model that waits."""
    ways = ["'--normalization-location device'"] if pixels == "normalised" else []
    ways.append("images that 'ipucnn data convert' has made smaller and written as shards")
    ways.append("more '--dataloader-worker'" if found.workers < usable_cores() else "more cores")
    return (f"the model would wait for images {100 * found.share:.0f} % of its time; what helps: "
            + ", ".join(ways))
