"""Chooses default options of a training from its images and its device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.preprocessing import half_size
from ipucnn.core.registry.records import DatasetSpec, ModelSpec, OptimizerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.data.dataset_checks import image_of
from ipucnn.training.options.train_options import TrainOptions

OF_IMAGES = ("batch_size", "epoch", "num_classes", "input_size")
"""Options whose values a training chooses from its images, unless they are given."""

LARGEST_BATCH = 32
"""Micro-batch if there are enough images; it fits into the memory of common devices."""

FEWEST_UPDATES = 20
"""Weight updates per epoch below which a smaller micro-batch is chosen."""

VIEWS = 30_000
"""Number of images of a training over all epochs; large datasets need many more (`--epoch`)."""

FEWEST_EPOCHS, MOST_EPOCHS = 10, 100

RATE_BATCH = 256
"""Images per update for which records state learning rates (Goyal et al., 2017)."""

MANY_IMAGES, SMALLEST_CROP = 100_000, 0.35
"""Number of images below which random crops are larger than the 0.08 of ImageNet's recipe: in a
short training, images are not repeated often enough to compensate for crops without the object."""

FINE_TUNING = 0.1
"""Factor on the learning rate, and on the number of images, of a training from given weights."""

SMALLEST_INPUT = 64
"""Pixels; networks for ImageNet reduce an image by 32."""

_SAMPLES = 16
_WARMUP_EPOCHS, _WARMUP_SHARE = 5.0, 0.1
_UNKNOWN_RATE = 0.01


@dataclass(frozen=True)
class Decisions:
    """Options that the user did not set.

    Attributes:
        values: the chosen values by flat name.
        note: note for the user on the chosen values; may be empty.
        left_out: names of options of a shipped profile that are replaced.
    """

    values: Dict[str, Any]
    note: str = ""
    left_out: Tuple[str, ...] = ()


def followed_size(options: TrainOptions, data: DatasetSpec, dataset: ImageDataset,
                  input_size: int) -> Optional[int]:
    """Return an input size for small images, or None for that of the network.

    It avoids enlarging small images. With given weights, the size that they were trained with is
    used.

    Args:
        options: of the training.
        data: the dataset's record.
        dataset: the training images.
        input_size: of the network, in pixels.
    """
    if not _follows(options, data) or dataset.ready or not len(dataset):
        return None
    if dataset.native_size:
        return dataset.native_size if dataset.native_size < input_size else None
    step = max(1, len(dataset) // _SAMPLES)
    skip_bad = options.dataset.skip_bad_samples
    shorter = [side for index in range(0, len(dataset), step)[:_SAMPLES]
               for side in [_shorter_side(dataset, index, skip_bad)] if side is not None]
    if not shorter:
        return None
    size = max(SMALLEST_INPUT, 32 * math.ceil(median(shorter) / 32))
    return size if size < input_size else None


def foreseen_size(options: TrainOptions, data: DatasetSpec, model: ModelSpec) -> int:
    """Return the input size of a training as far as it is known without reading images.

    Args:
        options: of the training.
        data: the dataset's record, which states the size of its images if all have the same.
        model: the network's record.
    """
    usual = options.network.input_size or model.input_size
    if options.half_resolution.half_res_training:
        return half_size(usual)
    if _follows(options, data) and not model.input_sizes and 0 < data.native_size < usual:
        return data.native_size
    return usual


def size_note(size: int, usual: int) -> str:
    """Return the note about an input size that follows that of the images."""
    return (f"the input size is {size} pixels instead of {usual}, because the images are small: "
            "set it with '--input-size'")


def _follows(options: TrainOptions, data: DatasetSpec) -> bool:
    """Return whether the input size follows that of the images if they are small."""
    return options.network.input_size is None and options.network.source == "random" \
        and data.finite


def _shorter_side(dataset: ImageDataset, index: int, skip_bad: bool) -> Optional[int]:
    """Return the shorter side of an image in pixels; None for one that is skipped."""
    try:
        return min(image_of(dataset, index).shape[1:])
    except DataError:
        if not skip_bad:
            raise
        return None


def decided(options: TrainOptions, images: Optional[int], registry: Registry,
            restored: bool = False) -> Decisions:
    """Return the values of options that the user did not set.

    Args:
        options: of the training.
        images: number of training images; None for generated data.
        registry: where the optimizer is looked up.
        restored: whether the training is restored; newer options then have their earlier defaults.
    """
    reopened = _reopened(options, images)
    options = options.with_values(**reopened)
    execution, optimisation = options.execution, options.optimisation
    values: Dict[str, Any] = {name: value for name, value in reopened.items() if value is not None}
    if execution.batch_size is None:
        values["batch_size"] = _batch_size(options, images)
    if optimisation.epoch is None:
        values["epoch"] = _epochs(options, images)
    options = options.with_values(**values)
    if optimisation.lr is None:
        values["lr"] = base_rate(options, registry)
    if options.schedule.warmup_epoch is None:
        values["warmup_epoch"] = min(_WARMUP_EPOCHS, _WARMUP_SHARE * options.optimisation.epochs)
    part = options.augmentation
    if part.min_crop_area is None and part.augmentation != "none" and not restored \
            and images is not None and images < MANY_IMAGES:
        values["min_crop_area"] = SMALLEST_CROP
    return Decisions(values, _note(values, options.optimisation.optimizer), tuple(reopened))


def _reopened(options: TrainOptions, images: Optional[int]) -> Dict[str, Any]:
    """Return the options of a shipped profile that are replaced by chosen values.

    Options of a profile for this device are replaced only if a call is larger than the dataset. Of
    other profiles, accumulation and micro-batch are kept if an epoch has enough updates with them,
    and the learning rate if the number of samples per update is unchanged.
    """
    execution = options.execution
    if not options.plugins.left_out:
        # a profile for this device is kept, unless a single call needs more images than there are
        small = images is not None and images < execution.micro_batch
        return {name: None for name in ("batch_size", "lr") if name in options.shipped and small}
    values: Dict[str, Any] = {}
    few = FEWEST_UPDATES * execution.micro_batch
    if "gradient_accumulation" in options.shipped and execution.gradient_accumulation > 1 \
            and images is not None and images < few * execution.gradient_accumulation:
        values["gradient_accumulation"] = 1
    if "batch_size" in options.shipped and images is not None and images < few:
        values["batch_size"] = None
    if "lr" in options.shipped and (values or "replicas" in options.left_out):
        values["lr"] = None
    return values


def base_rate(options: TrainOptions, registry: Registry) -> float:
    """Return the learning rate of the optimizer for the samples of an update.

    It scales linearly, with the square root, or not, according to the optimizer's record. Below
    256 samples, linear scaling is replaced by the square root, because the noise of small updates
    averages out over more of them (Krizhevsky, "One weird trick for parallelizing convolutional
    neural networks", 2014).
    """
    spec = registry.get_typed(OptimizerSpec, options.optimisation.optimizer)
    execution = options.execution
    samples = execution.micro_batch * execution.replicas
    if execution.accumulation_reduction == "mean":  # a sum already scales the steps
        samples *= execution.gradient_accumulation
    share = samples / RATE_BATCH
    rate = spec.lr
    if spec.lr_growth != "none":
        rate *= math.sqrt(share) if share < 1 or spec.lr_growth == "root" else share
    if not spec.lr:
        rate = _UNKNOWN_RATE
    if options.network.source != "random":
        rate *= FINE_TUNING
    return float(f"{rate:.3g}")


def _batch_size(options: TrainOptions, images: Optional[int]) -> int:
    execution = options.execution
    others = execution.replicas * execution.gradient_accumulation
    size = LARGEST_BATCH
    if images is not None:
        # two images give batch norm a variance, and mixing takes more
        least = max(2, options.augmentation.least_micro_batch)
        while size // 2 >= least and size * others * FEWEST_UPDATES > images:
            size //= 2
        while size > 1 and size * others * execution.device_iterations > images:
            size //= 2
    return size


def _epochs(options: TrainOptions, images: Optional[int]) -> int:
    if not images:
        return FEWEST_EPOCHS
    views = VIEWS if options.network.source == "random" else VIEWS * FINE_TUNING
    fewest = FEWEST_EPOCHS if options.network.source == "random" else FEWEST_EPOCHS // 2
    return max(fewest, min(MOST_EPOCHS, round(views / images)))


_WORDS = {"batch_size": "batch size {}", "epoch": "{} epochs",
          "lr": "learning rate {:g} for {optimizer}", "warmup_epoch": "{:g} epochs of warm-up"}


def _note(values: Dict[str, Any], optimizer: str) -> str:
    parts: List[str] = [words.format(values[name], optimizer=optimizer)
                        for name, words in _WORDS.items() if name in values]
    return "chosen for these images: " + ", ".join(parts) if parts else ""
