"""The options of the commands that work on stored checkpoints: `validate` and `average`."""

from dataclasses import dataclass
from typing import Any, Dict, Optional

from ipucnn.core.options.declaration import as_dict, option
from ipucnn.core.options.shared import ResultOptions


@dataclass(frozen=True)
class ValidateOptions(ResultOptions):
    """Options of `ipucnn validate`; what is not given is as the checkpoint was trained."""

    checkpoint_path: Optional[str] = option(
        None, "Checkpoint, or a folder, all of whose checkpoints are validated in order.",
        group="Checkpoints", names=("--checkpoint-input-path",), metavar="FILE|DIR")
    ema: Optional[bool] = option(
        None, "Validate the moving average of the weights, or not; both when not given.",
        group="Checkpoints")

    data: Optional[str] = option(None, "Dataset.", group="Data", kind="dataset")
    data_dir: Optional[str] = option(
        None, "Folder of the dataset, or for some datasets a URL.", group="Data",
        names=("--imagenet-data-path",), metavar="DIR|URL")
    data_cache_dir: Optional[str] = option(
        None, "Folder for copies of what is behind a URL; the user's cache when not given.",
        group="Data", metavar="DIR")
    data_cache_size: Optional[int] = option(
        None, "How many bytes of copies are kept ('20G').", group="Data", size=True, minimum=1,
        metavar="SIZE")
    validation_data_dir: Optional[str] = option(
        None, "Folder of the validation images, when it is not below '--data-dir'.",
        group="Data", metavar="DIR")
    skip_bad_samples: Optional[bool] = option(
        None, "Count and report images that cannot be read instead of stopping.", group="Data")
    dataloader_worker: Optional[int] = option(
        None, "Decoding threads, or processes where '--dataloader-mode' says so; the cores this "
        "process may use when not given.", group="Data", minimum=1, names=("--num-workers",))
    dataloader_mode: Optional[str] = option(
        None, "Who decodes: threads, or worker processes in a mode of PopTorch's data loader.",
        group="Data", choices=("threads", "sync", "async", "rebatched"))
    dataloader_rebatch_size: Optional[int] = option(
        None, "Images that a worker of mode 'rebatched' decodes at a time.", group="Data",
        minimum=1)

    backend: Optional[str] = option(None, "Execution engine.", group="Execution", kind="backend")
    device: Optional[str] = option(None, "Device of the backend.", group="Execution")
    batch_size: Optional[int] = option(
        None, "Micro-batch; it changes no result.", group="Execution", minimum=1,
        names=("--micro-batch-size",))
    device_iterations: Optional[int] = option(
        None, "Steps on the device per host call.", group="Execution", minimum=1,
        names=("--device-iteration",))
    replicas: Optional[int] = option(None, "Data-parallel copies.", group="Execution", minimum=1)
    precision: Optional[str] = option(
        None, "Floating point: half (16.16) or full (32.32).", group="Execution",
        choices={"half": "16.16", "full": "32.32", "16.16": "16.16", "32.32": "32.32"})

    per_class: bool = option(False, "Also tell the accuracy of every class.", group="Results")
    confusion_matrix: Optional[str] = option(
        None, "Write what each class was taken for.", group="Results", metavar="FILE.csv")

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain types."""
        return as_dict(self)


@dataclass(frozen=True)
class AverageOptions:
    """Options of `ipucnn average`."""

    checkpoint_path: Optional[str] = option(
        None, "Folder of checkpoints of one training.", group="Checkpoints",
        names=("--checkpoint-input-path",), metavar="DIR")
    checkpoint_output_path: Optional[str] = option(
        None, "Where the average goes; beside the checkpoints when not given.",
        group="Checkpoints", names=("--output",), metavar="FILE")
    weight_avg_strategy: str = option(
        "mean", "Equal weights, or exponentially less for older checkpoints.",
        group="Averaging", choices=("mean", "exponential"))
    weight_avg_exp_decay: float = option(
        0.99, "Weight of the older ones in the exponential average.", group="Averaging",
        minimum=0.0, maximum=1.0)
    weight_avg_n: int = option(-1, "Checkpoints to average, the last ones; -1 takes all.",
                               group="Averaging", minimum=-1, names=("--weight-avg-N",))
    reestimate_batch_norm: int = option(
        0, "Images of the training set from which batch norm's statistics are estimated anew; 0 "
        "averages them too.", group="Averaging", minimum=0, metavar="IMAGES")
    data_dir: Optional[str] = option(
        None, "Folder of the dataset; as trained when not given.", group="Averaging",
        names=("--imagenet-data-path",), metavar="DIR")
    json: bool = option(False, "Print the result as JSON instead of text.", group="Results",
                        switch=True)

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain types."""
        return as_dict(self)
