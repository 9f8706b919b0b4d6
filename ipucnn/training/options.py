"""The options of `ipucnn train` and `ipucnn restore`."""

from dataclasses import dataclass, replace
from typing import (
    TYPE_CHECKING,
    AbstractSet,
    Any,
    ClassVar,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ipucnn.core.errors import UsageError
from ipucnn.core.options.composition import CommandOptions, Given, part
from ipucnn.core.options.declaration import (
    DEVICE_IMAGES,
    FIXED_IMAGES,
    NO_CHECKPOINTS,
    NO_VALIDATION,
    NOT_DURING,
    TRAINING,
    option,
)
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.options.parts import (
    DatasetPart,
    ExecutionPart,
    NetworkPart,
    ProfilePart,
    ResultPart,
)
from ipucnn.core.preprocessing import LARGEST_INPUT
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data.formats.recognition import dataset_here, dataset_in
from ipucnn.models.weights_options import settled_otherwise, with_card
from ipucnn.training.checkpoint_precedence import with_one_folder, without_overridden
from ipucnn.training.fine_tuning import FineTuningPart
from ipucnn.training.resnet_trainer import STANDS_FOR, ResNetTrainerOptions, translated

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan
    from ipucnn.core.registry.registry import Registry

_PRECISIONS = {"half": "16.16", "full": "32.32", "16.16": "16.16", "16.32": "16.32",
               "32.32": "32.32", "16": "16.16", "32": "32.32"}


AUTO_BATCH = "auto"
"""The value of `--batch-size` that is replaced by a measured number."""


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
        choices=_PRECISIONS, metavar="PRECISION", basic=True)
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
    def measured(self) -> bool:
        """Whether the micro-batch is to be measured."""
        return str(self.batch_size) == AUTO_BATCH

    @property
    def micro_batch(self) -> int:
        """The micro-batch; 32 while it is undecided."""
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
        """The number of epochs; 10 while it is undecided."""
        return 10 if self.epoch is None else self.epoch

    @property
    def rate(self) -> float:
        """The learning rate; 0.01 while it is undecided."""
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
        """The least share of an image's area in a random crop; 0.08 while it is undecided."""
        return 0.08 if self.min_crop_area is None else self.min_crop_area

    def check_micro_batch(self, size: int) -> None:
        """Reject a micro-batch that is too small for mixing.

        Raises:
            UsageError: it is too small: mixup needs 2 images, cutmix 3, both together 4.
        """
        cutmix = (self.cutmix_lambda_low, self.cutmix_lambda_high) not in ((0.0, 0.0), (1.0, 1.0))
        needed = 4 if cutmix and self.mixup_alpha else 3 if cutmix else 2
        if (cutmix or self.mixup_alpha) and size < needed:
            what = " and ".join(name for name, on in (("mixup", self.mixup_alpha),
                                                      ("cutmix", cutmix)) if on)
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
            raise UsageError("'--early-stopping' needs validation",
                             "add '--validation-mode during'")

    @property
    def mode(self) -> str:
        """The time of validation: `none`, `during` or `after`."""
        return "none" if self.no_validation else self.validation_mode


@dataclass(frozen=True)
class CheckpointPart:
    """Options of writing, keeping and averaging checkpoints."""

    heading: ClassVar[str] = "Checkpoints"

    checkpoint_path: Optional[str] = option(
        None, "Folder of checkpoints (default: a new one in 'logs').",
        names=("--checkpoint-output-dir",), metavar="DIR", basic=True)
    no_checkpoints: bool = option(False, "Write no checkpoints.", negatable=False)
    checkpoint_save_freq: int = option(1, "Epochs between checkpoints.", minimum=1,
                                       idle=NO_CHECKPOINTS)
    checkpoint_save_steps: Optional[int] = option(
        None, "Host calls between additional checkpoints within an epoch.", minimum=1,
        idle=NO_CHECKPOINTS)
    checkpoint_save_minutes: Optional[float] = option(
        None, "Minutes between additional checkpoints within an epoch.", exclusive_minimum=0.0,
        idle=NO_CHECKPOINTS)
    keep_last: int = option(0, "Number of checkpoints to keep, the newest ones; 0 keeps all.",
                            minimum=0, idle=NO_CHECKPOINTS)
    keep_best: bool = option(False, "Save a checkpoint whenever a validation is the best so far.",
                             idle=(NO_CHECKPOINTS, NOT_DURING, "without checkpoint_save_freq"))
    weight_avg_strategy: str = option(
        "none", "Average the checkpoints after training.",
        choices=("none", "mean", "exponential"), idle=NO_CHECKPOINTS)
    weight_avg_exp_decay: float = option(
        0.99, "Weight of the older checkpoints in the exponential average.", minimum=0.0,
        maximum=1.0,
        idle="without weight_avg_strategy exponential")
    weight_avg_n: int = option(-1, "Number of last checkpoints to average; -1 for all.",
                               minimum=-1, names=("--weight-avg-N",),
                               idle="without weight_avg_strategy mean exponential")

    @property
    def to_keep(self) -> int:
        """The number of checkpoints to keep in a folder that the user did not name; 0 keeps all."""
        if self.keep_last or self.weight_avg_strategy == "none":
            return self.keep_last or 1
        return max(0, self.weight_avg_n)

    def __post_init__(self) -> None:
        if not self.no_checkpoints:
            return
        for flag, value in (("--checkpoint-path", self.checkpoint_path),
                            ("--weight-avg-strategy", self.weight_avg_strategy != "none"),
                            ("--checkpoint-save-steps", self.checkpoint_save_steps),
                            ("--checkpoint-save-minutes", self.checkpoint_save_minutes),
                            ("--keep-best", self.keep_best), ("--keep-last", self.keep_last)):
            if value:
                raise UsageError(f"'{flag}' is about checkpoints, and '--no-checkpoints' writes "
                                 "none", "leave one of them out")


