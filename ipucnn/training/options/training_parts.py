"""Parts of the options of a training: what it trains, on what, and how."""

from dataclasses import dataclass
from typing import ClassVar, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.options.attributes import DEVICE_IMAGES, FIXED_IMAGES, NO_VALIDATION, NOT_DURING
from ipucnn.core.options.declaration import option
from ipucnn.core.options.parts import (
    AUTO_BATCH,
    DatasetPart,
    ExecutionPart,
    NetworkPart,
    named_precisions,
)
from ipucnn.core.preprocessing import LARGEST_INPUT


@dataclass(frozen=True)
class TrainNetwork(NetworkPart):
    """Options of the network and its initial weights."""

    model: str = option("resnet18", "Model to train.", kind="model", fixed="model", basic=True)
    weights: str = option(
        "random", "Initial weights: 'random', 'pretrained', 'pretrained:TAG', a weights file, or "
        "a folder of checkpoints (the best, else the newest).",
        metavar="random|pretrained|FILE|DIR", fixed="start", basic=True)
    input_size: Optional[int] = option(
        None, "Height and width of the input in pixels (default: by the model and the images).",
        minimum=8, maximum=LARGEST_INPUT, basic=True)


@dataclass(frozen=True)
class TrainDataset(DatasetPart):
    """Options of the training images."""

    data: str = option(
        "image_folder", "Dataset format; recognised by the layout of '--data-dir'.", kind="dataset",
        basic=True)
    sampler: str = option(
        "shuffle", "Order of the training images: every image once per epoch, or 'balanced': the "
        "same number of images of every class, repeating those of rare classes.",
        choices=("shuffle", "balanced"))

    cache_images: str = option(
        "none", "Keep decoded images for later epochs in memory, or in files that later trainings "
        "use, too; the pixels are the same.", choices=("none", "ram", "disk"), machine=True,
        idle=DEVICE_IMAGES)
    cache_images_dir: Optional[str] = option(
        None, "Folder of '--cache-images disk' (default: in the user's cache folder).",
        metavar="DIR",
        machine=True, idle="without cache_images disk")

    @property
    def name(self) -> str:
        """The dataset."""
        return self.data


@dataclass(frozen=True)
class TrainExecution(ExecutionPart):
    """Options of the execution of host calls."""

    batch_size: Optional[int] = option(
        None, "Micro-batch of a replica, or 'auto' to find the fastest (default: up to 32).",
        minimum=1,
        words=(AUTO_BATCH,),
        names=("--micro-batch-size",), basic=True)
    precision: Optional[str] = option(
        None, "16.16 (half), 16.32 (half with single-precision weights), 32.32 (full) (default: "
        "by device).",
        choices={**named_precisions("16.16", "16.32", "32.32"), "16": "16.16", "32": "32.32"},
        metavar="PRECISION", basic=True)
    gradient_accumulation: int = option(
        1, "Micro-batches per weight update.", minimum=1,
        names=("--gradient-accumulation-factor",), basic=True)
    accumulation_reduction: str = option(
        "mean", "Average the gradients over '--gradient-accumulation', or sum them, as with "
        "'--base-learning-rate' of the old ResNet trainer.", choices=("mean", "sum"),
        feature="accumulation-sum", idle="without gradient_accumulation")
    sharded: bool = option(
        False, "Execute the stages of '--pipeline-splits' one after the other instead of as a "
        "pipeline.",
        feature="sharding", idle="without pipeline_splits")
    iterations: Optional[int] = option(
        None, "Host calls per epoch (default: the whole dataset).", minimum=1)
    recompute_mode: str = option(
        "none", "Recompute activations in the backward pass instead of storing them: 'auto' "
        "selects them, 'manual' stores only '--recompute-checkpoints'.",
        choices=("none", "auto", "manual"), feature="recompute")
    recompute_checkpoints: Tuple[str, ...] = option(
        (), "Modules whose output is stored, as regular expressions of paths like 'layer1/0'.",
        metavar="REGEX...", feature="recompute")
    enable_recompute: bool = option(
        False, "The same as '--recompute-mode auto'.", feature="recompute",
        names=("--enable-pipeline-recompute", "--recompute"))

    def __post_init__(self) -> None:
        if self.recompute_checkpoints and self.recompute == "none":
            raise UsageError("'--recompute-checkpoints' are what recomputation keeps, and nothing "
                             "is recomputed",
                             "add '--recompute-mode manual' or 'auto', or leave them out")

    @property
    def micro_batch(self) -> int:
        """The micro-batch; 32 until it is chosen."""
        return 32 if self.batch_size is None or self.measured else self.batch_size

    @property
    def recompute(self) -> str:
        """The recomputation mode, from `--recompute-mode` and its older spellings."""
        if self.recompute_mode == "none" and self.enable_recompute:
            return "auto"
        return self.recompute_mode


