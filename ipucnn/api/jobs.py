"""The commands `run`, `train`, `restore`, `validate`, `export`, `plan`, `bench` ... in Python."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from ipucnn.api.arguments import path_of
from ipucnn.api.modes import ordinary_modes
from ipucnn.api.reporting import Callbacks, Progress, counted, trained
from ipucnn.api.signatures import PathLike, refuse, takes_options
from ipucnn.benchmarking.network_options import NetworkBenchOptions
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.names import key
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.planning.options import PlanOptions
from ipucnn.training.options.stored_options import AverageOptions, ValidateOptions
from ipucnn.training.options.train_options import RestoreOptions, TrainOptions

if TYPE_CHECKING:
    from ipucnn.benchmarking.network_result import NetworkBench
    from ipucnn.core.progress import Listener
    from ipucnn.data import ImageDataset
    from ipucnn.inference.run_result import RunResult
    from ipucnn.onnx.job import ExportResult
    from ipucnn.planning.training_plan import TrainingPlan
    from ipucnn.training.checkpoints.averaging import AverageResult
    from ipucnn.training.metrics.validation import Validations
    from ipucnn.training.train_result import TrainResult

ResultT = TypeVar("ResultT", "NetworkBench", "RunResult", "TrainResult", "TrainingPlan",
                  "Validations")


@takes_options(RunOptions)
def run(config: Optional[PathLike] = None, *, images: Any = None, progress: Progress = "auto",
        **options: Any) -> RunResult:
    """Classify images or benchmark a model: `ipucnn run` in Python.

    Ctrl-C while images are classified ends the run; the result contains the images so far, and
    `stopped_by` is `SIGINT`.

    Args:
        config: a named profile or YAML file.
        images: images of this process, instead of `data` and `data_dir`: of Pillow, numpy (uint8,
            `(height, width, 3)`) or torch (uint8, `(3, height, width)`), one, several, or pairs of
            an image and its label; or a dataset of torch or ipucnn with such items.
        progress: whether progress is shown: True, False, "auto" (on a terminal and in notebooks),
            or a function that receives each `ipucnn.core.progress.Status`.
        options: options of `ipucnn run` by name, in any of their spellings
            (``model="resnet50", batch_size=16``).

    Returns:
        The measurements; times in seconds and milliseconds, rates in images per second.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.profiles import resolve

    made = resolve(RunOptions, {"config": config, **refuse(options)})
    given = None if images is None else _given(images, options)
    with counted(progress, "opening the data and building the model") as report:
        from ipucnn.inference import bulk

        result = bulk.run(made, progress=report, images=given)
    return _written(result, made.results.result, made.results.report)


@takes_options(TrainOptions)
def train(config: Optional[PathLike] = None, *, progress: Progress = "auto",
          callbacks: Callbacks = (), **options: Any) -> TrainResult:
    """Train a model: `ipucnn train` in Python.

    Ctrl-C ends the training after the current host call and saves a checkpoint; the result
    contains the epochs so far, and `stopped_by` is `SIGINT`.

    Args:
        config: a named profile or YAML file.
        progress: whether progress is shown: True, False, "auto" (on a terminal and in notebooks),
            or a function that receives each `ipucnn.core.progress.Status`.
        callbacks: functions that receive rows of metrics, dictionaries whose `kind` is `train`,
            `epoch` or `validation`. One that returns True or raises `ipucnn.StopTraining` ends
            the training after the current host call; so does any other exception, also of
            `progress`, which is raised again once the checkpoint is saved.
        options: options of `ipucnn train` by name, in any of their spellings
            (``model="resnet18", data="shapes", epoch=3``).

    Returns:
        The training's result; times in seconds, rates in images per second, accuracies in per cent.

    Raises:
        IpucnnError: anything the user can act on; `partial` holds the result so far.
    """
    from ipucnn.core.options.profiles import resolve

    given = {"config": config, **refuse(options)}
    made = resolve(TrainOptions, given, "train")

    def job(listener: Listener) -> TrainResult:
        from ipucnn.training.phases import train_all

        if made.results.resume:
            from ipucnn.runs.resuming import resumed

            continued = resumed(given, made, listener)
            if continued is not None:
                return continued
        return train_all(made, listener=listener)

    return _written(_reported(trained(job, progress, callbacks), not made.results.no_report),
                    made.results.result)


