"""The options of `ipucnn run`."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import expanded_path
from ipucnn.core.names import key
from ipucnn.core.options.attributes import INFERENCE
from ipucnn.core.options.composition import CommandOptions, Given, changed, part
from ipucnn.core.options.declaration import declared, option
from ipucnn.core.options.parts import (
    AUTO_BATCH,
    DatasetPart,
    ExecutionPart,
    NetworkPart,
    ProfilePart,
    ResultPart,
    named_precisions,
    other_input,
)
from ipucnn.core.registry.records import DatasetSpec, ModelSpec
from ipucnn.data.formats.recognition import scored_as
from ipucnn.data.remote.stores import is_store
from ipucnn.models.weights_options import DETERMINED, settled_otherwise, with_card

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan
    from ipucnn.core.registry.registry import Registry


@dataclass(frozen=True)
class RunNetwork(NetworkPart):
    """The network: one of the registry, or an ONNX file."""

    random_weights: bool = option(False, "The same as '--weights random'.")
    onnx: Optional[str] = option(
        None, "Run this ONNX file, or the file for '--model' and '--batch-size' in a folder of "
        "'ipucnn export', instead of a model of torch.",
        names=("--model-path",), metavar="FILE|DIR", feature="onnx", basic=True)

    def __post_init__(self) -> None:
        if self.random_weights and self.weights not in ("pretrained", "random"):
            raise UsageError(f"'--random-weights' contradicts '--weights {self.weights}'",
                             "leave one of them out")
        if not self.onnx:
            self.check_weights()

    @property
    def source(self) -> str:
        """The weights' source that results from `--weights` and `--random-weights`."""
        return "random" if self.random_weights else self.weights


@dataclass(frozen=True)
class RunDataset(DatasetPart):
    """The images to classify."""

    synthetic: Optional[bool] = option(None, "The same as '--data synthetic'.")
    calibration_samples: Optional[int] = option(
        None, "Number of images for the calibration of int8, at most those of the dataset "
        "(default: 300).",
        minimum=10, feature="int8")
    calibration_dir: Optional[str] = option(
        None, "Folder of images for the calibration of int8, in the layout of '--data' or "
        "without classes (default: the images of the run).", metavar="DIR", feature="int8")

    def __post_init__(self) -> None:
        others = ("synthetic", RunDataset.data) if self.synthetic else ("synthetic",)
        if self.synthetic is not None and self.synthetic != (key(self.data) in others):
            switch = "--synthetic" if self.synthetic else "--no-synthetic"
            raise UsageError(f"'{switch}' contradicts '--data {self.data}'",
                             "leave one of them out")

    @property
    def name(self) -> str:
        """The dataset that results from `--data` and `--synthetic`."""
        return "synthetic" if self.synthetic else self.data


@dataclass(frozen=True)
class RunExecution(ExecutionPart):
    """Batching, execution and duration of a run."""

    batch_size: int = option(
        1, "Micro-batch: samples that one replica computes at once, or 'auto' to find the "
        "fastest.", minimum=1, words=(AUTO_BATCH,), names=("--micro-batch-size",), basic=True)
    instances: int = option(
        1, "Processes on this machine that share the images, the cores and the replicas; each has "
        "one replica unless '--replicas' sets their total number.", minimum=1,
        names=("--num-ipus",), basic=True)
    oversubscribe: bool = option(
        False, "Start '--instances' even if the cores or the memory are not sufficient.",
        negatable=False)
    precision: Optional[str] = option(
        None, "Precision: half (16.16), full (32.32), or 8-bit integers after calibration (int8) "
        "(default: half if the device computes in it, else full).",
        choices=named_precisions("16.16", "32.32", "int8"), basic=True)
    iterations: Optional[int] = option(
        None, "Host calls (default: one pass over real data, 100 otherwise).", minimum=1,
        basic=True)
    warmup: int = option(
        2, "Number of first host calls that are left out of the statistics, at most half of the "
        "run.",
        minimum=0)
    tune: Optional[bool] = option(
        None, "Measure which backend and which of its options are the fastest for this network "
        "and machine; later runs use the result. '--no-tune' neither measures nor uses a "
        "measurement (default: use one; measure if this takes a small part of a long run).",
        basic=True)
    time_limit: Optional[float] = option(
        None, "Stop after this many seconds and report the results so far.",
        exclusive_minimum=0.0, metavar="SECONDS")


@dataclass(frozen=True)
class RunResults(ResultPart):
    """The output of a run."""

    written_during: ClassVar[Tuple[str, ...]] = ("predictions",)

    predictions: Optional[str] = option(
        None, "Write a row per image to this file: path, predicted classes, names, probabilities.",
        metavar="FILE.csv|.json|.parquet", basic=True)
    top_k: int = option(5, "Number of predicted classes per image.", minimum=1)
    report: Optional[str] = option(
        None, "Write a report as an HTML page: predictions, accuracy, latency, options.",
        metavar="FILE.html")
    log_path: Optional[str] = option(
        None, "Folder of the logs of instances, with a subfolder per run (default: logs).",
        metavar="DIR")
    hide_output: bool = option(
        True, "Write the output of instances only to their logs and do not print it.")

    @property
    def documented(self) -> bool:
        """Whether data for a report is collected."""
        return bool(self.report or self.result)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k != RunResults.top_k and not self.predictions:
            raise UsageError("'--top-k' is for predictions, and none are written",
                             "add '--predictions FILE', or leave it out")


