"""The options of `ipucnn data convert`."""

from dataclasses import dataclass
from typing import ClassVar, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.composition import CommandOptions, part
from ipucnn.core.options.conversion import LARGEST_SIZE
from ipucnn.core.options.declaration import option
from ipucnn.core.options.parts import MOST_WORKERS
from ipucnn.data.formats import steps

DEFAULT_QUALITY = 95
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class ConvertSource:
    """The source of a conversion."""

    heading: ClassVar[str] = "Source"

    source: Optional[str] = option(
        None, "Folder of the dataset to convert; not for datasets that generate images.",
        names=("--data-dir",), metavar="DIR", basic=True)
    data: Optional[str] = option(
        None, "Format of the source (default: recognised by its layout).", kind="dataset",
        basic=True)
    splits: Tuple[str, ...] = option(
        (), "Splits to convert (default: all; a dataset without classes has only "
        "'validation').", choices=SPLITS, basic=True)
    skip_bad_samples: bool = option(
        False, "Leave out and count images that cannot be read instead of stopping.",
        basic=True)
    check: bool = option(
        False, "Also decode images that are stored unchanged, to find damaged ones.", basic=True)


@dataclass(frozen=True)
class ConvertTarget:
    """The target of a conversion."""

    heading: ClassVar[str] = "Target"

    target: Optional[str] = option(
        None, "Folder to write; an interrupted conversion by the same command is continued.",
        names=("--out",), metavar="DIR", basic=True)
    to: str = option("webdataset", "Format to write.", kind="dataset", basic=True)
    samples_per_shard: int = option(
        1024, "Maximum number of samples per shard.", minimum=1, basic=True)
    bytes_per_shard: Optional[int] = option(
        None, "Maximum size of a shard ('100M'), unless one sample is larger.", size=True,
        minimum=1, metavar="SIZE", basic=True)
    # unlike the old tool: class-sorted shards train poorly
    shuffle: bool = option(True, "Shuffle each split before it is written.", basic=True)
    seed: int = option(0, "Seed of the order, and of generated images.", minimum=0,
                       maximum=LARGEST_SIZE, basic=True)

    def __post_init__(self) -> None:
        if not self.target:
            raise UsageError("option '--target' is missing", "name the folder to make")


@dataclass(frozen=True)
class ConvertImages:
    """Storage of images."""

    heading: ClassVar[str] = "Images"

    format: str = option(
        "img", "How images are stored: as image files ('img'), or as pixels ('tensor').",
        choices=("img", "tensor"), basic=True)
    train_preprocess_steps: Tuple[str, ...] = option(
        (), "Steps applied to training images: any number of 'Resize(256)', 'CenterCrop(224)'.",
        metavar="STEP", basic=True)
    validation_preprocess_steps: Tuple[str, ...] = option(
        (), "Steps applied to validation images.", metavar="STEP", basic=True)
    image_quality: Optional[int] = option(
        None, "Encode every image as JPEG of this quality (default: store image files that no step "
        f"changes unchanged, and others with quality {DEFAULT_QUALITY}).",
        minimum=1, maximum=100, basic=True)

    def __post_init__(self) -> None:
        for split in SPLITS:
            self.steps(split)
        if self.format == "tensor" and self.image_quality is not None:
            raise UsageError("'--image-quality' has no effect with '--format tensor', which "
                             "stores pixels", "leave one of them out")

    def steps(self, split: str) -> Tuple[steps.Step, ...]:
        """Return the steps applied to the images of a split."""
        return steps.parse(getattr(self, f"{split}_preprocess_steps"),
                           f"--{split}-preprocess-steps")


@dataclass(frozen=True)
class ConvertExecution:
    """Execution of a conversion and display of its result."""

    heading: ClassVar[str] = "Execution"

    workers: Optional[int] = option(
        None, "Threads that read, encode and write (default: the cores this process may use).",
        minimum=1, maximum=MOST_WORKERS, basic=True)
    json: bool = option(False, "Print the result as JSON.", switch=True, basic=True)


@dataclass(frozen=True)
class ConvertOptions(CommandOptions):
    """Options of `ipucnn data convert`.

    Raises:
        UsageError: an option has an invalid value, or two contradict each other.
    """

    origin: ConvertSource = part(ConvertSource)
    images: ConvertImages = part(ConvertImages)
    destination: ConvertTarget = part(ConvertTarget)
    execution: ConvertExecution = part(ConvertExecution)

    kinds: ClassVar[Tuple[str, ...]] = ("dataset",)
    defers: ClassVar[bool] = True