@takes_options(RestoreOptions)
def restore(checkpoint_path: PathLike, *, progress: Progress = "auto", callbacks: Callbacks = (),
            **options: Any) -> TrainResult:
    """Resume a training: `ipucnn restore` in Python.

    Args:
        checkpoint_path: a checkpoint, or a folder, of which the newest complete checkpoint is used.
        progress: as in `ipucnn.train`.
        callbacks: as in `ipucnn.train`.
        options: options of `ipucnn train` that replace those of the checkpoint; one that is not
            given keeps its value there, whatever the default.

    Raises:
        IpucnnError: anything the user can act on; `partial` holds the result so far.
    """
    given = {"checkpoint_path": checkpoint_path, **refuse(options)}
    if given.pop("config", None):
        raise UsageError("option 'config' cannot be used to restore a training",
                         "give the options to change by name")
    place, wanted = given.get("result"), not given.pop("no_report", False)

    def job(listener: Listener) -> TrainResult:
        from ipucnn.training.restore import restore as restored

        return restored(given, listener=listener)

    return _written(_reported(trained(job, progress, callbacks), wanted), place)


@takes_options(ValidateOptions)
def validate(checkpoint_path: PathLike, *, progress: Progress = "auto",
             **options: Any) -> Validations:
    """Evaluate a checkpoint, or all checkpoints in a folder: `ipucnn validate` in Python.

    Ctrl-C ends the validation; the result contains the validations so far, and `stopped_by` is
    `SIGINT`.

    Args:
        checkpoint_path: a checkpoint, or a folder, all of whose checkpoints are validated.
        progress: as in `ipucnn.train`.
        options: options of `ipucnn validate`.

    Returns:
        A list with the scores of each checkpoint, accuracies in per cent.

    Raises:
        IpucnnError: anything the user can act on; `partial` holds the validations done.
    """
    from ipucnn.core.options.building import build

    made = build(ValidateOptions, {"checkpoint_path": checkpoint_path, **refuse(options)})

    def job(listener: Listener) -> Validations:
        from ipucnn.training.validate import validate as validated

        return validated(made, listener=listener)

    outputs = (made.results.result, made.results.report, made.results.per_class)
    try:
        found = trained(job, progress)
    except IpucnnError as error:
        if error.partial:
            with suppress(IpucnnError):  # the first error is reported
                _written(error.partial, *outputs)
        raise
    return _written(found, *outputs)


@takes_options(AverageOptions)
def average(checkpoint_path: PathLike, **options: Any) -> AverageResult:
    """Average the weights of a training's checkpoints: `ipucnn average` in Python.

    Args:
        checkpoint_path: the folder of the checkpoints of one training.
        options: options of `ipucnn average`.

    Returns:
        The file that was written, and the checkpoints that were averaged.

    Raises:
        IpucnnError: the folder or a checkpoint cannot be used, or the dataset cannot be read.
    """
    from ipucnn.core.options.building import build

    made = build(AverageOptions, {
        "checkpoint_path": path_of("checkpoint_path", checkpoint_path), **refuse(options)})
    from ipucnn.training.phases import average_checkpoints

    with ordinary_modes():
        return average_checkpoints(made)


