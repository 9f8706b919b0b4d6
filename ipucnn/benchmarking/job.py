"""The job behind `ipucnn data bench`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import Any, Callable, List, Optional, Sequence

from ipucnn.benchmarking import compute, host
from ipucnn.benchmarking.bench_result import MUCH, BenchResult, Loading, Waiting, waiting
from ipucnn.benchmarking.options import BenchOptions
from ipucnn.core.environment import describe
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.feeding import Fed
from ipucnn.core.execution.launching import check_alone
from ipucnn.core.execution.offers import check_offer
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import choose_backend
from ipucnn.core.execution.session_checks import opened
from ipucnn.core.machine import thread_count, usable_cores
from ipucnn.core.options.attributes import NO_LABELS
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import default_of
from ipucnn.core.options.effects import idle_notes
from ipucnn.core.progress import Progress
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import ImageDataset
from ipucnn.data.augment import TrainTransform
from ipucnn.data.dataset_checks import order_of
from ipucnn.data.images import decoder_versions
from ipucnn.data.loader import Loader
from ipucnn.data.opening import check_dataset_options, open_dataset, request_of
from ipucnn.data.prepare import Preparation
from ipucnn.data.session_loader import feed
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import model_of, network_of
from ipucnn.models.weights_card import preprocessing_of


def bench(options: BenchOptions, registry: Optional[Registry] = None,
          progress: Optional[Progress] = None) -> BenchResult:
    """Measure the throughput of image preparation, and optionally of a model.

    Every pass uses the same images. The first one times the steps in one thread, and reads
    files from the disk or the page cache; afterwards they are in the page cache if that has room
    for them. Passes of the loader and of plain decoding alternate.

    Args:
        options: what to measure.
        registry: where names are looked up; this process's when not given.
        progress: receives the progress.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry = registry or current_registry()
    check_alone("data bench")
    options.results.check_places()
    model = options.compute.model or default_of(RunOptions, "model")
    feeding = build(RunOptions, {**options.feeding, "model": model}, registry=registry)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    prepare = _preparation(options, feeding, data, registry)
    dataset = prepare.dataset
    with ExitStack() as stack:
        fed = Fed() if options.mode == "threads" else stack.enter_context(
            _session(feeding, data, dataset, registry))
        computing = _computing(options, registry) if options.compute.model else None
        plan = replace(feeding.plan(False), preprocessing=prepare.preprocessing)
        host_side = _Host(options, prepare, fed, plan, progress or (lambda *_: None))
        result = BenchResult(
            dataset=data.name, options=options.recorded(), environment=describe(),
            decoders=decoder_versions(), job=options.dataset.job, images=len(dataset),
            samples=len(host_side.indices), batch_size=options.dataset.batch_size,
            input_size=prepare.preprocessing.input_size, pixels=prepare.pixels,
            mode=options.mode, steps={},
            notes=[*dataset.notes, *idle_notes(options, {
                NO_LABELS: "on the speed of preparation"}, registry)])
        host_side.measure(result)
    if computing is not None:
        result.compute = computing()
        result.waiting = waiting(result.loading, result.compute.images_per_second)
        if result.waiting.share > MUCH:
            result.notes.append(_advice(result.waiting, prepare.pixels))
    return result


def _preparation(options: BenchOptions, feeding: RunOptions, data: DatasetSpec,
                 registry: Registry) -> Preparation:
    """Return the preparation of the dataset's images."""
    if data.on_device:
        raise UsageError(f"dataset {data.name!r} makes its images on the device: there is nothing "
                         "to measure on the host", "'--data generated' makes images on the host")
    check_dataset_options(feeding.dataset, data, {})
    train = options.dataset.job == "train"
    preprocessing = preprocessing_of(feeding.network, registry)
    length = None if data.finite else options.measurement.samples
    request = replace(request_of(feeding.network, feeding.dataset,
                                 preprocessing.input_size, length),
                      split="train" if train else None)
    dataset = open_dataset(data, request, feeding.plugins, registry)
    transform = TrainTransform(preprocessing.input_size, options.dataset.seed, dataset)
    return Preparation(dataset, preprocessing, transform if train else None,
                       feeding.plan(False).pixels)


