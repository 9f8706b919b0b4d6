"""Runs trainings of one or more phases, and averages checkpoints."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.options.effects import idle_notes
from ipucnn.core.preprocessing import Preprocessing, half_size
from ipucnn.core.progress import Listener
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data.images import cannot_skip
from ipucnn.data.opening import open_dataset, request_of
from ipucnn.models.checkpoint_files import CheckpointError
from ipucnn.models.store_paths import on_store, place_of, shown_path
from ipucnn.models.weights_card import preprocessing_of
from ipucnn.training.checkpoints.averaging import AverageResult, average, averaged_paths, reestimate
from ipucnn.training.checkpoints.checkpoint import Checkpoint
from ipucnn.training.checkpoints.checkpoint_folder import newest
from ipucnn.training.job import train
from ipucnn.training.options.stored_options import AverageOptions
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.records.folder_lock import locked
from ipucnn.training.setup.idle_options import check_share
from ipucnn.training.setup.outline import fine_tuning, fine_tuning_plan
from ipucnn.training.train_result import TrainResult
from ipucnn.training.trainer import EARLY_STOPPING


def train_all(options: TrainOptions, registry: Optional[Registry] = None,
              listener: Optional[Listener] = None,
              restored: Optional[Checkpoint] = None) -> TrainResult:
    """Train a model; with `half_res_training`, fine-tune from the average afterwards.

    Args:
        options: what to train.
        registry: where names are looked up; this process's when not given.
        listener: receives progress.
        restored: the checkpoint to resume from, of any phase.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry = registry or current_registry()
    listener = listener or Listener()
    if restored is None:  # a restored training needs the images as they were, in each phase
        check_share(options, registry.get_typed(DatasetSpec, options.dataset.data))
    if not options.half_resolution.half_res_training:
        return train(options, registry, listener, restored)
    fine_tuning_plan(options, synthetic=False)  # rejected now, not after days of training
    full = preprocessing_of(options.network, registry).input_size
    listener.line(f"Training at {half_size(full)} pixels")
    first = train(options, registry, listener, restored)
    if first.stopped_by not in (None, EARLY_STOPPING):
        return first
    further = fine_tuning(options, first.averaged, full)
    begun = None
    if restored is not None:
        place = place_of(str(further.checkpoints.checkpoint_path))
        if place.is_dir():
            with suppress(CheckpointError):
                begun, _ = newest(place)
    start = shown_path(begun.path) if begun and begun.path else first.averaged
    listener.line(f"Fine-tuning at {full} pixels from {start}")
    return train(further, registry, listener, begun)


def average_checkpoints(options: AverageOptions,
                        registry: Optional[Registry] = None) -> AverageResult:
    """Average a folder's checkpoints, and optionally re-estimate batch norm's statistics.

    Raises:
        IpucnnError: the folder or a checkpoint cannot be used, or the dataset cannot be read.
    """
    given = options.checkpoint_output_path
    output = place_of(given, writes=True) if given else None
    folder = place_of(str(options.checkpoint_path), writes=output is None)
    notes: List[str] = []
    with ExitStack() as held:
        written = output.parent if output else folder
        if on_store(written) is not None:
            held.enter_context(locked(written, "--checkpoint-output-path", notes.append))
        result = _averaged(folder, output, options, registry or current_registry())
    return replace(result, notes=(*notes, *result.notes))


def _averaged(folder: Path, output: Optional[Path], options: AverageOptions,
              registry: Registry) -> AverageResult:
    notes = tuple(idle_notes(options, {}, registry))
    changed = None
    if options.reestimate_batch_norm:
        # the images are opened before the work, and nothing is written if they cannot be used
        last = averaged_paths(folder, options.weight_avg_n)[-1]
        changed, about_images = _reestimated(last, options, registry)
        notes += about_images
    try:
        result = average(folder, options.weight_avg_strategy, options.weight_avg_exp_decay,
                         options.weight_avg_n, output, changed)
    except DataError as error:
        cannot_skip(error)
        raise
    return replace(result, notes=notes)


def _reestimated(checkpoint: Path, options: AverageOptions, registry: Registry,
                 ) -> Tuple[Callable[[StateDict], StateDict], Tuple[str, ...]]:
    """Return what estimates batch norm's statistics for weights, and notes about the images."""
    from ipucnn.models.checkpoint_content import load_state
    from ipucnn.training.checkpoints.saved_plugins import UNNEEDED
    from ipucnn.training.checkpoints.stored import build_stored, load_stored, options_of

    stored = load_stored(checkpoint)
    training = options_of(stored, registry, {}, (), (*UNNEEDED, "loss", "backend"))
    data = registry.get_typed(DatasetSpec, training.dataset.data)
    if data.on_device:
        raise UsageError(f"dataset {data.name!r} has no images to estimate from",
                         "leave '--reestimate-batch-norm' out")
    built = build_stored(stored, registry)
    request = replace(request_of(training.network, training.dataset, built.input_size,
                                 options.reestimate_batch_norm), split="train",
                      hold_out=training.validation.holds_out)
    dataset = open_dataset(data, request, training.plugins, registry, options.data_dir)

    def estimated(weights: StateDict) -> StateDict:
        load_state(built.module, weights, shown_path(checkpoint))
        reestimate(built.module, _images(dataset, built.preprocessing, training,
                                         options.reestimate_batch_norm))
        return {name: value.detach().clone() for name, value in built.module.state_dict().items()}

    return estimated, dataset.notes


def _images(dataset: Any, preprocessing: Preprocessing, training: TrainOptions,
            count: int) -> Iterator[Any]:
    from ipucnn.data.dataset_checks import order_of
    from ipucnn.data.host_loader import HostLoader

    order = order_of(dataset, training.dataset.seed, 0)[:count]
    size = max(2, training.execution.micro_batch)
    with HostLoader(dataset, preprocessing, size, (int(i) for i in order),
                    workers=training.dataset.dataloader_worker,
                    skip_bad=training.dataset.skip_bad_samples, pixels="normalised") as loader:
        for batch in loader:
            yield batch.images
