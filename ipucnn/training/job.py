"""The job behind `ipucnn train` and `ipucnn restore`."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any, Dict, Optional

from ipucnn.core.collection import collect_as_usual
from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.execution.launching import launched_count
from ipucnn.core.execution.session_checks import compiled, opened
from ipucnn.core.execution.training_session import TrainingSession
from ipucnn.core.loggers import COMPLETED, FAILED, STOPPED
from ipucnn.core.progress import Listener, Status
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data.images import cannot_skip
from ipucnn.training.checkpoints.checkpoint import Checkpoint, load_session
from ipucnn.training.checkpoints.checkpoint_folder import check_result
from ipucnn.training.image_cache import kept_images
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.records.run_files import ready, with_folder
from ipucnn.training.setup.preparation import prepare
from ipucnn.training.setup.trained_data import grown
from ipucnn.training.train_result import TrainResult
from ipucnn.training.trainer import EARLY_STOPPING, Trainer
from ipucnn.training.validator import Validator


def train(options: TrainOptions, registry: Optional[Registry] = None,
          listener: Optional[Listener] = None,
          restored: Optional[Checkpoint] = None) -> TrainResult:
    """Train a model.

    Args:
        options: what to train.
        registry: where names are looked up; this process's when not given.
        listener: receives progress; called after every host call to check for a stop.
        restored: the checkpoint to continue from.

    Raises:
        IpucnnError: anything the user can act on. `partial` holds the result so far.
    """
    if restored is None:  # a restored one does not write the file that its checkpoint names
        options.results.check_places(options)
        check_result(options.results.result, options.checkpoints.checkpoint_path,
                     options.results.log_dir)
    try:
        prepared = prepare(options, registry or current_registry(), restored)
    except DataError as error:  # of an image whose size is examined
        if launched_count() > 1:
            cannot_skip(error)
        raise
    if restored is not None and restored.card is not None \
            and restored.card.num_outputs != prepared.built.num_outputs:
        restored = grown(restored, prepared.built.module)
    listener = listener or Listener()
    with ExitStack() as held:
        held.enter_context(kept_images(prepared))
        for note in prepared.notes:
            listener.note(note)
        options, folder = with_folder(prepared)
        prepared.options = options
        if not prepared.instances.index:
            held.enter_context(ready(folder, restored, options, listener))
        validator = held.enter_context(closing(Validator(prepared, listener)))
        collect_as_usual()
        chosen = prepared.chosen
        session = held.enter_context(opened(chosen.backend.training(
            prepared.built.module, prepared.plan, prepared.setup,
            prepared.built.input_size), TrainingSession, chosen.plugin))
        listener.status(Status("preparing", epochs=options.optimisation.epochs))
        prepared.compile_seconds = compiled(session, chosen.plugin)
        if restored is not None:
            load_session(session, restored)
        trainer = Trainer(prepared, session, validator, listener, folder, restored)
        status, result = FAILED, None
        failure: Dict[str, Any] = {}
        try:
            if not prepared.plan.compile_only:
                trainer.run()
            result = trainer.finished()
            trainer.records.evidence(validator.evidence(thumbnails=True))
            status = COMPLETED if result.stopped_by in (None, EARLY_STOPPING) else STOPPED
        except IpucnnError as error:
            result = error.partial = trainer.finished()
            if prepared.instances.count > 1:
                cannot_skip(error)
            failure = {"error": error.message}
            raise
        finally:
            unrecorded = trainer.records.finish(
                status, {**(result.as_dict() if result else {}), **failure})
        if unrecorded is not None:
            unrecorded.partial = result
            raise unrecorded
        return result
