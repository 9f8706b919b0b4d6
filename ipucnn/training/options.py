"""The options of `ipucnn train` and `ipucnn restore`."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.options.shared import NetworkOptions
from ipucnn.training.resnet_trainer import ResNetTrainerOptions, merged, translated

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan

_PRECISIONS = {"half": "16.16", "full": "32.32", "16.16": "16.16", "16.32": "16.32",
               "32.32": "32.32", "16": "16.16", "32": "32.32"}


@dataclass(frozen=True)
class _LearningOptions(NetworkOptions):
    """What is learned, how fast, and from what."""

    model: str = option("resnet18", "Model to train.", group="Model", kind="model")
    weights: str = option(
        "random", "What to start from: 'random', 'pretrained', 'pretrained:TAG', or a weights "
        "file.", group="Model", metavar="random|pretrained|FILE")
    data: str = option("cifar10", "Dataset.", group="Data", kind="dataset")
    precision: str = option(
        "16.16", "Floating point of compute and of the weights: half (16.16), half with single "
        "precision weights (16.32), or full (32.32).", group="Execution", choices=_PRECISIONS)
    gradient_accumulation: int = option(
        1, "Micro-batches of a replica per weight update.", group="Execution", minimum=1,
        names=("--gradient-accumulation-factor",))
    iterations: Optional[int] = option(
        None, "Host calls per epoch; as many as the dataset fills when not given.",
        group="Execution", minimum=1)

    epoch: int = option(10, "Epochs in all, also of a training that is restored.",
                        group="Training", minimum=0, names=("--epochs",))
    optimizer: str = option("sgd", "Optimizer.", group="Training", kind="optimizer")
    lr: float = option(0.01, "Learning rate of the mean gradient of an update's samples.",
                       group="Training", minimum=0.0, names=("--learning-rate",))
    momentum: float = option(0.0, "Momentum of SGD and RMSprop.", group="Training", minimum=0.0)
    weight_decay: float = option(
        1e-4, "Weight decay; biases and norm layers have none.", group="Training", minimum=0.0)
    optimizer_eps: float = option(1e-8, "Epsilon of Adam, RMSprop and LAMB.", group="Training",
                                  exclusive_minimum=0.0)
    rmsprop_decay: float = option(
        0.99, "Decay of RMSprop's mean of squared gradients.", group="Training", minimum=0.0,
        maximum=1.0)
    label_smoothing: float = option(0.0, "Share of a label that is spread over all classes.",
                                    group="Training", minimum=0.0, maximum=1.0)
    loss_scaling: float = option(
        1.0, "Factor on the loss against underflow of half-precision gradients; the last one of "
        "the schedule.", group="Training", exclusive_minimum=0.0)
    initial_loss_scaling: Optional[float] = option(
        None, "Where loss scaling begins; it doubles at even distances until '--loss-scaling'.",
        group="Training", exclusive_minimum=0.0)
    ema_decay: float = option(
        0.0, "Decay of an exponential moving average of the weights; 0 keeps none.",
        group="Training", minimum=0.0, maximum=1.0, backend_option=True)
    skip_non_finite: int = option(
        0, "Weight updates with a loss that is not finite that are left out before training stops.",
        group="Training", minimum=0)
    early_stopping: Optional[int] = option(
        None, "Stop after so many validations in a row without a better result.",
        group="Training", minimum=1, metavar="VALIDATIONS")

    lr_schedule: str = option("step", "Learning-rate schedule.", group="Learning-rate schedule",
                              kind="schedule", names=("--lr-scheduler",))
    lr_decay: float = option(
        0.5, "What 'step' multiplies by at each of its epochs, and 'exponential' at each update "
        "of the schedule (each epoch without '--lr-scheduler-freq').",
        group="Learning-rate schedule", exclusive_minimum=0.0)
    lr_epoch_decay: Tuple[float, ...] = option(
        (), "Epochs at which 'step' drops.", group="Learning-rate schedule", metavar="EPOCH...")
    lr_factors: Tuple[float, ...] = option(
        (), "Instead of '--lr-decay', what 'step' multiplies the rate by: from the start, and from "
        "each of its epochs on.", group="Learning-rate schedule", minimum=0.0,
        names=("--learning-rate-decay",), metavar="FACTOR...")
    lr_power: float = option(1.0, "Exponent of 'polynomial'.", group="Learning-rate schedule",
                             exclusive_minimum=0.0)
    lr_scheduler_freq: float = option(
        0.0, "Updates of the learning rate per epoch; 0 updates it at every host call.",
        group="Learning-rate schedule", minimum=0.0)
    warmup_epoch: float = option(
        0.0, "Epochs during which the rate rises linearly from near 0.",
        group="Learning-rate schedule", minimum=0.0, names=("--warmup-epochs",))

    augmentation: str = option(
        "standard", "What is done to training images: random crop and flip, or only what "
        "validation does.", group="Augmentation", choices=("standard", "none"))
    use_bbox_info: bool = option(
        False, "Crop so that the object's bounding box is hit (ImageNet).", group="Augmentation")
    rand_augment: int = option(
        0, "Random operations of RandAugment per image; 0 makes none.", group="Augmentation",
        minimum=0)
    rand_augment_magnitude: int = option(9, "Strength of RandAugment.", group="Augmentation",
                                         minimum=0, maximum=30)
    mixup_alpha: float = option(
        0.0, "Images are mixed with a coefficient from Beta(alpha, alpha); 0 mixes none.",
        group="Augmentation", minimum=0.0)
    cutmix_lambda_low: float = option(
        0.0, "Least share of an image that cutmix keeps.", group="Augmentation", minimum=0.0,
        maximum=1.0)
    cutmix_lambda_high: float = option(
        0.0, "Largest share of an image that cutmix keeps; both 0 or both 1 switch it off.",
        group="Augmentation", minimum=0.0, maximum=1.0)
    cutmix_disable_prob: float = option(
        0.0, "Probability that a micro-batch is not cut.", group="Augmentation", minimum=0.0,
        maximum=1.0)


@dataclass(frozen=True)
class _MemoryOptions:
    """What trades memory, speed and numerical safety; most of it for IPUs."""

    recompute_mode: str = option(
        "none", "Compute activations again in the backward pass instead of keeping them: 'auto' "
        "chooses which, 'manual' keeps '--recompute-checkpoints'.", group="Memory",
        choices=("none", "auto", "manual"), backend_option=True)
    recompute_checkpoints: Tuple[str, ...] = option(
        (), "Modules whose output is kept, as regular expressions of paths like 'layer1/0'.",
        group="Memory", metavar="REGEX...", backend_option=True)
    enable_recompute: bool = option(
        False, "The same as '--recompute-mode auto'.", group="Memory", backend_option=True,
        names=("--enable-pipeline-recompute", "--recompute"))
    offload_optimizer: bool = option(False, "Keep the optimizer's state off the chip.",
                                     group="IPU", backend_option=True)
    enable_optimizer_rts: bool = option(
        False, "Shard the optimizer's state over the replicas.", group="IPU", backend_option=True)
    enable_stochastic_rounding: bool = option(
        False, "Round half-precision results stochastically.", group="IPU", backend_option=True,
        names=("--prng",))
    enable_fp_exceptions: bool = option(
        False, "Stop at floating-point exceptions of the device.", group="IPU",
        backend_option=True, names=("--fp-exceptions",))
    disable_stable_batchnorm: bool = option(
        False, "A faster, less stable computation of norm statistics.", group="IPU",
        backend_option=True)
    auto_loss_scaling: bool = option(
        False, "Have the device choose the loss scaling.", group="IPU", backend_option=True)
    loss_velocity_scaling_ratio: float = option(
        1.0, "Loss scaling over velocity scaling of SGD.", group="IPU", exclusive_minimum=0.0,
        backend_option=True)
    syncless_collectives: Optional[str] = option(
        None, "Exchange between replicas without waiting for each other.", group="IPU",
        choices=("true", "false", "auto"), backend_option=True)
    max_bytes_per_tile: Optional[int] = option(
        None, "Memory of a tile that exchanges between replicas may take.", group="IPU", minimum=0,
        backend_option=True)


@dataclass(frozen=True)
class _RecordOptions:
    """When the model is validated, saved and reported."""

    validation_mode: str = option(
        "after", "Validate the checkpoints after training, the model during it, or nothing.",
        group="Validation", choices=("none", "during", "after"))
    no_validation: bool = option(False, "The same as '--validation-mode none'.",
                                 group="Validation", negatable=False)
    validation_frequency: int = option(
        4, "Epochs between validations during training; the last epoch is always validated.",
        group="Validation", minimum=1)
    validation_data_dir: Optional[str] = option(
        None, "Folder of the validation images, when it is not below '--data-dir'.",
        group="Validation", metavar="DIR")
    best_metric: str = option(
        "top1", "What makes a validation the best: the highest top-1 or top-5 accuracy, or the "
        "lowest loss.", group="Validation", choices=("top1", "top5", "loss"))

    checkpoint_path: Optional[str] = option(
        None, "Folder of checkpoints; none are written without it.", group="Checkpoints",
        names=("--checkpoint-output-dir",), metavar="DIR")
    checkpoint_save_freq: int = option(1, "Epochs between checkpoints.", group="Checkpoints",
                                       minimum=1)
    checkpoint_save_steps: Optional[int] = option(
        None, "Host calls between further checkpoints within an epoch.", group="Checkpoints",
        minimum=1)
    checkpoint_save_minutes: Optional[float] = option(
        None, "Minutes between further checkpoints within an epoch.", group="Checkpoints",
        exclusive_minimum=0.0)
    keep_last: int = option(0, "Keep only so many checkpoints, the newest; 0 keeps all.",
                            group="Checkpoints", minimum=0)
    keep_best: bool = option(False, "Never remove the checkpoint that validated best.",
                             group="Checkpoints")
    weight_avg_strategy: str = option(
        "none", "Average the checkpoints after training.", group="Checkpoints",
        choices=("none", "mean", "exponential"))
    weight_avg_exp_decay: float = option(
        0.99, "Weight of the older ones in the exponential average.", group="Checkpoints",
        minimum=0.0, maximum=1.0)
    weight_avg_n: int = option(-1, "Checkpoints to average, the last ones; -1 takes all.",
                               group="Checkpoints", minimum=-1, names=("--weight-avg-N",))

    half_res_training: bool = option(
        False, "Train on smaller images, average, then fine-tune at the full size.",
        group="Half-resolution training")
    fine_tune_epoch: int = option(0, "Epochs of fine-tuning.", group="Half-resolution training",
                                  minimum=0)
    fine_tune_lr: float = option(0.25, "Learning rate at the start of fine-tuning.",
                                 group="Half-resolution training", exclusive_minimum=0.0)
    fine_tune_batch_size: int = option(
        1, "Micro-batch of fine-tuning.", group="Half-resolution training", minimum=1,
        names=("--fine-tune-micro-batch-size",))
    fine_tune_gradient_accumulation: int = option(
        1, "Gradient accumulation of fine-tuning.", group="Half-resolution training", minimum=1)
    fine_tune_first_trainable_layer: str = option(
        "", "Module from which on the model is fine-tuned; what is before it rests.",
        group="Half-resolution training", metavar="MODULE")
    first_trainable_layer: str = option(
        "", "Module from which on the model is trained; what is before it rests.",
        group="Training", metavar="MODULE")

    logs_per_epoch: int = option(1, "Rows of 'metrics.jsonl' and 'metrics.csv' per epoch.",
                                 group="Results", minimum=1)
    steps_per_log: Optional[int] = option(
        None, "Host calls per row, instead of '--logs-per-epoch'.", group="Results", minimum=1)
    disable_metrics: bool = option(
        False, "Compute no accuracy in training, to measure peak throughput.", group="Results",
        negatable=False)
    log_dir: Optional[str] = option(
        None, "Folder of metrics and options; the checkpoints' folder, or a new one below 'logs', "
        "when not given.", group="Results", metavar="DIR")


@dataclass(frozen=True)
class _TrainingOptions(_RecordOptions, _MemoryOptions, _LearningOptions):
    """Options of a training, new or restored.

    Raises:
        UsageError: two options contradict each other.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_mixing()
        initial = self.initial_loss_scaling
        if initial is not None and initial > self.loss_scaling:
            raise UsageError(f"'--initial-loss-scaling {initial:g}' is above '--loss-scaling "
                             f"{self.loss_scaling:g}'", "loss scaling only grows")
        if self.keep_best and self.validation != "during":
            raise UsageError("'--keep-best' has nothing to go by without validation",
                             "add '--validation-mode during'")
        if self.early_stopping and self.validation != "during":
            raise UsageError("'--early-stopping' has nothing to go by without validation",
                             "add '--validation-mode during'")
        if self.recompute_checkpoints and self.recompute != "manual":
            raise UsageError("'--recompute-checkpoints' are for '--recompute-mode manual'",
                             "add it, or leave the checkpoints out")
        if self.lr_factors and self.lr_decay != type(self).lr_decay:
            raise UsageError("'--lr-decay' contradicts '--lr-factors'",
                             "leave one of them out")
        if self.steps_per_log and self.logs_per_epoch != 1:
            raise UsageError("'--steps-per-log' contradicts '--logs-per-epoch'",
                             "leave one of them out")
        if self.weight_avg_strategy != "none" and not self.checkpoint_path:
            raise UsageError("'--weight-avg-strategy' averages checkpoints, and none are written",
                             "add '--checkpoint-path DIR'")
        if self.half_res_training:
            self._check_half_resolution()
        for name in ("save_steps", "save_minutes"):
            if getattr(self, f"checkpoint_{name}") and not self.checkpoint_path:
                flag = f"--checkpoint-{name.replace('_', '-')}"
                raise UsageError(f"'{flag}' has no folder to save to",
                                 "add '--checkpoint-path DIR'")

    def _check_mixing(self) -> None:
        low, high = self.cutmix_lambda_low, self.cutmix_lambda_high
        if low > high:
            raise UsageError(f"'--cutmix-lambda-low {low:g}' is above '--cutmix-lambda-high "
                             f"{high:g}'", "the range goes from low to high")
        cutmix = (low, high) not in ((0.0, 0.0), (1.0, 1.0))
        needed = 4 if cutmix and self.mixup_alpha else 3 if cutmix else 2
        if (cutmix or self.mixup_alpha) and self.batch_size < needed:
            what = " and ".join(name for name, on in (("mixup", self.mixup_alpha),
                                                      ("cutmix", cutmix)) if on)
            raise UsageError(f"{what} cannot mix a micro-batch of {self.batch_size}",
                             f"use '--batch-size {needed}' or more")

    def _check_half_resolution(self) -> None:
        missing = [flag for flag, given in (
            ("--fine-tune-epoch", self.fine_tune_epoch),
            ("--fine-tune-first-trainable-layer", self.fine_tune_first_trainable_layer),
            ("--weight-avg-strategy", self.weight_avg_strategy != "none"),
            ("--checkpoint-path", self.checkpoint_path)) if not given]
        if missing:
            raise UsageError("'--half-res-training' needs " + ", ".join(
                f"'{flag}'" for flag in missing),
                "it trains, averages checkpoints, and fine-tunes from the average")

    @property
    def chosen_weights(self) -> str:
        """What training starts from."""
        return self.weights

    @property
    def validation(self) -> str:
        """When the model is validated: `none`, `during` or `after`."""
        return "none" if self.no_validation else self.validation_mode

    @property
    def recompute(self) -> str:
        """What `--recompute-mode` and its older spellings mean together."""
        if self.recompute_mode == "none" and self.enable_recompute:
            return "auto"
        return self.recompute_mode

    def plan(self, synthetic: bool, instances: int = 1) -> "ExecutionPlan":
        """Return what is to be executed; raises `UsageError` when it cannot be."""
        from ipucnn.core.execution.plan import ExecutionPlan

        place, eight_bit = self.input
        return ExecutionPlan(
            micro_batch=self.batch_size, device_iterations=self.device_iterations,
            replicas=self.replicas, gradient_accumulation=self.gradient_accumulation,
            pipeline_splits=self.pipeline_splits, precision=self.precision, training=True,
            normalisation=place, eight_bit_io=eight_bit, synthetic=synthetic, instances=instances,
            full_precision_norm=self.full_precision_norm, seed=self.seed,
            backend_options=self._backend_settings())

    def validation_plan(self, instances: int = 1) -> "ExecutionPlan":
        """Return how the model is validated: the same shape, without accumulation."""
        plan = self.plan(False, instances)
        return replace(
            plan, training=False, gradient_accumulation=1,
            device_iterations=plan.validation_iterations,
            precision="16.16" if plan.half else "32.32",
            backend_options={name: value for name, value in self.backend_options.items()
                             if name in INFERENCE_BACKEND_OPTIONS})

    def _backend_settings(self) -> Dict[str, Any]:
        settings = self.backend_options
        settings.pop("enable_recompute", None)
        return {**settings, "recompute_mode": self.recompute} if self.recompute != "none" \
            else settings


