"""Options of the commands for stored checkpoints: `validate` and `average`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import VALIDATION
from ipucnn.core.options.composition import CommandOptions, part
from ipucnn.core.options.declaration import declared, option
from ipucnn.core.options.parts import AUTO_BATCH, ResultPart, named_precisions


@dataclass(frozen=True)
class ValidatedCheckpoints:
    """Options of the weights to validate."""

    heading: ClassVar[str] = "Checkpoints"

    checkpoint_path: Optional[str] = option(
        None, "Checkpoint, or a folder whose checkpoints are all validated in order.",
        names=("--checkpoint-input-path", "--checkpoint-input-dir", "--weights"),
        metavar="FILE|DIR", basic=True)
    ema: Optional[bool] = option(
        None, "Validate the moving average of the weights, or not (default: both).", basic=True)


@dataclass(frozen=True)
class ValidationDataset:
    """Options of the validation images; by default as in the training."""

    heading: ClassVar[str] = "Data"

    data: Optional[str] = option(None, "Dataset.", kind="dataset", basic=True)
    data_dir: Optional[str] = option(
        None, "Folder of the dataset, or for some datasets a URL.",
        names=("--imagenet-data-path",), metavar="DIR|URL", basic=True)
    validation_data_dir: Optional[str] = option(
        None, "Folder of the validation images, if it is not below '--data-dir'.",
        metavar="DIR", basic=True)
    skip_bad_samples: Optional[bool] = option(
        None, "Count and report images that cannot be read instead of stopping.", basic=True)
    dataloader_worker: Optional[int] = option(
        None, "Decoding threads or processes; 0 decodes in the calling thread (default: the cores "
        "this process may use).", minimum=0, names=("--num-workers",), basic=True)
    match_classes: Optional[str] = option(
        None, "How classes of the dataset are matched with those of the model: by 'name', or by "
        "'position' regardless of names.", choices=("name", "position"))
    cache_images: str = option(
        "none", "Keep decoded images for further checkpoints in memory, or in files that trainings "
        "and later validations use, too; the result is the same.", choices=("none", "ram", "disk"))
    cache_images_dir: Optional[str] = option(
        None, "Folder of '--cache-images disk' (default: in the user's cache folder).",
        metavar="DIR")


@dataclass(frozen=True)
class ValidationExecution:
    """Options of the execution; by default as in the training."""

    heading: ClassVar[str] = "Execution"

    backend: Optional[str] = option(None, "Execution engine.", kind="backend", basic=True)
    batch_size: Optional[int] = option(
        None, "Micro-batch, which does not change the result, or 'auto' to find the fastest.",
        minimum=1, words=(AUTO_BATCH,), names=("--micro-batch-size",), basic=True)
    device_iterations: Optional[int] = option(
        None, "Steps that the device executes per host call.",
        minimum=1, names=("--device-iteration",))
    replicas: Optional[int] = option(None, "Data-parallel copies of the model.", minimum=1)
    precision: Optional[str] = option(
        None, "Precision: half (16.16) or full (32.32).",
        choices=named_precisions("16.16", "32.32"), basic=True)


@dataclass(frozen=True)
class ValidationResults(ResultPart):
    """Options of the reported results."""

    per_class: bool = option(False, "Also report the accuracy of every class.", basic=True)
    confusion_matrix: Optional[str] = option(
        None, "Write a table of true and predicted classes.", metavar="FILE.csv", basic=True)
    report: Optional[str] = option(
        None, "Write a report as an HTML page: accuracy, confusion matrix, images, options.",
        metavar="FILE.html")

    @property
    def documented(self) -> bool:
        """Whether thumbnails of the selected images are made."""
        return bool(self.report or self.result)


@dataclass(frozen=True)
class ValidateOptions(CommandOptions):
    """Options of `ipucnn validate`; by default as in the checkpoint's training."""

    checkpoints: ValidatedCheckpoints = part(ValidatedCheckpoints)
    dataset: ValidationDataset = part(ValidationDataset)
    execution: ValidationExecution = part(ValidationExecution)
    results: ValidationResults = part(ValidationResults)

    kinds: ClassVar[Tuple[str, ...]] = ("dataset", "backend")
    job: ClassVar[str] = VALIDATION
    defers: ClassVar[bool] = True

    def overrides(self) -> Dict[str, Any]:
        """Return the given values that replace those of the training, by flat name."""
        values = {item.name: self.get(item.name)
                  for kind in (ValidationDataset, ValidationExecution) for item in declared(kind)
                  if self.get(item.name) != item.default}
        return {**values, **self.plugins.as_dict()}


@dataclass(frozen=True)
class AverageOptions:
    """Options of `ipucnn average`."""

    checkpoint_path: Optional[str] = option(
        None, "Folder of checkpoints of one training.", group="Checkpoints",
        names=("--checkpoint-input-path", "--checkpoint-input-dir"), metavar="DIR", basic=True)
    checkpoint_output_path: Optional[str] = option(
        None, "File for the average (default: beside the checkpoints).",
        group="Checkpoints", names=("--output",), metavar="FILE", basic=True)
    weight_avg_strategy: str = option(
        "mean", "Equal weights, or exponentially lower weights for older checkpoints.",
        group="Averaging", choices=("mean", "exponential"), basic=True)
    weight_avg_exp_decay: float = option(
        0.99, "Weight of the older checkpoints in the exponential average.", group="Averaging",
        minimum=0.0, maximum=1.0, idle="without weight_avg_strategy exponential", basic=True)
    weight_avg_n: int = option(-1, "Number of last checkpoints to average; 0 or -1 for all.",
                               group="Averaging", minimum=-1, names=("--weight-avg-N",), basic=True)
    reestimate_batch_norm: int = option(
        0, "Number of training images from which the statistics of batch norm are estimated "
        "again; 0 averages the statistics.", group="Averaging", minimum=0, metavar="IMAGES",
        basic=True)
    data_dir: Optional[str] = option(
        None, "Folder of the dataset (default: that of the training).", group="Averaging",
        names=("--imagenet-data-path",), metavar="DIR", idle="without reestimate_batch_norm",
        basic=True)
    json: bool = option(False, "Print the result as JSON instead of text.", group="Results",
                        switch=True, basic=True)

    def __post_init__(self) -> None:
        if self.reestimate_batch_norm == 1:
            raise UsageError("'--reestimate-batch-norm 1' is too few: one image has no variance",
                             "use at least 2 images, or 0 to average the statistics")
