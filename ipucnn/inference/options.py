"""The options of `ipucnn run`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.names import key
from ipucnn.core.options.declaration import changed, option
from ipucnn.core.options.shared import NetworkOptions

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan

_PRECISIONS = {"half": "16.16", "full": "32.32", "16.16": "16.16", "32.32": "32.32",
               "int8": "int8"}


@dataclass(frozen=True)
class RunOptions(NetworkOptions):
    """Options of `ipucnn run`: classify images, or measure how fast that goes.

    Raises:
        UsageError: two options contradict each other.
    """

    random_weights: bool = option(False, "The same as '--weights random'.", group="Model")
    onnx: Optional[str] = option(
        None, "Run this ONNX file, or that of '--model' and '--batch-size' in a folder which "
        "'ipucnn export' filled, instead of a network of the registry.", group="Model",
        names=("--model-path",), metavar="FILE|DIR", backend_option=True)
    data: str = option("real", "Dataset: your images, generated ones, or none at all.",
                       group="Data", kind="dataset")
    synthetic: Optional[bool] = option(
        None, "The same as '--data synthetic'.", group="Data")
    instances: int = option(
        1, "Processes on this machine that share the images, the cores and the replicas; each has "
        "one replica unless '--replicas' says how many there are in all.", group="Execution",
        minimum=1, names=("--num-ipus",))
    annotations: Optional[str] = option(
        None, "COCO's file of annotations, for the image ids in the predictions; the one in the "
        "folder 'annotations' of '--data-dir', or else the numbers in the names of the images, "
        "when not given.", group="Data", metavar="FILE.json")
    precision: str = option(
        "16.16", "Numbers of compute and weights: half (16.16), full (32.32), or 8-bit integers "
        "(int8) for which a network is calibrated.", group="Execution", choices=_PRECISIONS)
    calibration_samples: Optional[int] = option(
        None, "Images to calibrate int8 with, at most those of the dataset; 300 when not given.",
        group="Execution", minimum=10, backend_option=True)
    calibration_dir: Optional[str] = option(
        None, "Folder, in the layout of '--data', of the images to calibrate int8 with; those of "
        "the run when not given.", group="Execution", metavar="DIR", backend_option=True)
    iterations: Optional[int] = option(
        None, "Host calls; without it real data is gone through once and other data gets 100.",
        group="Execution", minimum=1)
    warmup: int = option(
        2, "First host calls left out of the statistics, at most half of the run.",
        group="Execution", minimum=0)
    time_limit: Optional[float] = option(
        None, "Stop after so many seconds and report what was done.", group="Execution",
        exclusive_minimum=0.0, metavar="SECONDS")
    report_hw_cycle_count: bool = option(
        False, "Count the device's clock cycles of a host call.", group="IPU",
        backend_option=True)
    predictions: Optional[str] = option(
        None, "Write a row per image: path, classes, names, probabilities.", group="Results",
        metavar="FILE.csv|.json|.parquet")
    top_k: int = option(5, "Classes per image in the predictions.", group="Results", minimum=1)
    log_path: Optional[str] = option(
        None, "Folder for the logs of instances, in a folder of each run; 'logs' when not given.",
        group="Results", metavar="DIR")
    hide_output: bool = option(
        True, "Keep what instances print in their logs; otherwise it is shown as well.",
        group="Results")

    def __post_init__(self) -> None:
        super().__post_init__()
        others = ("synthetic", RunOptions.data) if self.synthetic else ("synthetic",)
        if self.synthetic is not None and self.synthetic != (key(self.data) in others):
            switch = "--synthetic" if self.synthetic else "--no-synthetic"
            raise UsageError(f"'{switch}' contradicts '--data {self.data}'",
                             "leave one of them out")
        meaningless = [flag for flag, given in (("--log-path", self.log_path is not None),
                                                ("--no-hide-output", not self.hide_output))
                       if given and self.instances == 1]
        if meaningless:
            raise UsageError(f"'{meaningless[0]}' is for several instances, and there is one",
                             "add '--instances N', or leave it out")
        if self.random_weights and self.weights not in ("pretrained", "random"):
            raise UsageError(f"'--random-weights' contradicts '--weights {self.weights}'",
                             "leave one of them out")
        if self.weights_partial and self.chosen_weights == "random":
            raise UsageError("'--weights-partial' has no meaning for random weights",
                             "leave it out, or name weights with '--weights'")
        if self.onnx:
            self._check_onnx()
        if self.precision != "int8":
            for item in changed(self):
                if item.name.startswith("calibration_"):
                    raise UsageError(
                        f"'{item.flag}' is for 8-bit integers, and the precision is "
                        f"{self.precision!r}", "add '--precision int8', or leave it out")
        if self.top_k != RunOptions.top_k and not self.predictions:
            raise UsageError("'--top-k' is for predictions, and none are written",
                             "add '--predictions FILE', or leave it out")
        if self.annotations and not self.predictions:
            raise UsageError("'--annotations' is for predictions, and none are written",
                             "add '--predictions FILE', or leave it out")

    def _check_onnx(self) -> None:
        """Refuse what only a network of the registry can be asked for."""
        settled = ("random_weights", "weights", "weights_partial", "num_classes", "input_size",
                   "normlayer", "groupnorm_group_num", "norm_eps", "batchnorm_momentum",
                   "full_precision_norm", "input_image_padding", "normalization_location",
                   "eight_bit_io", "pipeline_splits")
        for item in changed(self):
            if item.name in settled or item.option.model_option:
                raise UsageError(f"'{item.flag}' has no meaning for an ONNX file, which settled it "
                                 "when it was exported", "leave it out, or export again with it")

    @property
    def chosen_weights(self) -> str:
        """What `--weights` and `--random-weights` mean together."""
        return "random" if self.random_weights else self.weights

    @property
    def chosen_data(self) -> str:
        """What `--data` and `--synthetic` mean together."""
        return "synthetic" if self.synthetic else self.data

    def plan(self, synthetic: bool, instances: int = 1) -> "ExecutionPlan":
        """Return what is to be executed; raises `UsageError` when it cannot be.

        Args:
            synthetic: images are made on the device.
            instances: processes that `poprun` started.
        """
        from ipucnn.core.execution.plan import ExecutionPlan

        place, eight_bit = self.input
        instances = max(instances, self.instances)
        replicas = self.replicas if self.replicas > 1 else instances
        return ExecutionPlan(
            micro_batch=self.batch_size, device_iterations=self.device_iterations,
            replicas=replicas, pipeline_splits=self.pipeline_splits,
            precision=self.precision, normalisation=place, eight_bit_io=eight_bit,
            synthetic=synthetic, instances=instances,
            full_precision_norm=self.full_precision_norm, seed=self.seed,
            backend_options=self.backend_options)