@dataclass(frozen=True)
class OptimisationPart:
    """Options of the loss, the optimizer and the number of epochs."""

    heading: ClassVar[str] = "Training"

    epoch: Optional[int] = option(
        None, "Number of epochs (default: by the number of images).",
        minimum=0, names=("--epochs",),
        basic=True)
    optimizer: str = option(
        "sgd", "Optimizer; 'adamw' if only '--data-dir' is given.", kind="optimizer", fixed="state",
        basic=True)
    lr: Optional[float] = option(
        None, "Learning rate for the mean gradient of a weight update (default: by the "
        "optimizer).", minimum=0.0, names=("--learning-rate",),
        basic=True)
    weight_decay: float = option(
        1e-4, "Weight decay; not applied to biases and norm layers.", minimum=0.0, basic=True)
    loss: str = option("cross-entropy", "Loss to minimise.", kind="loss", basic=True)
    reduction: Optional[str] = option(
        None, "Of the old trainer, in which 'sum' and 'mean' give the same update; has no effect. "
        "Use '--accumulation-reduction'.", choices=("sum", "mean"), switch=True,
        in_profiles=True)
    loss_scaling: float = option(
        1.0, "Factor on the loss that prevents underflow of half-precision gradients; with "
        "'--initial-loss-scaling', the final factor.", exclusive_minimum=0.0)
    initial_loss_scaling: Optional[float] = option(
        None, "Loss scaling at the start; it doubles at regular intervals up to '--loss-scaling'.",
        exclusive_minimum=0.0)
    ema_decay: float = option(
        0.0, "Decay of an exponential moving average of the weights; 0 for none.",
        minimum=0.0, maximum=1.0, feature="ema", fixed="state")
    skip_non_finite: int = option(
        0, "Number of weight updates with a non-finite loss to skip before the training stops.",
        minimum=0)
    first_trainable_layer: str = option(
        "", "Train this module and all after it; freeze the earlier ones.", metavar="MODULE",
        fixed="state")

    @property
    def epochs(self) -> int:
        """The number of epochs; 10 until it is chosen."""
        return 10 if self.epoch is None else self.epoch

    @property
    def rate(self) -> float:
        """The learning rate; 0.01 until it is chosen."""
        return 0.01 if self.lr is None else self.lr

    def __post_init__(self) -> None:
        initial = self.initial_loss_scaling
        if initial is not None and initial > self.loss_scaling:
            raise UsageError(f"'--initial-loss-scaling {initial:g}' is above '--loss-scaling "
                             f"{self.loss_scaling:g}'", "loss scaling only grows")


@dataclass(frozen=True)
class SchedulePart:
    """Options of the learning-rate schedule."""

    heading: ClassVar[str] = "Learning-rate schedule"

    lr_schedule: str = option("cosine", "Learning-rate schedule.", kind="lr-schedule",
                              names=("--lr-scheduler",), basic=True)
    lr_scheduler_freq: float = option(
        0.0, "Updates of the learning rate per epoch; 0 updates it at every host call.",
        minimum=0.0)
    warmup_epoch: Optional[float] = option(
        None, "Warm-up epochs (default: a tenth, at most 5).", minimum=0.0,
        names=("--warmup-epochs",), basic=True)


