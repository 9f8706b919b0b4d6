"""Parts of the options of a training: what it writes, checkpoints and records."""

from dataclasses import dataclass
from typing import ClassVar, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import NO_CHECKPOINTS, NOT_DURING
from ipucnn.core.options.declaration import option
from ipucnn.core.options.parts import ResultPart


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
    weight_avg_n: int = option(-1, "Number of last checkpoints to average; 0 or -1 for all.",
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
        super().__post_init__()
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
