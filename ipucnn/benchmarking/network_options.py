"""The options of `ipucnn bench`."""

from dataclasses import dataclass
from typing import ClassVar, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import key
from ipucnn.core.options.composition import CommandOptions, changed, part
from ipucnn.core.options.declaration import option
from ipucnn.core.options.owners import AUTO
from ipucnn.core.options.parts import ResultPart, named_precisions

NETWORKS = ("resnet18", "resnet50", "mobilenet", "efficientnet-b0", "resnext50")
"""A network of each family, and two of the most used one."""

BATCH_SIZES, QUICK_BATCH_SIZES = (1, 4, 16, 64), (1, 16)

PEERS = ("torchvision", "torch-compile", "onnxruntime", "openvino", "timm")


@dataclass(frozen=True)
class BenchNetworks:
    """Options of the networks."""

    heading: ClassVar[str] = "Networks"

    model: Tuple[str, ...] = option(
        NETWORKS, "Models.", kind="model", names=("--model-name",), metavar="NAME...",
        basic=True)
    batch_size: Tuple[int, ...] = option(
        (), "Micro-batches: numbers of images that are computed at once (default: 1 4 16 64; with "
        "'--quick' 1 16).", minimum=1, names=("--micro-batch-size",), metavar="N...", basic=True)
    precision: Tuple[str, ...] = option(
        (), "Precisions: half (16.16), half with single-precision weights (16.32, training), full "
        "(32.32), or 8-bit integers (int8) (default: full; with '--quick' that of the device).",
        choices=named_precisions("16.16", "16.32", "32.32", "int8"), metavar="NAME...", basic=True)
    train: bool = option(
        False, "Measure training instead of inference, on backends that train.", negatable=False,
        basic=True)


@dataclass(frozen=True)
class BenchContenders:
    """Options of the contenders."""

    heading: ClassVar[str] = "Contenders"

    backend: Tuple[str, ...] = option(
        (), "Backends, or 'auto' for the one that a run would choose (default: all usable ones; "
        "for training, torch).", kind="backend", metavar="NAME...", basic=True)
    against: Tuple[str, ...] = option(
        (), "Other programs to compare with, each in its own process: torchvision, torch-compile, "
        "onnxruntime, openvino (with its hints for latency and for throughput), timm.",
        choices=PEERS, metavar="NAME...", basic=True)


@dataclass(frozen=True)
class BenchImages:
    """The images."""

    heading: ClassVar[str] = "Images"

    data: str = option(
        "synthetic", "Source of the images: on the device ('synthetic'), or made on the host "
        "('generated').", choices=("synthetic", "generated"), basic=True)
    data_dir: Optional[str] = option(
        None, "Read, decode and prepare the JPEG files of this folder instead.", metavar="DIR",
        basic=True)
    samples: int = option(256, "Number of images per pass over '--data-dir', the first ones.",
                          minimum=1)

    def __post_init__(self) -> None:
        if self.data_dir is None:
            if self.samples != BenchImages.samples:
                raise UsageError("'--samples' is for image files, and there are none",
                                 "add '--data-dir DIR', or leave it out")
        elif self.data != BenchImages.data:
            raise UsageError(f"'--data-dir' and '--data {self.data}' contradict each other",
                             "leave one of them out")


@dataclass(frozen=True)
class BenchExtent:
    """The extent of the measurement."""

    heading: ClassVar[str] = "Measurement"

    quick: bool = option(
        False, "Benchmark this machine in under five minutes: find the fastest backend and "
        "options of each model, which '--backend auto' then uses.", negatable=False, basic=True)
    rounds: int = option(
        3, "Number of rounds in which the programs alternate; medians are reported.",
        minimum=1, maximum=1000,
        basic=True)
    processes: int = option(
        1, "Number of processes of each program, one after the other, for '--rounds' rounds each: "
        "the speed of two processes of a program can differ by some percent.", minimum=1,
        maximum=1000)
    seconds: float = option(
        1.0, "Approximate duration of a measurement of a program in a round.",
        exclusive_minimum=0.0,
        maximum=3600.0, metavar="SECONDS")

    @property
    def turns(self) -> int:
        """The number of measurements of each program in a case."""
        return self.processes * self.rounds


@dataclass(frozen=True)
class BenchResults(ResultPart):
    """The output of the results."""

    result: Optional[str] = option(
        None, "Also write the result as JSON to this file.", metavar="FILE.json",
        names=("--out",), basic=True)


@dataclass(frozen=True)
class NetworkBenchOptions(CommandOptions):
    """Options of `ipucnn bench`.

    Raises:
        UsageError: two options contradict each other.
    """

    networks: BenchNetworks = part(BenchNetworks)
    contenders: BenchContenders = part(BenchContenders)
    images: BenchImages = part(BenchImages)
    extent: BenchExtent = part(BenchExtent)
    results: BenchResults = part(BenchResults)

    def __post_init__(self) -> None:
        train, precisions = self.networks.train, self.networks.precision
        if self.extent.quick:
            allowed = {"quick", "model", "batch_size", "precision", "result"}
            if "int8" in precisions:
                raise UsageError("'--quick' measures no 8-bit integers", "leave 'int8' out")
            others = [item.flag for item in changed(self)
                      if item.name not in allowed and not item.option.switch]
            if others:
                raise UsageError(f"'--quick' and '{others[0]}' exclude each other",
                                 "leave one of them out")
        if "16.32" in precisions and not train:
            raise UsageError("'--precision 16.32' is for training", "add '--train'")
        if "int8" in precisions:
            if train:
                raise UsageError("'--precision int8' is for inference", "leave '--train' out")
            if self.images.data_dir is None and self.images.data == "synthetic":
                raise UsageError("'--precision int8' needs images to calibrate with",
                                 "add '--data generated' or '--data-dir DIR'")
        if train and self.images.data == "generated":
            raise UsageError("'--data generated' is for inference",
                             "name files with '--data-dir', or leave it out")
        if train and any(key(name) == AUTO for name in self.contenders.backend):
            raise UsageError("'--backend auto' is for inference", "name a backend that trains")

    @property
    def precisions(self) -> Tuple[str, ...]:
        """The precisions to measure; an empty one is that of the device."""
        return tuple(dict.fromkeys(self.networks.precision)) or (
            ("",) if self.extent.quick else ("32.32",))

    @property
    def batch_sizes(self) -> Tuple[int, ...]:
        """The micro-batches to measure."""
        return tuple(dict.fromkeys(self.networks.batch_size)) or (
            QUICK_BATCH_SIZES if self.extent.quick else BATCH_SIZES)