@dataclass(frozen=True)
class AugmentationPart:
    """Options of random augmentation."""

    heading: ClassVar[str] = "Augmentation"

    augmentation: str = option(
        "standard", "Random crop and flip of training images, or the same as in validation.",
        choices=("standard", "none"), basic=True, idle=FIXED_IMAGES)
    min_crop_area: Optional[float] = option(
        None, "Minimum area of a random crop, as a share of the image (default: 0.08; 0.35 for "
        "fewer than 100,000 images).", exclusive_minimum=0.0, maximum=1.0,
        idle=(FIXED_IMAGES, "without augmentation standard"))
    use_bbox_info: bool = option(
        False, "Choose random crops that overlap the object's bounding box (datasets with boxes).",
        idle=(FIXED_IMAGES, "without augmentation standard"))
    rand_augment: int = option(
        0, "Number of RandAugment operations per image; 0 for none.", minimum=0,
        maximum=100,
        idle=(FIXED_IMAGES, "without augmentation standard"))
    rand_augment_magnitude: int = option(
        9, "Strength of RandAugment.", minimum=0, maximum=30,
        idle=(FIXED_IMAGES, "without rand_augment", "without augmentation standard"))
    mixup_alpha: float = option(
        0.0, "Mix images with a coefficient from Beta(alpha, alpha); 0 switches it off.",
        minimum=0.0)
    cutmix_lambda_low: float = option(
        0.0, "Minimum share of an image that cutmix keeps.", minimum=0.0, maximum=1.0)
    cutmix_lambda_high: float = option(
        0.0, "Maximum share of an image that cutmix keeps; both 0 or both 1 switch it off.",
        minimum=0.0, maximum=1.0)
    cutmix_disable_prob: float = option(
        0.0, "Probability that cutmix is not applied to a micro-batch.", minimum=0.0, maximum=1.0,
        idle="without cutmix_lambda_high")

    def __post_init__(self) -> None:
        low, high = self.cutmix_lambda_low, self.cutmix_lambda_high
        if low > high:
            raise UsageError(f"'--cutmix-lambda-low {low:g}' is above '--cutmix-lambda-high "
                             f"{high:g}'", "the range goes from low to high")

    @property
    def least_area(self) -> float:
        """The smallest relative area of a random crop; 0.08 until it is chosen."""
        return 0.08 if self.min_crop_area is None else self.min_crop_area

    @property
    def mixing(self) -> MixOptions:
        """How images are mixed."""
        return MixOptions(self.mixup_alpha, self.cutmix_lambda_low, self.cutmix_lambda_high,
                          self.cutmix_disable_prob)

    @property
    def least_micro_batch(self) -> int:
        """The smallest micro-batch: mixup needs 2 images, cutmix 3, both together 4."""
        if self.mixing.cuts:
            return 4 if self.mixup_alpha else 3
        return 2 if self.mixup_alpha else 1

    def check_micro_batch(self, size: int) -> None:
        """Reject a micro-batch that is too small for mixing; see `least_micro_batch`.

        Raises:
            UsageError: it is too small.
        """
        needed = self.least_micro_batch
        if size < needed:
            what = " and ".join(name for name, on in (("mixup", self.mixup_alpha),
                                                      ("cutmix", self.mixing.cuts)) if on)
            raise UsageError(f"{what} cannot mix a micro-batch of {size}",
                             f"use '--batch-size {needed}' or more")


@dataclass(frozen=True)
class ValidationPart:
    """Options of validation and early stopping."""

    heading: ClassVar[str] = "Validation"

    validation_mode: str = option(
        "during", "Validate during training, or all checkpoints after it, or not.",
        choices=("none", "during", "after"), basic=True)
    no_validation: bool = option(False, "The same as '--validation-mode none'.", negatable=False)
    validation_frequency: int = option(
        1, "Epochs between validations during training; the last epoch is always validated.",
        minimum=1, idle=NOT_DURING, former=(4,))
    validation_data_dir: Optional[str] = option(
        None, "Folder of the validation images, if it is not below '--data-dir'.",
        metavar="DIR", idle=NO_VALIDATION)
    best_metric: str = option(
        "top1", "Metric of the best checkpoint: the highest top-1 or top-5 accuracy, or the "
        "lowest loss.", choices=("top1", "top5", "loss"), idle=NOT_DURING)
    early_stopping: Optional[int] = option(
        None, "Stop after this many validations in a row without a better result.", minimum=1,
        metavar="VALIDATIONS", idle=NOT_DURING)

    def __post_init__(self) -> None:
        if self.early_stopping and self.mode != "during":
            raise UsageError("'--early-stopping' needs validation", self.remedy)

    @property
    def remedy(self) -> str:
        """How to validate during training, for the hint of an error."""
        return "leave '--no-validation' out; '--validation-mode during' overrides that of a " \
               "profile" if self.no_validation else "add '--validation-mode during'"

    @property
    def mode(self) -> str:
        """The time of validation: `none`, `during` or `after`."""
        return "none" if self.no_validation else self.validation_mode

    @property
    def holds_out(self) -> bool:
        """Whether validation images come from the folder of the training images."""
        return self.mode != "none" and not self.validation_data_dir


_ONE_PHASE = "without half_res_training"


@dataclass(frozen=True)
class HalfResolutionPart:
    """Options of training on smaller images first, then fine-tuning at full size."""

    heading: ClassVar[str] = "Half-resolution training"

    half_res_training: bool = option(
        False, "Train on smaller images, average the checkpoints, then fine-tune at the full "
        "size.",
        fixed="start")
    fine_tune_epoch: int = option(0, "Epochs of fine-tuning.", minimum=0, idle=_ONE_PHASE)
    fine_tune_lr: float = option(0.25, "Learning rate at the start of fine-tuning.",
                                 exclusive_minimum=0.0, idle=_ONE_PHASE)
    fine_tune_batch_size: int = option(
        1, "Micro-batch of fine-tuning.", minimum=1, names=("--fine-tune-micro-batch-size",),
        idle=_ONE_PHASE)
    fine_tune_gradient_accumulation: int = option(
        1, "Gradient accumulation of fine-tuning.", minimum=1, idle=_ONE_PHASE)
    fine_tune_first_trainable_layer: str = option(
        "", "Fine-tune this module and all after it; freeze the earlier ones.", metavar="MODULE",
        idle=_ONE_PHASE)