@takes_options(ExportOptions)
def export(config: Optional[PathLike] = None, **options: Any) -> ExportResult:
    """Export a model to an ONNX file, compared with torch: `ipucnn export` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn export` by name, in any of their spellings
            (``model="resnet50", dynamic_batch=True``).

    Returns:
        The file's path and a description of its content; size in bytes.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.profiles import resolve

    made = resolve(ExportOptions, {"config": config, **refuse(options)}, "export")
    from ipucnn.onnx.job import export as exported

    with ordinary_modes():
        return exported(made)


@takes_options(TrainOptions, PlanOptions, without=("progress",))
def plan(config: Optional[PathLike] = None, **options: Any) -> TrainingPlan:
    """Preview a training: `ipucnn plan` in Python.

    Nothing is compiled or downloaded, and no images are read; the backend need not be usable on
    this machine.

    Args:
        config: a named profile or YAML file of `ipucnn train`.
        options: options of `ipucnn plan`: those of a training, and of the system it is launched on.

    Returns:
        Batch sizes, devices and instances.

    Raises:
        UsageError: an unknown name, a training that no backend can execute, that its instances
            cannot share, or that needs more IPUs than there are.
    """
    return planned({"config": config, **refuse(options)})


def planned(given: Dict[str, Any], launcher: Optional[Tuple[str, Any]] = None,
            stages: bool = True) -> TrainingPlan:
    """Return the plan of a training; see `plan`.

    Args:
        given: the options by name.
        launcher: name and options of the launcher that starts it.
        stages: also estimate the computation and memory of each stage.

    Raises:
        UsageError: see `plan`.
    """
    from ipucnn.core.options.composition import common_option
    from ipucnn.core.options.profiles import resolve
    from ipucnn.core.registry.registry import registry
    from ipucnn.planning.training_plan import plan_training

    if "progress" in given:
        raise UsageError("option 'progress' has no effect on a plan", "leave it out")
    own = {name: value for name, value in given.items()
           if common_option(PlanOptions, name) is not None}
    training = {name: value for name, value in given.items() if name not in own}
    launch = resolve(PlanOptions, own, "launch", named_by="launch")
    made = resolve(TrainOptions, training, "train")
    with ordinary_modes():
        planned_training = plan_training(made, launch, registry(), launcher, stages)
    return _written(planned_training, made.results.result)


@takes_options(NetworkBenchOptions)
def bench(*, progress: Progress = "auto", **options: Any) -> NetworkBench:
    """Benchmark inference or training on this machine: `ipucnn bench` in Python.

    Every program has its own process. Ctrl-C ends the measurement; the result contains the
    measurements so far, and `stopped_by` is `SIGINT`.

    Args:
        progress: whether progress is shown: True, False, "auto" (on a terminal and in notebooks),
            or a function that receives each `ipucnn.core.progress.Status`, which counts
            measurements instead of images.
        options: options of `ipucnn bench` by name (``model=["resnet50"], batch_size=16``).

    Returns:
        The measurements; rates in images per second, memory in bytes.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.building import build

    made = build(NetworkBenchOptions, refuse(options))
    with counted(progress, "preparing the networks") as report:
        from ipucnn.benchmarking.networks import bench as measured

        result = measured(made, progress=report)
    return _written(result, made.results.result)


def _given(images: Any, options: Dict[str, Any]) -> ImageDataset:
    """Return the images of this process as a dataset.

    Raises:
        UsageError: the options name images too, or these are none.
    """
    for spelling in options:
        if key(spelling) in ("data", "data-dir", "imagenet-data-path", "synthetic"):
            raise UsageError(f"option {spelling!r} and 'images' both name images",
                             "leave one of them out")
    from ipucnn.data.given_images import given_images

    made, _ = given_images(images)
    if not len(made):
        raise UsageError("option 'images' has no images", "give one or more")
    return made


def _written(result: ResultT, place: Optional[PathLike], report: Optional[PathLike] = None,
             *details: Any) -> ResultT:
    """Write a result as JSON and as a report where files are named, and return it.

    Raises:
        IpucnnError: a file cannot be written; `partial` is the result.
    """
    from ipucnn.reports.result_files import write_result

    document: Callable[..., Dict[str, Any]] = getattr(result, "document", result.as_dict)
    try:
        write_result(document(*details), place, report)
    except IpucnnError as error:
        error.partial = result
        raise
    return result


def _reported(result: TrainResult, wanted: bool) -> TrainResult:
    """Write the report of a training into its log folder, and return its result."""
    if wanted and result.log_dir:
        from ipucnn.reports.job import of_training

        note = of_training(result.log_dir)
        if note:
            result.notes.append(note)
    return result


def report(runs: Union[PathLike, Sequence[PathLike]], out: Optional[PathLike] = None) -> Path:
    """Write a report as an HTML page: `ipucnn report` in Python.

    Args:
        runs: the log folder of a training, a file of `result` or `predictions`, or several of
            these to compare.
        out: file to write; by default beside a single run, `report.html` here for several.

    Returns:
        The path of the page.

    Raises:
        UsageError: no run is given, or too many.
        DataError: one cannot be read, or the page cannot be written.
    """
    from ipucnn.reports.job import report as written

    named = list(runs) if isinstance(runs, Iterable) and not isinstance(runs, (str, bytes)) \
        else [runs]
    return written([path_of("runs", run) for run in named],
                   None if out is None else path_of("out", out))


COMMANDS: Sequence[Callable[..., Any]] = (
    run, train, restore, validate, average, export, plan, bench)
"""The functions whose signatures are generated."""
