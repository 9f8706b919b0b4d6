"""Executes a training, from the start or a checkpoint to the end."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Tuple

from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.instances import Agreement
from ipucnn.core.execution.session_checks import result_of_step
from ipucnn.core.execution.training_session import NonFiniteLoss, TrainingSession
from ipucnn.core.progress import Listener
from ipucnn.models.store_paths import shown_path
from ipucnn.training.checkpoints.averaging import average
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, check, file_name, run_of
from ipucnn.training.checkpoints.saved_plugins import plugin_versions
from ipucnn.training.feed import Feed, still_bad
from ipucnn.training.metrics.figures import Figures, Pace
from ipucnn.training.metrics.validation import Interrupted
from ipucnn.training.records.reporter import Reporter
from ipucnn.training.records.run_files import FileRecords, Records
from ipucnn.training.setup.class_balance import unread_classes
from ipucnn.training.setup.preparation import Prepared
from ipucnn.training.setup.trained_data import described, same_images
from ipucnn.training.train_result import TrainResult, milliseconds
from ipucnn.training.validator import Validator

EARLY_STOPPING = "early stopping"
"""Value of `stopped_by` for a training that no longer improved."""


class Trainer:
    """One training, from the start or a checkpoint to the end."""

    def __init__(self, prepared: Prepared, session: TrainingSession, validator: Validator,
                 listener: Listener, folder: Optional[Path],
                 restored: Optional[Checkpoint]) -> None:
        self.prepared, self.session, self.listener = prepared, session, listener
        self.validator = validator
        self.options = prepared.options
        self.folder = folder
        self.instances = prepared.instances
        self.agree = Agreement(self.instances)
        position = restored.position if restored else Position(0, 0, 0, 0)
        self.epoch, self.call, self.consumed, self.update = (
            position.epoch, position.call, position.consumed, position.update)
        self.figures = Figures.from_plain(restored.progress if restored else {}, self.instances)
        self.description = described(prepared.dataset, prepared.class_counts)
        if restored and not same_images(restored.data, self.description):
            self.figures.bad = []  # these indices now are those of other images
        # they may have been repaired; if not, the same batches follow
        self.figures.bad = still_bad(prepared, self.figures.bad)
        self.records: Records = FileRecords(
            self.options, folder, restored, self.figures.rows, prepared, listener.note
        ) if not self.instances.index else Records()
        self.epochs = self.options.optimisation.epochs
        self.pace = Pace(prepared.calls * self.epochs, prepared.calls * self.epoch + self.call)
        self.reporter = Reporter(prepared, listener, self.records, self.figures, self.pace)
        self.unsaved = False
        self._state_checked = False
        self._ahead: Optional[Feed] = None
        # in every instance, because all make the same decisions; only the first one writes
        self.saved = self.instances.gather(
            self.records.last_good.name if self.records.last_good else "")[0]
        self.stopped_by: Optional[str] = None
        self.averaged = ""
        self.restored = shown_path(restored.path) if restored and restored.path else ""
        self.checkpoints = run_of(prepared.built.spec.name, prepared.data.name, restored)
        self.grown = restored is not None and restored.grown

    # -- epochs --------------------------------------------------------------------------------

    def run(self) -> None:
        """Train all remaining epochs, then run the final steps."""
        try:
            self._run()
        except Interrupted as interrupt:  # within a validation
            self.stopped_by = str(interrupt)
            if not self._is_saved():
                self._save(final=True)
        finally:
            if self._ahead is not None:
                self._ahead.close()

    def _run(self) -> None:
        if self.epoch and not self.consumed and not self.grown:
            self._after_epoch()  # the checkpoint at an epoch's end is older than its validation
            if self.stopped_by == EARLY_STOPPING:
                self.listener.note(
                    "the training had stopped early; validations in a row without a better "
                    f"result: {self.figures.standing.waited}; a larger '--early-stopping' "
                    "continues it")
        while self.epoch < self.epochs and not self.stopped_by:
            self.listener.line(f"Epoch {self.epoch + 1}/{self.epochs}")
            if self._train_epoch():
                self._after_epoch()
        if self.unsaved:
            self._save(final=True)
        if not self.stopped_by or self.stopped_by == EARLY_STOPPING:
            self._after_training()

    def _train_epoch(self) -> bool:
        """Train the remainder of the current epoch; return whether it was completed."""
        if not self.consumed:
            self.figures.start_epoch()
        if self.prepared.setup.head:
            self.session.freeze(self.epoch < self.options.fine_tuning.frozen_epochs)
        feed = self._ahead or Feed(self.prepared, self.session, self.epoch, self.consumed,
                                   self.figures.bad)
        self._ahead = None
        batches = iter(feed)
        started, images = time.perf_counter(), 0
        try:
            while self.call < self.prepared.calls:
                requested = time.perf_counter()
                item = next(batches, None)
                if item is None:
                    self._last_row()
                    break
                waited = time.perf_counter() - requested
                samples, lr, scaling = self._host_call(feed, *item)
                self.pace.add(samples, time.perf_counter() - requested, waited)
                images += samples
                self.reporter.status(self._position(), lr)
                if self.reporter.row_due(self.call):
                    self.reporter.row(self._position(), lr, scaling)
                if self.call < self.prepared.calls and self._pause():
                    return False
        finally:
            batches.close()  # type: ignore[attr-defined]
        if not self.consumed:
            raise IpucnnError("no host call could be filled with readable images",
                              "use a smaller '--batch-size'")
        return self._end_epoch(images / (time.perf_counter() - started))

    def _host_call(self, feed: Feed, batch: Any, consumed: int) -> Tuple[int, float, float]:
        """Train with the images of a host call.

        Args:
            feed: that of this epoch.
            batch: the images.
            consumed: images of the epoch up to and with these.

        Returns:
            The number of images over all instances, the learning rate and the loss scaling.
        """
        self._begin_next(feed)
        if not self.update and feed.loader is not None:
            self.records.samples(batch, self.prepared.built.card.names)
        lr, scaling = self._rates(self.call)
        self.session.set_rates(lr, scaling)
        result = self._step(batch, lr, scaling)
        self.update += self.prepared.plan.device_iterations
        self.call += 1
        self.consumed = consumed
        self._check_state()
        if feed.loader is not None:
            self.figures.bad = feed.bad
        self.figures.add(result)
        return result.samples * self.prepared.plan.instances, lr, scaling

    def _end_epoch(self, images_per_second: float) -> bool:
        """Record the end of an epoch, and save if it is due; return whether to train further."""
        self.epoch, self.call, self.consumed = self.epoch + 1, 0, 0
        self.figures.end_epoch(self.instances)
        self.reporter.epoch(self._position(), images_per_second)
        if self.figures.skipped_updates >= self.update:
            raise IpucnnError(f"all {self.update} updates are skipped: their loss is not finite",
                              "use a lower '--lr' or a longer '--warmup-epoch', more precision")
        due = self._stopping(now=True)
        if due or self._is_scheduled() or self.stopped_by:
            self._save()
        return not self.stopped_by

    def _begin_next(self, feed: Feed) -> None:
        """Before the last call, let threads prepare the next epoch's first images.

        They have prepared all images of this epoch; the next one would wait for its first.

        Args:
            feed: that of this epoch.
        """
        last = self.call + 1 == self.prepared.calls
        if last and self.epoch + 1 < self.epochs and feed.loader is not None:
            self._ahead = Feed(self.prepared, self.session, self.epoch + 1, bad=feed.bad)
            self._ahead.begin()

    def _rates(self, call: int) -> Tuple[float, float]:
        """Return learning rate and loss scaling of a host call of the epoch."""
        calls = self.prepared.calls
        lr = self.prepared.rate.at(self.epoch + call / calls, self.epoch + (call + 1) / calls)
        return lr, self.prepared.scaling.at(self.epoch)

    def _step(self, batch: Any, lr: float, scaling: float) -> Any:
        try:
            result = result_of_step(self.session.step(batch, self.update), self.update,
                                    self.prepared.chosen.plugin)
        except NonFiniteLoss as error:
            value = "finite, and its gradients are not" if error.gradients else str(error.value)
            raise self._non_finite(error.update, value, lr, scaling) from error
        skipped = self.figures.skipped_updates + result.skipped
        if result.skipped and skipped > self.options.optimisation.skip_non_finite:
            raise self._non_finite(self.update, "not finite", lr, scaling)
        return result

    def _check_state(self) -> None:
        """Raise an error after the first call if the state of a plugin cannot be saved.

        Otherwise it would be raised by the first checkpoint, after one or many epochs. The state of
        built-in plugins is not read for it, which takes time on some devices.
        """
        if self._state_checked or self.folder is None:
            return
        self._state_checked = True
        prepared, registry = self.prepared, self.prepared.registry
        optimizer = registry.get("optimizer", self.options.optimisation.optimizer)
        if not all(registry.provider_of(spec).builtin
                   for spec in (prepared.built.spec, prepared.chosen.spec, optimizer)):
            check(self.checkpoint())

    def _non_finite(self, update: int, value: str, lr: float, scaling: float) -> IpucnnError:
        good = self.records.last_good
        or_scaling = " or '--loss-scaling'" if scaling > 1 else ""
        return IpucnnError(
            f"the loss of step {update} is {value} (epoch {self.epoch + 1}, learning rate {lr:g}, "
            f"loss scaling {scaling:g}); last good checkpoint: "
            f"{shown_path(good) if good else 'none'}",
            f"use a lower '--lr'{or_scaling}, a longer '--warmup-epoch', more precision, or leave "
            "such steps out with '--skip-non-finite N'")

    # -- between steps -------------------------------------------------------------------------

    def _stopping(self, now: bool = False) -> bool:
        """Update the stop reason of the training; return whether a checkpoint is due."""
        due = self.records.due(self.options.checkpoints.checkpoint_save_minutes)
        stop, due = self.agree(self.listener.stop(), due, now)
        self.stopped_by = self.stopped_by or stop or None
        return due

    def _pause(self) -> bool:
        """Save if a checkpoint is due; return whether the training ends here."""
        due = self._stopping()
        steps = self.options.checkpoints.checkpoint_save_steps
        if self.stopped_by or due or (steps and self.call % steps == 0):
            self._save(final=bool(self.stopped_by))
        return bool(self.stopped_by)

    def _is_scheduled(self) -> bool:
        """Return whether a checkpoint is due at the end of this epoch."""
        return self.epoch % self.options.checkpoints.checkpoint_save_freq == 0 \
            or self.epoch == self.epochs

    def _position(self) -> Position:
        return Position(self.epoch, self.call, self.consumed, self.update)

    def _name(self, extra: bool = False) -> str:
        return file_name(self.checkpoints, self._position(), extra)

    def _is_saved(self) -> bool:
        """Return whether a checkpoint of this position was saved."""
        return self.saved in (self._name(), self._name(extra=True))

    def _save(self, final: bool = False, extra: Optional[bool] = None) -> None:
        """Save a checkpoint; `extra` (see `Checkpoint`) is set by default if none is due."""
        if self.folder is None:
            return
        if extra is None:
            extra = not self.call and not self._is_scheduled()
        # instances that do not write contribute their part
        warning = self.records.save(replace(self.checkpoint(), extra=extra))
        self.unsaved = self.instances.gather(self.records.failed is not None)[0]
        if not self.unsaved:
            self.saved = self._name(extra)
        if warning:
            self.listener.note(warning)
        if self.unsaved and final:
            raise self.records.failed or IpucnnError("the first instance could not write the "
                                                     "checkpoint")

    def checkpoint(self) -> Checkpoint:
        """Return everything that a restored training needs."""
        return Checkpoint(
            model=self.prepared.built.card.model, dataset=self.prepared.data.name,
            run=self.checkpoints, position=self._position(),
            weights=self.prepared.weights_of(self.session),
            ema=self.prepared.weights_of(self.session, ema=True)
            if self.options.optimisation.ema_decay else None,
            session=self.session.state(), progress=self.figures.as_plain(self.instances),
            options=self.options.as_dict(), class_names=self.prepared.built.card.class_names,
            versions={**describe()["packages"],
                      **plugin_versions(self.options, self.prepared.registry)},
            data=self.description,
            card=self.figures.standing.on(self.prepared.built.card, self.prepared.data.name,
                                          None if self.call else self.epoch))

    def _last_row(self) -> None:
        """Write the next row of an epoch that unreadable images have shortened.

        It is due at a call that the epoch does not reach. The training may have been restored after
        the last call, so its rates, which are part of a checkpoint, are set again.
        """
        if not self.call:
            return
        rates = self._rates(self.call - 1)
        self.session.set_rates(*rates)
        more = self.reporter.rows_until(self.prepared.calls) > self.reporter.rows_until(self.call)
        if more and not self.reporter.row_due(self.call):
            self.reporter.row(self._position(), *rates)

    # -- validation ----------------------------------------------------------------------------

    def _after_epoch(self) -> None:
        due = self.epoch % self.options.validation.validation_frequency == 0 \
            or self.epoch >= self.epochs
        if self.options.validation.mode != "during" or not due:
            return
        if self.figures.validated != self.epoch:  # the restored checkpoint may have counted it
            self._validate()
        patience = self.options.validation.early_stopping
        if patience and self.figures.standing.waited >= patience \
                and not self.stopped_by and self.epoch < self.epochs:
            self.stopped_by = EARLY_STOPPING
            if self.saved != self._name():  # the last epoch, as after all epochs
                self._save(final=True, extra=False)
            return
        if self.epoch < self.epochs and not self.stopped_by:  # a callback has seen the validation
            self._stopping(now=True)
            if self.stopped_by and not self._is_saved():
                self._save(final=True)

    def _validate(self) -> None:
        """Validate the epoch, and record it in all state that later checkpoints contain."""
        better, standing = False, self.figures.standing
        reached = standing.value if standing.metric else None
        for validation in self.validator.validate(self.session, self.epoch):
            self.reporter.validation(validation, self.update)
            better |= standing.offer(self.options.validation.best_metric, validation)
        standing.waited = standing.waited + 1 if standing.value == reached else 0
        self.figures.validated = self.epoch
        self.records.evidence(self.validator.evidence())
        if not better:
            return
        if self.options.checkpoints.keep_best and self.saved != self._name():
            standing.file = self._name()  # is part of this checkpoint
            self._save(extra=False)
        standing.file = self._name() if self.saved == self._name() else ""
        self.records.best(standing.as_plain(), standing.file)

    # -- the end -------------------------------------------------------------------------------

    def _after_training(self) -> None:
        kept = self.options.checkpoints
        if self.folder and kept.weight_avg_strategy != "none":
            if not self.instances.index:
                averaged = average(self.folder, kept.weight_avg_strategy,
                                   kept.weight_avg_exp_decay, kept.weight_avg_n, None)
                self.averaged = averaged.place
                self.listener.line(f"Averaged {len(averaged.files)} checkpoints: {averaged.place}")
            self.averaged = self.instances.gather(self.averaged)[0]
        if self.options.validation.mode != "after":
            return
        if self.folder is None or not self.instances.gather(bool(self.records.last_good))[0]:
            for validation in self.validator.validate(self.session, self.epoch):
                self.reporter.validation(validation, self.update)
        else:
            self.validator.validate_folder(self.folder, self.reporter.validation)

    def _log_dir(self) -> str:
        return shown_path(self.records.log_dir) if self.records.log_dir else ""

    def finished(self) -> TrainResult:
        """Return the result of the training so far."""
        prepared, plan, good = self.prepared, self.prepared.plan, self.records.last_good
        return TrainResult(
            model=prepared.built.spec.name, dataset=prepared.data.name,
            backend=prepared.chosen.spec.name, device=prepared.chosen.probe.device,
            options=self.options.recorded(),
            environment={**describe(), "backend": prepared.chosen.probe.versions},
            plan={**plan.algebra(), "half": prepared.chosen.probe.half if plan.half else ""},
            session=self.session.facts, card=prepared.built.card.as_plain(),
            compile_seconds=prepared.compile_seconds,
            epochs=self.epoch, updates=self.update,
            images=self.pace.images, seconds=self.pace.seconds,
            images_per_second=self.pace.average,
            compute_images_per_second=self.pace.compute_average,
            data_wait_share=self.pace.average_wait,
            device_latency_ms=milliseconds(self.session.device_latency()),
            loss=self.figures.loss(), accuracy=self.reporter.accuracy(),
            validations=self.validator.figures,
            best=self.figures.standing.as_plain() or None,
            checkpoint=shown_path(good) if good else "",
            averaged=self.averaged, log_dir=self._log_dir(), restored=self.restored,
            skipped={"images": len(self.figures.bad), "updates": self.figures.skipped_updates},
            stopped_by=self.stopped_by, history=list(self.reporter.history),
            notes=[*prepared.notes, *unread_classes(prepared.dataset, self.figures.bad),
                   *filter(None, [self.reporter.waiting])])
