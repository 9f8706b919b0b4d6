"""Runs the validations of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from ipucnn.core.execution.selection import validating
from ipucnn.core.execution.training_session import StateDict, TrainingSession
from ipucnn.core.progress import Listener
from ipucnn.models.checkpoint_files import entries
from ipucnn.models.target_checks import copied
from ipucnn.training.checkpoints.stored import load_stored
from ipucnn.training.metrics.validation import Evaluator, Validation
from ipucnn.training.setup.preparation import Prepared


class Validator:
    """Validates the weights of a training. Create it before the session, which changes the model.

    Args:
        prepared: the training.
        listener: receives progress.

    Attributes:
        figures: those of every validation.
        last: the last validation. Earlier ones are not kept: with many classes, the confusion
            matrix and the evidence of each take megabytes.
    """

    def __init__(self, prepared: Prepared, listener: Listener) -> None:
        self._prepared, self._listener = prepared, listener
        self.figures: List[Dict[str, Any]] = []
        self.last: Optional[Validation] = None
        self._evaluator: Optional[Evaluator] = None
        options = prepared.options
        if prepared.validation is not None:
            plan = replace(options.validation_plan(prepared.plan.instances),
                           preprocessing=prepared.plan.preprocessing)
            backend = validating(prepared.chosen, options, plan, prepared.registry)
            self._evaluator = Evaluator(
                copied(prepared.built.module), backend, prepared.setup.loss, plan,
                prepared.validation, prepared.built.card, prepared.validation_match,
                options.dataset.dataloader_worker,
                options.dataset.skip_bad_samples, prepared.instances, prepared.validation_cache,
                prepared.chosen.plugin)

    def close(self) -> None:
        """Free the device."""
        if self._evaluator is not None:
            self._evaluator.close()

    def validate(self, session: TrainingSession, epoch: int) -> List[Validation]:
        """Validate the model under training, and the moving average of its weights.

        Raises:
            Interrupted: the listener requests a stop.
            DataError: an image cannot be read.
        """
        kinds = ["raw", *(["ema"] if self._prepared.options.optimisation.ema_decay else [])]
        if self._evaluator is None:
            return []
        done = []
        with session.detached():
            for kind in kinds:
                weights = self._prepared.weights_of(session, ema=kind == "ema")
                # each has running statistics of its own replicas; those of the first are used
                self._prepared.instances.share(weights)
                done.append(self._scored(weights, epoch, kind))
        return done

    def evidence(self, thumbnails: bool = False) -> Dict[str, Any]:
        """Return the last validation for a report as plain types.

        It is empty before the first one, and in all instances but the first, which records it.

        Args:
            thumbnails: add small images of the selected predictions, whose files are read again.
        """
        if self.last is None or self._evaluator is None or self._prepared.instances.index:
            return {}
        return self.last.document(self._evaluator.dataset if thumbnails else None)

    def validate_folder(self, folder: Path, record: Callable[[Validation, int], None]) -> None:
        """Validate all end-of-epoch checkpoints and averages.

        The first instance reads them for all, because others may be on hosts without the folder.

        Args:
            folder: of the checkpoints.
            record: called with each validation and the weight updates before it.

        Raises:
            Interrupted: the listener requests a stop.
            IpucnnError: a checkpoint or an image cannot be read.
        """
        if self._evaluator is None:
            return
        instances = self._prepared.instances
        first = not instances.index
        for name in instances.gather([entry.path.name
                                      for entry in entries(folder, averaged=True)
                                      if not entry.step] if first else [])[0]:
            stored = load_stored(folder / name) if first else None
            own = {"raw": stored.weights, "ema": stored.ema} if stored else {}
            epoch, update, kinds = instances.gather(
                [stored.epoch if stored else 0, stored.update if stored else 0,
                 [kind for kind, weights in own.items() if weights is not None]])[0]
            self._listener.line(f"Validation of {name}, epoch {epoch}")
            for kind in kinds:
                weights = own.get(kind) or self._evaluator.example()
                instances.share(weights)
                record(self._scored(weights, epoch, kind, name), update)

    def _scored(self, weights: StateDict, epoch: int, kind: str,
                checkpoint: str = "") -> Validation:
        assert self._evaluator is not None
        validation = self._evaluator(weights, epoch, kind, checkpoint, self._listener)
        self.figures.append(validation.figures())
        self.last = validation
        self._listener.line(f"Accuracy on test set{validation.label}: {validation.top1:.2f}%")
        return validation
