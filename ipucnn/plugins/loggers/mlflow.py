"""Records a training with MLflow, in a local folder or on a tracking server."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from ipucnn.core.documents import json_text
from ipucnn.core.files import expanded_path
from ipucnn.core.loggers import COMPLETED, FAILED, Logger, RunInfo
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LoggerSpec
from ipucnn.plugins.loggers._continued import Continued, kind_of, scalars
from ipucnn.plugins.loggers._pictures import LARGEST, heat_map, png
from ipucnn.plugins.loggers._sending import Sender

_STATUS = {COMPLETED: "FINISHED", FAILED: "FAILED"}
_SETTINGS = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""Newer versions refuse a folder unless it is allowed; and `Sender` tries again by itself, so
that the user is informed after the first attempt, not after minutes."""

_PARAMETER, _PARAMETERS = 500, 100
"""Characters of a parameter that every server accepts, and parameters of a request."""


@dataclass(frozen=True)
class MlflowOptions:
    """Options of the logger `mlflow`."""

    mlflow_uri: str = option(
        "", "Folder or address of the tracking server (default: MLFLOW_TRACKING_URI, or the folder "
        "'mlruns').", metavar="DIR|URL", machine=True)
    mlflow_experiment: str = option("ipucnn", "Experiment of the run.", metavar="NAME")
    mlflow_checkpoints: str = option(
        "last", "Which checkpoints are stored as artefacts: none, the last one at the end, or all.",
        choices=("none", "last", "all"))


class MlflowLogger(Logger):
    """Sends rows, pictures and checkpoints of a training to a run of MLflow, in the background.

    Args:
        options: of the logger.
    """

    name = "mlflow"

    def __init__(self, options: Optional[MlflowOptions] = None) -> None:
        self._options = options or MlflowOptions()
        self._checkpoint = ""
        self._client: Any = None

    def start(self, run: RunInfo) -> None:
        """Start a run, or continue that of a restored training; see `Logger.start`."""
        from mlflow.tracking import MlflowClient  # takes seconds, so not during the training

        uri = self._options.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI", "mlruns")
        if "://" not in uri and not uri.startswith(("file:", "databricks")):
            uri = expanded_path(uri).resolve().as_uri()
        self._state = Continued(self.name, run)
        self._sender = Sender(self.name)
        self._connect = partial(MlflowClient, tracking_uri=uri)
        self._title = Path(run.folder).name
        if not self._state.run_id:
            self._put(lambda: self._describe(run))

    def _put(self, record: Callable[[], Any]) -> Optional[str]:
        def sent() -> None:
            with _settings():
                self._begin()
                record()

        return self._sender.put(sent)

    @property
    def _run(self) -> str:
        return self._state.run_id

    def _begin(self) -> None:
        """Start the run; every record tries it until the server has responded."""
        self._client = self._client or self._connect()
        if self._run:
            return
        experiment = self._client.get_experiment_by_name(self._options.mlflow_experiment)
        number = experiment.experiment_id if experiment is not None else \
            self._client.create_experiment(self._options.mlflow_experiment)
        self._state.run_id = self._client.create_run(number, run_name=self._title).info.run_id
        self._state.save()

    def _describe(self, run: RunInfo) -> None:
        """Send the options and the model card."""
        from mlflow.entities import Param

        parameters = [Param(name, str(value)[:_PARAMETER]) for name, value in run.options.items()]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._run, params=parameters[first:first + _PARAMETERS])
        self._client.log_text(self._run, json_text(run.options, indent=2), "options.json")
        if run.card:
            self._client.log_text(self._run, json_text(run.card, indent=2), "model_card.json")

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Send the numbers of a row, named `train/loss` and the like; see `Logger.row`."""
        import time

        from mlflow.entities import Metric

        kind, update = kind_of(row), int(row.get("update", 0))
        if not self._state.is_new(kind, update):
            return None
        at = int(1000 * time.time())
        metrics = [Metric(name, value, at, update) for name, value in scalars(row).items()]

        def send() -> None:
            self._client.log_batch(self._run, metrics=metrics)
            self._state.recorded(kind, update)

        return self._put(send)

    def confusion(self, figures: Mapping[str, Any], confusion: Sequence[Sequence[int]],
                  names: Sequence[str]) -> Optional[str]:
        """Send the confusion matrix, as a picture and as numbers; see `Logger.confusion`."""
        kind, update = kind_of(figures), int(figures["update"])
        if len(confusion) > LARGEST or not self._state.is_new("confusion_" + kind, update):
            return None
        place = f"confusion/{kind}_{update:08d}"

        def send() -> None:
            self._artefact(png(heat_map(confusion)), place + ".png")
            self._client.log_text(self._run, json_text(
                {"classes": list(names), "images": confusion}), place + ".json")
            self._state.recorded("confusion_" + kind, update)

        return self._put(send)

    def samples(self, images: Any, names: Sequence[str], update: int) -> Optional[str]:  # noqa: ARG002
        """Send training images as PNG files; see `Logger.samples`."""
        def send() -> None:
            for number, (image, name) in enumerate(zip(images, names)):
                plain = "".join(letter if letter.isalnum() else "_" for letter in name)
                self._artefact(png(image), f"samples/{number:02d}_{plain}.png")

        return self._put(send)

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:  # noqa: ARG002
        """Store a checkpoint as an artefact, if enabled; see `Logger.checkpoint`."""
        self._checkpoint = str(path)
        if self._options.mlflow_checkpoints == "all":
            self._put(lambda: self._store(str(path)))

    def best(self, figures: Mapping[str, Any]) -> None:
        """Tag the run with the best validation; see `Logger.best`."""
        for name, value in figures.items():
            self._put(lambda name=name, value=value: self._client.set_tag(  # type: ignore[misc]
                self._run, f"best.{name}", str(value)))

    def finish(self, status: str, result: Mapping[str, Any]) -> Optional[str]:  # noqa: ARG002
        """Store the last checkpoint and end the run; see `Logger.finish`."""
        if self._checkpoint and self._options.mlflow_checkpoints == "last":
            self._put(lambda: self._store(self._checkpoint))
        self._put(lambda: self._client.set_terminated(
            self._run, _STATUS.get(status, "KILLED")))
        return self._sender.close()

    def _store(self, path: str) -> None:
        if os.path.isfile(path):  # `--keep-last` may have removed it
            self._client.log_artifact(self._run, path, "checkpoints")

    def _artefact(self, content: bytes, place: str) -> None:
        from tempfile import TemporaryDirectory

        folder, _, name = place.rpartition("/")
        with TemporaryDirectory() as made:
            Path(made, name).write_bytes(content)
            self._client.log_artifact(self._run, str(Path(made, name)), folder)


@contextmanager
def _settings() -> Iterator[None]:
    """Set variables of MLflow, unless the user has, for the duration of a call."""
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@hookimpl
def ipucnn_loggers() -> Iterable[LoggerSpec]:
    """Return the record of the logger `mlflow`."""
    found: List[LoggerSpec] = [LoggerSpec(
        name="mlflow", summary="MLflow, in a folder or on a server",
        target="ipucnn.plugins.loggers.mlflow:MlflowLogger", options=MlflowOptions,
        requires=(Requirement("mlflow", "pip install 'ipucnn[mlflow]'"),))]
    return found
