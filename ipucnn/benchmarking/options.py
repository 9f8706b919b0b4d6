"""The options of `ipucnn data bench`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Dict, List, Optional, Sequence, Set, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import flag_of
from ipucnn.core.options.attributes import LOADER
from ipucnn.core.options.composition import CommandOptions, Given, changed, part
from ipucnn.core.options.declaration import declared, option
from ipucnn.core.options.owners import flags_in_role
from ipucnn.core.options.parts import MOST_WORKERS, DatasetPart, ResultPart, named_precisions
from ipucnn.core.preprocessing import LARGEST_INPUT
from ipucnn.core.registry.registry import Registry, registry
from ipucnn.data.formats.recognition import dataset_in

THREADS = "threads"
"""The data loader that every backend has; a backend may have options for others."""


@dataclass(frozen=True)
class BenchDataset(DatasetPart):
    """The dataset, and the job that images are prepared for."""

    data: str = option("imagenet", "Dataset format; recognised by the layout of '--data-dir'.",
                       kind="dataset", basic=True)
    job: str = option(
        "train", "Purpose of the images: random crops for training, or centre crops for inference "
        "and validation.", choices=("train", "inference"), basic=True)
    batch_size: int = option(1024, "Images per batch.", minimum=1,
                             names=("--micro-batch-size",), basic=True)
    input_size: Optional[int] = option(
        None, "Height and width of the prepared images in pixels (default: those of '--model', or "
        "224).", minimum=8, maximum=LARGEST_INPUT, basic=True)
    dataloader_worker: Tuple[int, ...] = option(  # type: ignore[assignment]
        (), "Numbers of workers to measure (default: 1 and the cores this process may use).",
        minimum=1, maximum=MOST_WORKERS, names=("--num-workers",), metavar="N...", basic=True)


@dataclass(frozen=True)
class MeasurementPart:
    """The extent of the measurement."""

    heading: ClassVar[str] = "Measurement"

    iterations: int = option(
        2, "Number of passes over the images for every number of workers; medians are reported.",
        minimum=1,
        basic=True)
    samples: int = option(
        4096, "Number of images per pass, the first ones of an epoch; at most those of the "
        "dataset.",
        minimum=1, basic=True)


@dataclass(frozen=True)
class ComputePart:
    """The model whose throughput is compared with that of the data pipeline."""

    heading: ClassVar[str] = "Model"

    model: Optional[str] = option(
        None, "Also measure how fast this model computes, and what share of the time it would "
        "wait for images.", kind="model", names=("--model-name",), basic=True)
    backend: str = option("auto", "Execution engine of '--model'.", kind="backend", basic=True)
    precision: Optional[str] = option(
        None, "Precision of '--model': half (16.16), half with single-precision weights (16.32, "
        "training), or full (32.32).", choices=named_precisions("16.16", "16.32", "32.32"))
    compute_batch_size: Optional[int] = option(
        None, "Micro-batch of '--model' (default: 16).", minimum=1)


@dataclass(frozen=True)
class BenchOptions(CommandOptions):
    """Options of `ipucnn data bench`; the defaults are those of the old host benchmark.

    Raises:
        UsageError: two options contradict each other, or one requires another.
    """

    dataset: BenchDataset = part(BenchDataset)
    measurement: MeasurementPart = part(MeasurementPart)
    compute: ComputePart = part(ComputePart)
    results: ResultPart = part(ResultPart)

    kinds: ClassVar[Tuple[str, ...]] = ("dataset", "backend")

    def __post_init__(self) -> None:
        if self.compute.model:
            return
        alone = ["precision", "compute_batch_size"]
        flags = [item.flag for item in changed(self) if item.name in (
            alone if self.mode != THREADS else [*alone, "backend"])]
        if flags:
            raise UsageError(f"'{flags[0]}' is for the computing of a model, and none is named",
                             "add '--model NAME', or leave it out")
        others = self._backend_values() if self.mode == THREADS else ()
        for name in others:
            loaders = flags_in_role(LOADER, registry())
            raise UsageError(
                f"'{flag_of(name)}' is for the computing of a model or for the loader "
                "of a backend, and none is named",
                f"add {' or '.join(map(repr, ['--model', *loaders]))}, or leave it out")

    def _backend_values(self) -> Dict[str, Any]:
        """Return the backend options that were given, by flat name."""
        return {**{item.name: value for kind, item, value in self.plugins.declared()
                   if kind == "backend" and value != item.default}, **self.plugins.deferred}

    @classmethod
    def combined(cls, sources: Sequence[Dict[str, Any]], others: List[List[Given]],
                 registry: Registry) -> Dict[str, Any]:
        """Return merged values of several sources; the format of a folder is recognised."""
        values = super().combined(sources, others, registry)
        if values.get("data_dir") and "data" not in values:
            values["data"] = dataset_in(values["data_dir"], registry, BenchDataset.data)
        return values

    @property
    def mode(self) -> str:
        """The loader of images: threads, or the value of the option that selects another."""
        return next((name.replace("_", "-") if value is True else str(value)
                     for name, value in self.plugins.given(LOADER).items()), THREADS)

    @property
    def feeding(self) -> Dict[str, Any]:
        """Options of `ipucnn run` that feed the same images in the same format."""
        backend = {} if self.mode == THREADS else {
            **self._backend_values(), "backend": self.compute.backend}
        names = {item.name for item in declared(DatasetPart)} - {"dataloader_worker"}
        return {**self._given(names), **self.plugins.as_dict(without=("backend",)), **backend,
                "data": self.dataset.data, "input_size": self.dataset.input_size,
                "batch_size": self.dataset.batch_size, "weights": "random"}

    @property
    def computing(self) -> Dict[str, Any]:
        """Options for a run or a training of the model."""
        loaders = self.plugins.given(LOADER)
        values = {name: value for name, value in self._backend_values().items()
                  if name not in loaders}
        return {**self._given({"backend", "precision", "input_size", "seed",
                               "normalization_location", "eight_bit_io"}), **values,
                "model": self.compute.model}

    def _given(self, names: Set[str]) -> Dict[str, Any]:
        return {item.name: self.get(item.name) for item in changed(self) if item.name in names}
