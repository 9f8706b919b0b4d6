"""Records a training with Weights & Biases, online or in files to be sent later."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from ipucnn.core.errors import IpucnnError
from ipucnn.core.loggers import COMPLETED, Logger, RunInfo
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LoggerSpec
from ipucnn.plugins.loggers._continued import Continued, kind_of
from ipucnn.plugins.loggers._pictures import LARGEST, heat_map, worst
from ipucnn.plugins.loggers._sending import Sender

RUN_FILE = "wandb-run.txt"
"""File in the log folder with the id of the run, as earlier versions wrote it."""

PATIENCE = 600.0
"""Seconds to wait for the service at the end of a training, for example for a checkpoint."""

BINS = 64
"""Of a histogram of weights."""


@dataclass(frozen=True)
class WandbOptions:
    """Options of the logger `wandb`."""

    wandb_project: str = option("ipucnn", "Project of the run.", metavar="NAME")
    wandb_mode: Optional[str] = option(
        None, "Send metrics at once ('online') or write files for 'wandb sync' ('offline') "
        "(default: online, or offline if the service cannot be reached).", choices=("online",
        "offline"),
        machine=True)
    wandb_weight_histogram: bool = option(
        False, "Record histograms of the weights with each checkpoint.")
    wandb_checkpoints: str = option(
        "last", "Which checkpoints are stored as artefacts: none, the last one at the end, or all.",
        choices=("none", "last", "all"))


class WandbLogger(Logger):
    """Sends rows, the best validation and the status of a training to a run of wandb.

    Args:
        options: of the logger.
    """

    name = "wandb"

    def __init__(self, options: Optional[WandbOptions] = None) -> None:
        self._options = options or WandbOptions()
        self._note = self._checkpoint = ""
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        """Start a run, or continue that of a restored training; see `Logger.start`.

        Raises:
            IpucnnError: the run cannot be started with `--wandb-mode online`.
        """
        import wandb

        self._state = Continued(self.name, run)
        place = run.folder / RUN_FILE
        known = self._state.run_id or (
            place.read_text().strip() if run.restored and place.is_file() else "") or None
        settings: Dict[str, Any] = {
            "project": self._options.wandb_project, "dir": str(run.folder), "config": run.options,
            "id": known, "resume": "allow" if known else None, "reinit": True,
            "settings": wandb.Settings(console="off")}
        mode: Any = self._options.wandb_mode
        try:
            self._run = wandb.init(**settings, mode=mode)
        except Exception as error:  # the type of network errors depends on the version
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if mode == "online":
                raise IpucnnError(f"wandb cannot be reached: {cause}",
                                  "'wandb login' stores a key; '--wandb-mode offline' keeps the "
                                  "metrics in files") from error
            self._note = (f"wandb is offline: {cause}; 'wandb sync' sends the metrics in "
                          f"'{run.folder / 'wandb'}' later")
            self._run = wandb.init(**settings, mode="offline")
        self._state.run_id = self._run.id
        self._state.save()
        if run.card and not run.restored:
            self._run.config.update({"model_card": run.card})
        # a restored training records rows again: their update orders them, not their number
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")
        self._sender = Sender(self.name)

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Send the numbers of a row, named `train/loss` and the like; see `Logger.row`."""
        kind = "/".join(str(row[name]) for name in ("kind", "weights") if row.get(name))
        update = int(row.get("update", 0))
        if not self._state.is_new(kind_of(row), update):
            return None
        values = {f"{kind}/{name}": value for name, value in row.items()
                  if isinstance(value, (int, float)) and name != "update"}

        def send() -> None:
            self._run.log({**values, "update": update})
            self._state.recorded(kind_of(row), update)

        failing = self._sender.put(send)
        note, self._note = self._note, ""
        return note or failing

    def confusion(self, figures: Mapping[str, Any], confusion: Sequence[Sequence[int]],
                  names: Sequence[str]) -> Optional[str]:
        """Send the confusion matrix and a table of the mistakes; see `Logger.confusion`."""
        kind, update = kind_of(figures), int(figures["update"])
        if len(confusion) > LARGEST or not self._state.is_new("confusion_" + kind, update):
            return None
        import wandb

        def send() -> None:
            self._run.log({
                "update": update, f"{kind}/confusion": wandb.Image(heat_map(confusion)),
                f"{kind}/mistakes": wandb.Table(["class", "taken for", "images"], [
                    list(row) for row in worst(confusion, names)])})
            self._state.recorded("confusion_" + kind, update)

        return self._sender.put(send)

    def samples(self, images: Any, names: Sequence[str], update: int) -> Optional[str]:
        """Send training images; see `Logger.samples`."""
        import wandb

        return self._sender.put(lambda: self._run.log({"update": update, "samples": [
            wandb.Image(image, caption=name) for image, name in zip(images, names)]}))

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:
        """Send a checkpoint and histograms, if they are selected; see `Logger.checkpoint`."""
        self._checkpoint = str(path)
        if self._options.wandb_checkpoints == "all":
            self._sender.put(lambda: self._store(str(path)))
        if not self._options.wandb_weight_histogram:
            return
        import wandb

        from ipucnn.models.weights_file import read_weights

        weights = read_weights(path)  # immediately, because the next checkpoint may remove the file
        self._sender.put(lambda: self._run.log({"update": update, "epoch": epoch, **{
            f"weights/{name}": wandb.Histogram(tensor.float().flatten().tolist(), num_bins=BINS)
            for name, tensor in weights.items()
            if tensor.is_floating_point() and tensor.numel()}}))

    def best(self, figures: Mapping[str, Any]) -> None:
        """Put the best validation into the run's summary; see `Logger.best`."""
        best = {f"best/{name}": value for name, value in figures.items()}
        self._sender.put(lambda: self._run.summary.update(best))

    def finish(self, status: str, result: Mapping[str, Any]) -> Optional[str]:
        """Store the last checkpoint and end the run; see `Logger.finish`."""
        if self._options.wandb_checkpoints == "last" and self._checkpoint:
            self._sender.put(lambda: self._store(self._checkpoint))
        final = {"status": status, **{
            name: result[name] for name in ("epochs", "updates", "images_per_second",
                                            "compute_images_per_second") if name in result}}
        self._sender.put(lambda: self._run.summary.update(final))
        self._sender.put(lambda: self._run.finish(exit_code=0 if status == COMPLETED else 1))
        return self._sender.close(PATIENCE)

    def _store(self, path: str) -> None:
        import wandb

        if os.path.isfile(path):  # `--keep-last` may have removed it
            made = wandb.Artifact(f"checkpoint-{self._run.id}", type="model")
            made.add_file(path)
            self._run.log_artifact(made)


@hookimpl
def ipucnn_loggers() -> Iterable[LoggerSpec]:
    """Return the record of the logger `wandb`."""
    found: List[LoggerSpec] = [LoggerSpec(
        name="wandb", summary="Weights & Biases, online or offline",
        target="ipucnn.plugins.loggers.wandb:WandbLogger", options=WandbOptions,
        requires=(Requirement("wandb", "pip install 'ipucnn[wandb]'"),))]
    return found
