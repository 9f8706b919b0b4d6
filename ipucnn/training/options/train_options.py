"""The options of `ipucnn train` and `ipucnn restore`."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, AbstractSet, Any, ClassVar, Dict, List, Mapping, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import stages_of
from ipucnn.core.options.attributes import TRAINING, VALIDATION
from ipucnn.core.options.composition import CommandOptions, Given, part
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.options.parts import ProfilePart, other_input
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.models.weights_options import DETERMINED, settled_otherwise, with_card
from ipucnn.training.options.fine_tuning import FineTuningPart
from ipucnn.training.options.precedence import with_one_folder, without_overridden
from ipucnn.training.options.resnet_trainer import STANDS_FOR, ResNetTrainerOptions, translated
from ipucnn.training.options.training_parts import (
    AugmentationPart,
    HalfResolutionPart,
    OptimisationPart,
    SchedulePart,
    TrainDataset,
    TrainExecution,
    TrainNetwork,
    ValidationPart,
)
from ipucnn.training.options.written_parts import (
    CheckpointPart,
    NewTrainResults,
    RestoredCheckpoints,
    TrainCheckpoints,
    TrainResults,
)

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan
    from ipucnn.core.registry.registry import Registry


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
"""Default optimizer of a training on a folder: with few images, it needs fewer epochs than SGD."""


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
    dependent: ClassVar[Tuple[str, ...]] = ("data", "optimizer", *DETERMINED)

    @classmethod
    def unsuited(cls, profile: Mapping[str, Any], given: Mapping[str, Any],
                 registry: "Registry") -> Tuple[str, ...]:
        """Return options that contradict given ones or the weights, and `data` with its options.

        The latter only if the given folder contains another dataset.
        """
        from ipucnn.data.formats.recognition import dataset_in

        settled = settled_otherwise(profile, given, registry) + other_input(profile, given)
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
        from ipucnn.data.formats.recognition import dataset_here, dataset_in

        sources = without_overridden([with_one_folder(source) for source in sources])
        values = with_card([translated(cls, sources, others, registry)], others, registry,
                           training=True)
        if values.get("wandb"):
            values["logger"] = (*values.get("logger", TrainResults.logger), "wandb")
        if "data" not in values:
            place = values.get("data_dir")
            values["data"] = dataset_in(place, registry, TrainDataset.data) if place \
                else dataset_here(registry, TrainDataset.data)
            if place and "optimizer" not in values and values.get("lr") is None \
                    and not _of_optimizers(others, registry):
                values["optimizer"] = FOLDER_OPTIMIZER
        return values

    def __post_init__(self) -> None:
        if self.execution.batch_size is not None and not self.execution.measured:
            self.augmentation.check_micro_batch(self.execution.batch_size)
        if self.checkpoints.keep_best and self.validation.mode != "during":
            raise UsageError("'--keep-best' needs validation", self.validation.remedy)
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

    def settled_as(self, saved: Mapping[str, Any]) -> "TrainOptions":
        """Return the options with the choices that a saved training made for values of `auto`.

        Args:
            saved: the options in its checkpoint, by flat name.
        """
        values: Dict[str, Any] = {}
        if self.execution.measured:
            values["batch_size"] = saved.get("batch_size")
        splits = tuple(saved.get("pipeline_splits", ()))
        automatic = "".join(self.execution.pipeline_splits[:1]).startswith("auto:")
        if automatic and stages_of(self) == len(splits) + 1:
            values["pipeline_splits"] = splits
        return self.with_values(**values)

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
            plan, training=False, validation=True, gradient_accumulation=1,
            accumulation_reduction="mean",
            device_iterations=plan.validation_iterations,
            precision="16.16" if plan.half else "32.32", recompute="none",
            recompute_checkpoints=(), compile_only=False)


@dataclass(frozen=True)
class RestoreOptions(TrainingOptions):
    """Options of `ipucnn restore`: those of a training; given ones override the saved ones."""

    checkpoints: RestoredCheckpoints = part(RestoredCheckpoints)


@dataclass(frozen=True)
class ValidatedTraining(TrainOptions):
    """Options of a training, with which its checkpoints are validated."""

    job: ClassVar[str] = VALIDATION