@dataclass(frozen=True)
class TrainCheckpoints(CheckpointPart):
    """Options of the checkpoints of a new training."""

    checkpoint_input_dir: Optional[str] = option(
        None, "The folder of '--checkpoint-path', where checkpoints are validated and averaged.",
        metavar="DIR", switch=True)


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


@dataclass(frozen=True)
class TrainResults(ResultPart):
    """Options of the records of a training."""

    logger: Tuple[str, ...] = option(
        ("files",), "One or several loggers of metrics and options.", kind="logger",
        metavar="NAME...")
    logs_per_epoch: int = option(1, "Rows of metrics per epoch.", minimum=1)
    steps_per_log: Optional[int] = option(
        None, "Host calls per row of metrics, instead of '--logs-per-epoch'.", minimum=1)
    disable_metrics: bool = option(
        False, "Do not compute the accuracy in training, for peak throughput.", negatable=False)
    no_report: bool = option(
        False, "Do not write 'report.html' to the log folder at the end.",
        switch=True, negatable=False)
    log_dir: Optional[str] = option(
        None, "Folder of metrics and options (default: that of the checkpoints, or else a new one "
        "in 'logs').", metavar="DIR")

    def __post_init__(self) -> None:
        if self.steps_per_log and self.logs_per_epoch != 1:
            raise UsageError("'--steps-per-log' contradicts '--logs-per-epoch'",
                             "leave one of them out")


@dataclass(frozen=True)
class NewTrainResults(TrainResults):
    """Options of the records of a new training."""

    wandb: bool = option(
        False, "Also record with Weights & Biases: adds 'wandb' to '--logger'.", switch=True,
        negatable=False)
    resume: str = option(
        "", "Continue the training of a checkpoint or folder; 'auto' continues the newest one in "
        "'--checkpoint-path', or in 'logs', and starts a new one if there is none.",
        switch=True, metavar="auto|DIR|FILE|URL")
    dashboard: bool = option(
        False, "Show curves, figures and the worst classes on the whole terminal.", switch=True,
        negatable=False)


@dataclass(frozen=True)
class TrainingOptions(CommandOptions):
    """Base of the options of `ipucnn train` and `ipucnn restore`: the parts of both."""

    profile: ProfilePart = part(ProfilePart)
    network: TrainNetwork = part(TrainNetwork)
    dataset: TrainDataset = part(TrainDataset)
    execution: TrainExecution = part(TrainExecution)
    optimisation: OptimisationPart = part(OptimisationPart)
    schedule: SchedulePart = part(SchedulePart)
    augmentation: AugmentationPart = part(AugmentationPart)
    validation: ValidationPart = part(ValidationPart)
    checkpoints: CheckpointPart = part(CheckpointPart)
    half_resolution: HalfResolutionPart = part(HalfResolutionPart)
    fine_tuning: FineTuningPart = part(FineTuningPart)
    results: TrainResults = part(TrainResults)

    kinds: ClassVar[Tuple[str, ...]] = (
        "model", "dataset", "norm-layer", "optimizer", "lr-schedule", "loss", "logger", "backend")
    job: ClassVar[str] = TRAINING


FOLDER_OPTIMIZER = "adamw"
"""Optimizer of a training for which a folder is named and nothing about the optimizer: with few
images it needs fewer epochs than SGD."""


def _of_optimizers(others: Sequence[Sequence[Given]], registry: "Registry") -> bool:
    """Return whether an option of an optimizer is given."""
    owners = builtin_owners(["optimizer"], registry)
    return any(owner.option(given.bare) is not None for source in others for given in source
               for owner in owners)


