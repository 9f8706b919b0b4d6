"""Conformance suite for loggers."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.loggers import COMPLETED, FAILED, STOPPED, Logger, RunInfo
from ipucnn.core.names import described
from ipucnn.core.registry.records import LoggerSpec
from ipucnn.testing.suite import Suite, require

ROWS: Tuple[Dict[str, Any], ...] = (
    {"kind": "train", "epoch": 0.5, "update": 10, "loss": 2.25, "accuracy": 12.5,
     "learning_rate": 0.1, "loss_scaling": 1.0, "images_per_second": None, "data_wait_share": 0.0},
    {"kind": "train", "epoch": 1.0, "update": 20, "loss": 1.5, "accuracy": 50.0,
     "learning_rate": 0.05, "loss_scaling": 1.0, "images_per_second": 99.5,
     "data_wait_share": 0.25},
    {"kind": "validation", "update": 20, "epoch": 1, "weights": "ema", "images": 50,
     "loss": float("nan"), "top1": 40.0, "top5": 90.0, "skipped": 0, "checkpoint": ""})
"""Rows like those of a training."""

OPTIONS: Dict[str, Any] = {"model": "resnet18", "lr": 0.1, "epoch": 2, "keep_best": True,
                           "log_dir": None, "pipeline_splits": ["layer2", "layer3"]}


class LoggerSuite(Suite):
    """Checks a logger on synthetic trainings.

    A logger for a service must be tested offline, with `options` or with a test double.
    """

    @property
    def spec(self) -> LoggerSpec:
        """The record under test."""
        return self.used_registry.get_typed(LoggerSpec, self.name)

    def logger(self) -> Logger:
        """Return a new logger."""
        made = self.made()
        require(isinstance(made, Logger), f"the target returned {described(made)}")
        return made  # type: ignore[no-any-return]

    def record(self, folder: Path, rows: int = 0, restored: Optional[Path] = None,
               status: str = COMPLETED) -> None:
        """Record a whole training, or the remainder of one after `rows` rows."""
        logger = self.logger()
        logger.start(RunInfo(copy.deepcopy(OPTIONS), folder, rows, restored))
        for row in ROWS[rows:]:
            note = logger.row(dict(row))
            require(note is None or isinstance(note, str),
                    f"'row' returned {note!r}, expected None or a note")
        checkpoint = folder / "resnet18_shapes_1.pt"
        checkpoint.write_bytes(b"weights")
        logger.checkpoint(checkpoint, 1, 20)
        logger.best({"metric": "top1", "value": 40.0, "epoch": 1, "weights": "ema"})
        logger.finish(status, {"model": "resnet18", "epochs": 1, "loss": 1.5, "best": None})
        require(checkpoint.read_bytes() == b"weights", "it changed a checkpoint")

    def test_it_has_the_name_of_its_record(self) -> None:
        """The logger's `name`, for messages, is that of the record."""
        found = self.logger().name
        require(found == self.spec.name, f"its name is {found!r}, that of the record "
                f"{self.spec.name!r}")

    def test_records_a_whole_training(self) -> None:
        """Rows with unknown or non-finite values, and the end of a training, raise no exception."""
        for status in (COMPLETED, STOPPED):
            with TemporaryDirectory() as folder:
                self.record(Path(folder), status=status)

    def test_records_a_restored_training(self) -> None:
        """A training continues in the folder of the first one, from any of its rows."""
        with TemporaryDirectory() as folder:
            self.record(Path(folder))
            for rows in (1, len(ROWS), 0):
                self.record(Path(folder), rows, Path(folder, "resnet18_shapes_1.pt"))

    def test_a_training_may_fail_at_once(self) -> None:
        """A training may fail before any row, checkpoint or result."""
        with TemporaryDirectory() as folder:
            logger = self.logger()
            logger.start(RunInfo(copy.deepcopy(OPTIONS), Path(folder)))
            logger.finish(FAILED, {})

    def test_leaves_options_and_random_numbers_alone(self) -> None:
        """Recording changes neither the options nor the random numbers of the training."""
        import numpy
        import torch

        def states() -> List[str]:
            return [str(random.getstate()), str(numpy.random.get_state()),
                    str(torch.random.get_rng_state().tolist())]

        before = states()
        with TemporaryDirectory() as folder:
            run = RunInfo(copy.deepcopy(OPTIONS), Path(folder))
            logger = self.logger()
            logger.start(run)
            logger.row(dict(ROWS[0]))
            logger.finish(COMPLETED, {})
        require(run.options == OPTIONS, "it changed the options")
        require(states() == before, "it drew random numbers that the training shares")
