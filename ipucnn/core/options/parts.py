"""Option parts shared by several commands; a job's own parts are in its package."""

import os
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Iterator, Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.files import kind_of, require_writable
from ipucnn.core.options.attributes import DEVICE_IMAGES, FULL_PRECISION, NO_LABELS
from ipucnn.core.options.composition import CommandOptions, settings
from ipucnn.core.options.conversion import LARGEST_SIZE
from ipucnn.core.options.declaration import declared, option
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.preprocessing import LARGEST_INPUT

NORMALISATION_PLACES = {"device": "device", "ipu": "device", "host": "host", "none": "none"}
"""The places of normalisation, by every spelling."""

AUTO_BATCH = "auto"
"""The value of `--batch-size` that is replaced by a measured number."""

MOST_WORKERS, MOST_CLASSES = 1024, 10 ** 6
"""Upper limits of numbers; larger values are errors, because they exceed the memory of any machine
or make it unusable (threads)."""


def named_precisions(*precisions: str) -> Dict[str, str]:
    """Return the choices of an option of precisions: their names, `half` and `full`."""
    return {"half": "16.16", "full": "32.32", **{name: name for name in precisions}}


def names_published(weights: str) -> bool:
    """Return whether a value of `--weights` names published ones: `pretrained`, or with a tag."""
    return weights.partition(":")[0] == "pretrained"


def names_own(weights: str) -> bool:
    """Return whether a value of `--weights` names a file or folder: not random, not published."""
    return weights != "random" and not names_published(weights)


@dataclass(frozen=True)
class ProfilePart:
    """Options that select a profile."""

    heading: ClassVar[str] = "Profile"

    config: Optional[str] = option(
        None, "Profile that replaces defaults: a name or a YAML file.", metavar="NAME|FILE",
        switch=True, basic=True)


@dataclass(frozen=True)
class NetworkPart:
    """Options of the network and its construction."""

    heading: ClassVar[str] = "Model"

    model: str = option("resnet18", "Name of the model.", kind="model", names=("--model-name",),
                        fixed="model", basic=True)
    weights: str = option(
        "pretrained", "'pretrained', 'pretrained:TAG', 'random', a weights file, or a folder of "
        "checkpoints (the best one, or else the newest); a checkpoint contains its model.",
        metavar="pretrained|random|FILE|DIR", fixed="start", basic=True)
    ema: Optional[bool] = option(
        None, "Use the moving average of a checkpoint's weights, or the weights themselves "
        "(default: the average if it validated best).", fixed="start")
    weights_partial: bool = option(
        False, "Accept a weights file with missing or unexpected entries.",
        fixed="start")
    num_classes: Optional[int] = option(
        None, "Number of classes (default: that of the dataset or of the published weights).",
        minimum=1, maximum=MOST_CLASSES, fixed="model", basic=True)
    input_size: Optional[int] = option(
        None, "Height and width of the input in pixels (default: the model's own).", minimum=8,
        maximum=LARGEST_INPUT, basic=True)
    normlayer: str = option("batch", "Normalisation layer.", kind="norm-layer",
                            names=("--norm-type",), fixed="model", basic=True)
    input_image_padding: bool = option(
        False, "Pad images with a fourth channel of zeros, which is faster on some devices.",
        fixed="model")

    @property
    def source(self) -> str:
        """The weights to load: a value of `--weights`."""
        return self.weights

    def check_weights(self) -> None:
        """Raise an error for options of a weights file if none is loaded.

        Raises:
            UsageError: weights are random, or published ones without a moving average.
        """
        if self.ema is not None and not names_own(self.source):
            flag = "--ema" if self.ema else "--no-ema"
            raise UsageError(f"'{flag}' is for checkpoints, and none is named",
                             "add '--weights FILE', or leave it out")
        if self.weights_partial and self.source == "random":
            raise UsageError("'--weights-partial' has no effect for random weights",
                             "leave it out, or name weights with '--weights'")


@dataclass(frozen=True)
class DatasetPart:
    """Options of the dataset and of the transfer of images to the device."""

    heading: ClassVar[str] = "Data"

    data: str = option(
        "real", "Dataset format; with a checkpoint, recognised by the layout of '--data-dir'.",
        kind="dataset", basic=True)
    data_dir: Optional[str] = option(
        None, "Folder of the dataset, or for some datasets a URL (default: the dataset's own).",
        names=("--imagenet-data-path",), metavar="DIR|URL", basic=True)
    skip_bad_samples: bool = option(
        False, "Count and report images that cannot be read instead of stopping.")
    normalization_location: Optional[str] = option(
        None, "Where images are normalised (default: on the device); 'none' passes values from 0 "
        "to 255.",
        choices=NORMALISATION_PLACES, names=("--normalisation-location",), idle=DEVICE_IMAGES)
    eight_bit_io: Optional[bool] = option(
        None, "Send images to the device as uint8 (default: yes, unless the host normalises).",
        idle=DEVICE_IMAGES)
    dataloader_worker: Optional[int] = option(
        None, "Decoding threads or processes; 0 decodes in the calling thread (default: the cores "
        "this process may use).", minimum=0, maximum=MOST_WORKERS, names=("--num-workers",))
    match_classes: str = option(
        "name", "How classes of the dataset are matched with those of the model: by 'name', or by "
        "'position' regardless of names.", choices=("name", "position"), idle=NO_LABELS)
    seed: int = option(0, "Random seed.", minimum=0,
                       maximum=LARGEST_SIZE, fixed="start", basic=True)

    @property
    def input(self) -> Tuple[str, bool]:
        """The place of normalisation, and whether images are sent to the device as uint8."""
        place = self.normalization_location or ("host" if self.eight_bit_io is False else "device")
        return place, place != "host" if self.eight_bit_io is None else self.eight_bit_io