def _computing(options: BenchOptions, registry: Registry) -> Callable[[], compute.Compute]:
    """Return a function that measures the model, whose options are checked already."""
    measure = compute.training if options.dataset.job == "train" else compute.inference
    batch_size = options.compute.compute_batch_size or compute.BATCH_SIZE
    return measure({**options.computing, "batch_size": batch_size}, registry)


def _session(feeding: RunOptions, data: DatasetSpec, dataset: ImageDataset,
             registry: Registry) -> Any:
    """Return a session of the backend with the requested data loader; it computes nothing."""
    plan = feeding.plan(False)
    chosen = choose_backend(feeding, plan, registry)
    check_offer(feeding, plan, chosen.spec, registry)
    built = model_of(feeding, network_of(feeding, data, dataset), registry)
    return opened(chosen.backend.inference(built.module, plan, built.input_size),
                  InferenceSession, chosen.plugin)


class _Host:
    """Measures the host.

    Attributes:
        indices: images that every pass uses.
    """

    def __init__(self, options: BenchOptions, prepare: Preparation, fed: Fed, plan: ExecutionPlan,
                 progress: Progress) -> None:
        self._options, self._prepare, self._fed = options, prepare, fed
        self._plan = plan
        dataset = prepare.dataset
        order: Any = range(len(dataset)) if prepare.transform is None \
            else order_of(dataset, options.dataset.seed, 0)
        self.indices = [int(index) for index in order[:options.measurement.samples]]
        self._counts = options.dataset.dataloader_worker or tuple(sorted({1, thread_count()}))
        self._limited = True
        self._progress = progress
        self._done = 0
        passes = 2 * options.measurement.iterations * len(self._counts)
        self._total = len(self.indices) * (1 + passes)

    def measure(self, result: BenchResult) -> None:
        """Fill in the measurements."""
        steps = host.steps(self._prepare, self.indices, self._options.dataset.skip_bad_samples,
                           self._report)
        result.steps = steps.rates()
        result.skipped = {"count": steps.skipped_count, "first": steps.skipped}
        self.indices = steps.readable
        result.samples = len(self.indices)
        if not steps.files:
            result.notes.append("this dataset gives pixels, not files: 'decode' is its making of "
                                "an image")
        result.loading = [self._loading(count, result.notes) for count in self._counts]

    def _loading(self, workers: int, notes: List[str]) -> Loading:
        """Measure the loader and plain decoding in alternating passes."""
        if self._options.mode != "threads":  # processes start with the first pass
            host.loading(self._loader(workers, self.indices[:self._options.dataset.batch_size]),
                         lambda _: None)
        count = len(self.indices)
        rates: List[float] = []
        limits: List[float] = []
        for _ in range(self._options.measurement.iterations):
            rates.append(count / host.loading(self._loader(workers, self.indices), self._report))
            if self._limited:
                try:
                    limits.append(count / host.bare_decoding(
                        self._prepare.dataset, self.indices, workers, self._report))
                except host.NoLimitError as reason:
                    self._limited = False
                    notes.append(f"no limit by bare decoding: {reason}")
            else:
                self._report(count)
        if not self._limited:
            return Loading(workers, median(rates))
        return Loading(workers, median(rates), median(limits),
                       median(rate / limit for rate, limit in zip(rates, limits)))

    def _loader(self, workers: int, indices: Sequence[int]) -> Loader:
        prepare = self._prepare
        return feed(
            self._fed, prepare.dataset, self._plan, self._options.dataset.batch_size,
            indices, workers=workers, transform=prepare.transform)

    def _report(self, images: int) -> None:
        self._done += images
        self._progress("measure", min(self._done, self._total), self._total)


def _advice(found: Waiting, pixels: str) -> str:
    """Return advice for a model that waits for images."""
    ways = ["'--normalization-location device'"] if pixels == "normalised" else []
    ways.append("images that 'ipucnn data convert' has made smaller and written as shards")
    ways.append("more '--dataloader-worker'" if found.workers < usable_cores() else "more cores")
    return (f"the model would wait for images {100 * found.share:.0f} % of its time; what helps: "
            + ", ".join(ways))
