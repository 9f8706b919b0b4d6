"""Notes on the given options that have no effect in a training, and an error for one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Collection, Dict, List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import (
    DEVICE_IMAGES,
    FIXED_IMAGES,
    FULL_PRECISION,
    NO_CHECKPOINTS,
    NO_LABELS,
    NO_VALIDATION,
    NOT_DURING,
)
from ipucnn.core.options.effects import idle_notes
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.training.options.train_options import TrainOptions

if TYPE_CHECKING:
    from ipucnn.training.setup.rates import LearningRate

_PLACES = 64
"""Places of a training at which a schedule is compared with its start."""


def notes_on_idle(options: TrainOptions, data: DatasetSpec, registry: Registry,
                  among: Optional[Collection[str]] = None) -> List[str]:
    """Return notes on the given options that have no effect in a training.

    Args:
        options: of the training.
        data: the dataset's record.
        registry: where names are looked up.
        among: names of the options to consider; all when None.
    """
    notes = idle_notes(options, _states(options, data), registry, among)
    if options.optimisation.reduction and among is None:
        notes.append(f"'--reduction {options.optimisation.reduction}' has no effect: the old "
                     "trainer divided the learning rate of a sum, so that its updates were those "
                     "of a mean; '--accumulation-reduction sum' is without that")
    kept = options.checkpoints
    if among is None and kept.keep_last and kept.weight_avg_strategy != "none" \
            and not 0 < kept.weight_avg_n <= kept.keep_last:
        count = f"the last {kept.weight_avg_n}" if kept.weight_avg_n > 0 else "all"
        notes.append(f"only the checkpoints that '--keep-last {kept.keep_last}' keeps are "
                     f"averaged, not {count}")
    for flag, folder in (("--data-dir", options.dataset.data_dir),
                         ("--validation-data-dir", options.validation.validation_data_dir)):
        if folder and not data.reads_folder and not any(flag in note for note in notes):
            notes.append(f"'{flag}' has no effect with dataset {data.name!r}, which reads no "
                         "folder")
    return notes


def notes_on_length(options: TrainOptions, rate: LearningRate, calls: int) -> List[str]:
    """Return notes on options that the length of a training or its schedule leaves without effect.

    Args:
        options: of the training.
        rate: its learning rate.
        calls: host calls of an epoch, without `--iterations`.
    """
    notes = []
    wanted = options.execution.iterations
    if wanted is not None and wanted > calls:
        notes.append(f"'--iterations {wanted}' has no effect: the images fill {calls} host calls "
                     "per epoch")
    calls = min(calls, wanted or calls)
    epoch = f"an epoch has {calls} host call{'s' * (calls > 1)}"
    rows, saves = options.results.steps_per_log, options.checkpoints.checkpoint_save_steps
    if rows is not None and rows > calls:
        notes.append(f"'--steps-per-log {rows}' records no metrics of the training: {epoch}")
    if saves is not None and saves >= calls:
        notes.append(f"'--checkpoint-save-steps {saves}' has no effect: {epoch}")
    epochs = max(1, options.optimisation.epochs)
    if rate.frequency and len({rate.factor(epochs * place / _PLACES)
                               for place in range(_PLACES)}) == 1:
        notes.append("'--lr-scheduler-freq' has no effect: '--lr-schedule "
                     f"{options.schedule.lr_schedule}' keeps one learning rate")
    return notes


def check_share(options: TrainOptions, data: DatasetSpec) -> None:
    """Raise an error for a share that is held out and not validated, of the options of a training.

    Raises:
        UsageError: the validation images are in another folder.
    """
    elsewhere = options.validation.validation_data_dir
    if elsewhere and data.reads_folder and options.validation.mode != "none" \
            and options.plugins.value("validation_split"):
        raise UsageError("'--validation-split' has no effect: the validation images are those in "
                         f"{elsewhere!r}", "leave it out to train on all images, or set it to 0 if "
                         "a profile contains it")


def writes_checkpoints(options: TrainOptions, data: DatasetSpec) -> bool:
    """Return whether a training writes checkpoints: into the given folder, or one of its own."""
    checkpoints = options.checkpoints
    return not checkpoints.no_checkpoints and (
        bool(checkpoints.checkpoint_path)
        or (data.finite and not options.execution.compile_only))


def _states(options: TrainOptions, data: DatasetSpec) -> Dict[str, str]:
    """Return the states that a training is in, and the words for them; see `idle_notes`."""
    states: Dict[str, str] = {}
    if options.execution.precision == "32.32":
        states[FULL_PRECISION] = "in full precision"
    if data.on_device:
        states[DEVICE_IMAGES] = (f"on the images of dataset {data.name!r}, which are made on the "
                                 "device")
        states[NO_VALIDATION] = states[NOT_DURING] = (
            f"with dataset {data.name!r}, which is not validated")
    if not data.labelled:
        states[FIXED_IMAGES] = f"on the images of dataset {data.name!r}, which are not augmented"
        states[NO_LABELS] = f"with dataset {data.name!r}, which has no labels"
    if options.validation.mode != "during":
        states[NOT_DURING] = "without validation during training"
    if options.validation.mode == "none":
        states[NO_VALIDATION] = states[NOT_DURING] = "without validation"
    if options.checkpoints.no_checkpoints:
        states[NO_CHECKPOINTS] = "with '--no-checkpoints'"
    elif not writes_checkpoints(options, data):
        states[NO_CHECKPOINTS] = "without '--checkpoint-path'"
    return states
