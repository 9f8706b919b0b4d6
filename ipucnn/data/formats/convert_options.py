"""The options of `ipucnn data convert`."""

from dataclasses import dataclass
from typing import Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.data.formats import steps

DEFAULT_QUALITY = 95
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class ConvertOptions:
    """Options of `ipucnn data convert`.

    Raises:
        UsageError: one has a value that cannot be, or two contradict each other.
    """

    source: Optional[str] = option(
        None, "Folder of the dataset to convert; not for one that makes its images.",
        group="Source", metavar="DIR")
    data: Optional[str] = option(
        None, "Its format; recognised by its layout when not given.", group="Source",
        kind="dataset")
    splits: Tuple[str, ...] = option(
        (), "Which of its splits; those that it has when not given. A dataset without classes "
        "has 'validation'.", group="Source", choices=SPLITS)
    annotations: Optional[str] = option(
        None, "File of annotations, which gives images their ids (coco).", group="Source",
        metavar="FILE")
    skip_bad_samples: bool = option(
        False, "Leave out images that cannot be read, and count them, instead of stopping.",
        group="Source")
    check: bool = option(
        False, "Decode images that are stored as they are, too, so that a damaged one is found.",
        group="Source")

    target: Optional[str] = option(
        None, "Folder to make, or one that the same call has begun.", group="Target",
        metavar="DIR")
    to: str = option("webdataset", "Format to convert into.", group="Target", kind="dataset")
    samples_per_shard: int = option(1024, "Most samples of a shard.", group="Target", minimum=1)
    bytes_per_shard: Optional[int] = option(
        None, "Most bytes of a shard ('100M'), unless one sample has more.", group="Target",
        size=True, minimum=1, metavar="SIZE")
    # the old tool did not, and class after class in the shards is nothing to train with
    shuffle: bool = option(True, "Shuffle each split before it is divided.", group="Target")
    seed: int = option(0, "Seed of that, and of images that are drawn.", group="Target",
                       minimum=0)

    format: str = option(
        "img", "How images are stored: as image files ('img'), or as pixels ('tensor').",
        group="Images", choices=("img", "tensor"))
    train_preprocess_steps: Tuple[str, ...] = option(
        (), "What is done to training images: 'Resize(256)', 'CenterCrop(224)', any number of "
        "them.", group="Images", metavar="STEP")
    validation_preprocess_steps: Tuple[str, ...] = option(
        (), "What is done to validation images.", group="Images", metavar="STEP")
    image_quality: Optional[int] = option(
        None, "Encode every image as JPEG of this quality. When not given, image files that no "
        f"step changes are stored as they are, and others with {DEFAULT_QUALITY}.",
        group="Images", minimum=1, maximum=100)

    workers: Optional[int] = option(
        None, "Threads that read, encode and write; as many as usable cores when not given.",
        group="Execution", minimum=1)
    json: bool = option(False, "Print the result as JSON.", group="Execution", switch=True)

    def __post_init__(self) -> None:
        for split in SPLITS:
            self.steps(split)
        if not self.target:
            raise UsageError("option '--target' is missing", "name the folder to make")
        if self.format == "tensor" and self.image_quality is not None:
            raise UsageError("'--image-quality' has no meaning with '--format tensor', which "
                             "stores pixels", "leave one of them out")

    def steps(self, split: str) -> Tuple[steps.Step, ...]:
        """Return what is done to the images of a split."""
        return steps.parse(getattr(self, f"{split}_preprocess_steps"),
                           f"--{split}-preprocess-steps")