INFERENCE_BACKEND_OPTIONS = frozenset({
    "device", "compile", "dataloader_mode", "dataloader_rebatch_size", "model_cache_path",
    "half_partial", "available_memory_proportion", "enable_fast_groupnorm", "num_io_tiles",
    "prefetch_depth", "connection_type", "exchange_memory_target", "ipu_model"})
"""Backend options of a training that its validation has too."""


@dataclass(frozen=True)
class TrainOptions(ResNetTrainerOptions, _TrainingOptions):
    """Options of `ipucnn train`.

    Raises:
        UsageError: two options contradict each other.
    """

    @classmethod
    def combined(cls, sources: List[Dict[str, Any]]) -> Dict[str, Any]:
        """Return what option values of several sources are together, for `build`."""
        return translated(merged(sources), cls)


@dataclass(frozen=True)
class RestoreOptions(_TrainingOptions):
    """Options of `ipucnn restore`: those of a training; given ones replace the checkpoint's."""

    checkpoint_path: Optional[str] = option(
        None, "Checkpoint, or a folder, whose newest whole checkpoint is taken.",
        group="Checkpoints", names=("--checkpoint-input-path",), metavar="FILE|DIR")
    checkpoint_output_dir: Optional[str] = option(
        None, "Folder of the checkpoints to come; that of the restored one when not given.",
        group="Checkpoints", metavar="DIR", switch=True,
        names=("--checkpoint-output-path",))