@dataclass(frozen=True)
class RunOptions(CommandOptions):
    """Options of `ipucnn run`: classify images or benchmark a model.

    Raises:
        UsageError: two options contradict each other.
    """

    profile: ProfilePart = part(ProfilePart)
    network: RunNetwork = part(RunNetwork)
    dataset: RunDataset = part(RunDataset)
    execution: RunExecution = part(RunExecution)
    results: RunResults = part(RunResults)

    command: ClassVar[str] = "run"
    dependent: ClassVar[Tuple[str, ...]] = ("data", *DETERMINED)
    kinds: ClassVar[Tuple[str, ...]] = ("model", "dataset", "norm-layer", "backend")
    job: ClassVar[str] = INFERENCE

    @classmethod
    def unsuited(cls, profile: Mapping[str, Any], given: Mapping[str, Any],
                 registry: "Registry") -> Tuple[str, ...]:
        """Return options that contradict given ones or the weights, or are for another dataset."""
        otherwise = settled_otherwise(profile, given, registry) + other_input(profile, given)
        if "data" not in profile or not (given.get("synthetic") or "data" in given):
            return otherwise
        others = {"data_dir"} - given.keys()
        name = "synthetic" if given.get("synthetic") else given["data"]
        if registry.get_typed(DatasetSpec, name).on_device:
            others.add("dataloader_worker")
        elif name == profile["data"]:
            return otherwise
        dropped = {"data"} if given.get("synthetic") else set()
        return tuple(sorted({*otherwise, *(one for one in others | dropped if one in profile)}))

    @classmethod
    def combined(cls, sources: Sequence[Dict[str, Any]], others: List[List[Given]],
                 registry: "Registry") -> Dict[str, Any]:
        """Return merged values of several sources, with those of a weights file."""
        values = with_card(sources, others, registry)
        place = values.get("data_dir")
        if not place or "data" in values or values.get("synthetic"):
            return values
        weights = _onnx_file(values, registry) if values.get("onnx") else values.get("weights")
        if isinstance(weights, str) \
                and (is_store(weights) or expanded_path(weights).is_file()):
            from ipucnn.onnx.any_card import classes_of_file  # imports torch

            names = classes_of_file(weights, registry)
            found = None if names is None else scored_as(place, names, registry)
            if found is not None:
                values["data"] = found
        return values

    def __post_init__(self) -> None:
        if self.execution.instances == 1:
            for flag, given in (("--log-path", self.results.log_path is not None),
                                ("--no-hide-output", not self.results.hide_output),
                                ("--oversubscribe", self.execution.oversubscribe)):
                if given:
                    raise UsageError(f"'{flag}' is for several instances, and there is one",
                                     "add '--instances N', or leave it out")
        elif self.execution.tune:
            raise UsageError(f"'--tune' measures one process, and there are "
                             f"{self.execution.instances}", "leave it out")
        if self.network.onnx:
            self._check_onnx()
        if self.execution.precision != "int8":
            for item in changed(self):
                if item.option.feature == "int8":
                    raise UsageError(
                        f"'{item.flag}' is for 8-bit integers, and the precision is "
                        f"{self.execution.precision!r}",
                        "add '--precision int8', or leave it out")

    def _check_onnx(self) -> None:
        """Raise an error for options that only networks of the registry support."""
        settled = {item.name for item in declared(RunNetwork)} - {"model", "onnx"}
        settled |= {"full_precision_norm", "normalization_location", "eight_bit_io",
                    "pipeline_splits"}
        flags = [item.flag for item in changed(self) if item.name in settled]
        flags += [item.flag for kind, item, value in self.plugins.declared()
                  if kind in ("model", "norm-layer") and value != item.default]
        if flags:
            raise UsageError(f"'{flags[0]}' has no effect for an ONNX file, which settled it "
                             "when it was exported", "leave it out, or export again with it")

    def plan(self, synthetic: bool, instances: int = 1) -> "ExecutionPlan":
        """Return the execution plan; raises `UsageError` when it is not possible.

        Args:
            synthetic: whether images are generated on the device.
            instances: processes that a launcher started.
        """
        from ipucnn.core.execution.plan import ExecutionPlan

        execution = self.execution
        if execution.measured:
            raise UsageError("'--batch-size auto' cannot be used here: it is measured by a run of "
                             "one process", "give a number")
        place, eight_bit = self.dataset.input
        instances = max(instances, execution.instances)
        return ExecutionPlan(
            micro_batch=execution.batch_size, device_iterations=execution.device_iterations,
            replicas=execution.replicas if execution.replicas > 1 else instances,
            pipeline_splits=execution.pipeline_splits, precision=execution.precision or "32.32",
            normalisation=place, eight_bit_io=eight_bit, synthetic=synthetic,
            instances=instances, full_precision_norm=execution.full_precision_norm,
            seed=self.dataset.seed, compile_only=execution.compile_only)


def _onnx_file(values: Mapping[str, Any], registry: "Registry") -> Optional[str]:
    """Return the file that `--onnx` selects; None if there is none, which is reported later."""
    from ipucnn.onnx.network import find_file

    model = registry.get_typed(ModelSpec, values.get("model", RunNetwork.model))
    with suppress(DataError):
        return str(find_file(values["onnx"], model.name,
                             values.get("batch_size", RunExecution.batch_size)))
    return None