@dataclass(frozen=True)
class TrainOptions(TrainingOptions):
    """Options of `ipucnn train`.

    Raises:
        UsageError: two options contradict each other.
    """

    checkpoints: TrainCheckpoints = part(TrainCheckpoints)
    results: NewTrainResults = part(NewTrainResults)
    resnet_trainer: ResNetTrainerOptions = part(ResNetTrainerOptions)

    command: ClassVar[str] = "train"

    @classmethod
    def unsuited(cls, profile: Mapping[str, Any], given: Mapping[str, Any],
                 registry: "Registry") -> Tuple[str, ...]:
        """Return what the weights file given has otherwise, and `data` with what is for it.

        The latter only where the folder given holds another dataset.
        """
        settled = settled_otherwise(profile, given, registry)
        if "data" not in profile or not given.get("data_dir") or {"data", "dataset"} & given.keys():
            return settled
        spec = registry.get_typed(DatasetSpec, profile["data"])
        found = dataset_in(given["data_dir"], registry, spec.name)
        if found in (spec.name, *spec.also):
            return settled
        return settled + tuple(name for name in ("data", "use_bbox_info") if profile.get(name))

    @classmethod
    def implied(cls, names: AbstractSet[str]) -> AbstractSet[str]:
        """Return the names, with those that options of the old ResNet trainer stand for."""
        return names | {name for old in names for name in STANDS_FOR.get(old, ())}

    @classmethod
    def combined(cls, sources: Sequence[Dict[str, Any]], others: List[List[Given]],
                 registry: "Registry") -> Dict[str, Any]:
        """Return merged values of several sources, with the old trainer's options translated."""
        sources = without_overridden([with_one_folder(source) for source in sources])
        values = with_card([translated(cls, sources, others, registry)], others, registry,
                           training=True)
        if values.get("wandb"):
            values["logger"] = (*values.get("logger", TrainResults.logger), "wandb")
        if "data" not in values:
            place = values.get("data_dir")
            values["data"] = dataset_in(place, registry, TrainDataset.data) if place \
                else dataset_here(registry, TrainDataset.data)
            if place and not {"optimizer", "lr"} & values.keys() \
                    and not _of_optimizers(others, registry):
                values["optimizer"] = FOLDER_OPTIMIZER
        return values

    def __post_init__(self) -> None:
        if self.execution.batch_size is not None and not self.execution.measured:
            self.augmentation.check_micro_batch(self.execution.batch_size)
        if self.checkpoints.keep_best and self.validation.mode != "during":
            raise UsageError("'--keep-best' needs validation",
                             "add '--validation-mode during'")
        self.fine_tuning.check(self.network.source, self.optimisation.first_trainable_layer)
        if self.half_resolution.half_res_training:
            self._check_half_resolution()

    def _check_half_resolution(self) -> None:
        missing = [flag for flag, given in (
            ("--fine-tune-epoch", self.half_resolution.fine_tune_epoch),
            ("--fine-tune-first-trainable-layer",
             self.half_resolution.fine_tune_first_trainable_layer),
            ("--weight-avg-strategy", self.checkpoints.weight_avg_strategy != "none"),
            ("--checkpoint-path", self.checkpoints.checkpoint_path)) if not given]
        if missing:
            raise UsageError("'--half-res-training' needs " + ", ".join(
                f"'{flag}'" for flag in missing),
                "it trains, averages checkpoints, and fine-tunes from the average")

    def plan(self, synthetic: bool, instances: int = 1) -> "ExecutionPlan":
        """Return the execution plan; raises `UsageError` if it is not valid."""
        from ipucnn.core.execution.plan import ExecutionPlan

        execution = self.execution
        place, eight_bit = self.dataset.input
        return ExecutionPlan(
            micro_batch=execution.micro_batch, device_iterations=execution.device_iterations,
            replicas=execution.replicas, gradient_accumulation=execution.gradient_accumulation,
            accumulation_reduction=execution.accumulation_reduction,
            pipeline_splits=execution.pipeline_splits, sharded=execution.sharded,
            precision=execution.precision or "32.32",
            training=True, normalisation=place, eight_bit_io=eight_bit, synthetic=synthetic,
            instances=instances, full_precision_norm=execution.full_precision_norm,
            seed=self.dataset.seed, recompute=execution.recompute,
            recompute_checkpoints=execution.recompute_checkpoints,
            compile_only=execution.compile_only)

    def validation_plan(self, instances: int = 1) -> "ExecutionPlan":
        """Return the plan of validation: the same shape, without accumulation."""
        plan = self.plan(False, instances)
        return replace(
            plan, training=False, gradient_accumulation=1, accumulation_reduction="mean",
            device_iterations=plan.validation_iterations,
            precision="16.16" if plan.half else "32.32", recompute="none",
            recompute_checkpoints=(), compile_only=False)


@dataclass(frozen=True)
class RestoredCheckpoints(CheckpointPart):
    """Options of the checkpoint to restore and of the folder for new ones."""

    checkpoint_path: Optional[str] = option(
        None, "Checkpoint, or a folder, whose newest complete checkpoint is used.",
        names=("--checkpoint-input-path", "--checkpoint-input-dir"), metavar="FILE|DIR",
        basic=True)
    checkpoint_output_dir: Optional[str] = option(
        None, "Folder of further checkpoints (default: that of the restored one).",
        metavar="DIR", switch=True, names=("--checkpoint-output-path",))
    add_classes: bool = option(
        False, "Give classes that were added to the dataset outputs of their own.",
        switch=True, negatable=False)

    def __post_init__(self) -> None:
        """Skip the checks: they need the saved options, which are added later."""


@dataclass(frozen=True)
class RestoreOptions(TrainingOptions):
    """Options of `ipucnn restore`: those of a training; given ones override the saved ones."""

    checkpoints: RestoredCheckpoints = part(RestoredCheckpoints)