def other_input(profile: Mapping[str, Any], given: Mapping[str, Any]) -> Tuple[str, ...]:
    """Return the options of a profile that a given one on the input of the device contradicts."""
    for one, value, other, excluded in (("eight_bit_io", True, "normalization_location", "host"),
                                        ("normalization_location", "host", "eight_bit_io", True)):
        if given.get(one) == value and other not in given and profile.get(other) == excluded:
            return (other,)
    return ()


@dataclass(frozen=True)
class ExecutionPart:
    """Options of the backend and of the batch and device layout."""

    heading: ClassVar[str] = "Execution"

    backend: str = option("auto", "Execution engine; 'auto' selects the best usable built-in one.",
                          kind="backend", basic=True)
    batch_size: Optional[int] = option(
        1, "Micro-batch: samples that one replica computes at once.", minimum=1,
        names=("--micro-batch-size",), basic=True)
    device_iterations: int = option(
        1, "Steps that the device executes per host call.", minimum=1,
        names=("--device-iteration", "--batches-per-step"))
    replicas: int = option(1, "Data-parallel copies of the model.", minimum=1, basic=True)
    pipeline_splits: Tuple[str, ...] = option(
        (), "Modules that begin the next pipeline stage, in order: 'layer1/2 layer2/3'; 'auto:4' "
        "chooses four stages.", metavar="MODULE...")
    full_precision_norm: bool = option(
        False, "Compute norm layers in single precision within a half-precision model.",
        feature="full-precision-norm", idle=FULL_PRECISION)
    compile_only: bool = option(False, "Compile, fill the cache and stop.",
                                feature="compile-only")

    @property
    def measured(self) -> bool:
        """Whether the micro-batch is measured."""
        return str(self.batch_size) == AUTO_BATCH


@dataclass(frozen=True)
class ResultPart:
    """Options of the output of results."""

    heading: ClassVar[str] = "Results"

    result: Optional[str] = option(
        None, "Also write the result as JSON to this file.", metavar="FILE.json", basic=True)
    json: bool = option(False, "Print the result as JSON instead of a table.", switch=True,
                        basic=True)
    progress: str = option("auto", "Show progress: only on terminals, always, or never.",
                           choices=("auto", "on", "off"), switch=True)

    written_during: ClassVar[Tuple[str, ...]] = ()
    """Names of options whose files are written, and checked, during the job."""

    def __post_init__(self) -> None:
        written: Dict[str, str] = {}
        for item, place in self._files():
            if kind_of(place):  # such as /dev/null
                continue
            other = written.setdefault(os.path.realpath(place), item.flag)
            if other != item.flag:
                raise UsageError(f"'{other}' and '{item.flag}' write the same file {place!r}",
                                 "name two files")

    def check_places(self, options: Optional[CommandOptions] = None) -> None:
        """Raise an error before a job for files that cannot be written after it.

        Args:
            options: of the command, whose other options name files that it reads.

        Raises:
            DataError: names the first one, and why.
            UsageError: it would overwrite a file that the command reads.
        """
        read = {} if options is None else self._read(options)
        for item, place in self._files():
            reader = read.get(os.path.realpath(place))
            if reader:
                raise UsageError(f"'{item.flag}' would overwrite {place!r}, which '{reader}' reads",
                                 "name another file")
            if item.name not in self.written_during:
                require_writable(place)

    def _read(self, options: CommandOptions) -> Dict[str, str]:
        """Return the flags of the options that name existing files, by the path of the file."""
        own = {item.name for item in declared(type(self))}
        return {os.path.realpath(place): item.flag for name, (item, value)
                in settings(options).items() if name not in own and isinstance(value, str)
                for place in [os.path.expanduser(value)] if os.path.isfile(place)}

    def _files(self) -> Iterator[Tuple[Declared, str]]:
        """Yield the options that name files to write, and the files."""
        for item in declared(type(self)):
            place = getattr(self, item.name)
            if place and item.option.metavar.startswith("FILE"):
                yield item, place
