"""Records a training with Weights & Biases, online or in files to be sent later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ipucnn.core.errors import IpucnnError
from ipucnn.core.loggers import COMPLETED, Logger, RunInfo
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LoggerSpec, Requirement

RUN_FILE = "wandb-run.txt"
"""File in the log folder with the id of the run, which a restored training continues."""

BINS = 64
"""Of a histogram of weights."""


@dataclass(frozen=True)
class WandbOptions:
    """Options of the logger `wandb`."""

    wandb_project: str = option("ipucnn", "Project of the run.", metavar="NAME")
    wandb_mode: Optional[str] = option(
        None, "Send metrics as they come ('online') or keep them in files for 'wandb sync' "
        "(default: online, or offline where that is not possible).", choices=("online", "offline"),
        machine=True)
    wandb_weight_histogram: bool = option(
        False, "Record histograms of the weights with each checkpoint.")


class WandbLogger(Logger):
    """Sends rows, the best validation and the status of a training to a run of wandb.

    Args:
        options: of the logger.
    """

    name = "wandb"

    def __init__(self, options: Optional[WandbOptions] = None) -> None:
        self._options = options or WandbOptions()
        self._note = ""

    def start(self, run: RunInfo) -> None:
        """Begin a run, or continue that of a restored training; see `Logger.start`.

        Raises:
            IpucnnError: `--wandb-mode online`, and it cannot be begun.
        """
        import wandb

        place = run.folder / RUN_FILE
        known = place.read_text().strip() if run.restored and place.is_file() else None
        settings: Dict[str, Any] = {
            "project": self._options.wandb_project, "dir": str(run.folder), "config": run.options,
            "id": known, "resume": "allow" if known else None, "reinit": True,
            "settings": wandb.Settings(console="off")}
        mode = self._options.wandb_mode
        try:
            self._run = wandb.init(**settings, mode=mode)
        except Exception as error:  # the network, or no key: each version has its own
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if mode == "online":
                raise IpucnnError(f"wandb cannot be reached: {cause}",
                                  "'wandb login' stores a key; '--wandb-mode offline' keeps the "
                                  "metrics in files") from error
            self._note = (f"wandb is offline: {cause}; 'wandb sync' sends the metrics in "
                          f"'{run.folder / 'wandb'}' later")
            self._run = wandb.init(**settings, mode="offline")
        place.write_text(f"{self._run.id}\n")
        # a restored training records rows again: their update orders them, not their number
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Send the numbers of a row, named `train/loss` and the like; see `Logger.row`."""
        kind = "/".join(str(row[name]) for name in ("kind", "weights") if row.get(name))
        values = {f"{kind}/{name}": value for name, value in row.items()
                  if isinstance(value, (int, float)) and name != "update"}
        self._run.log({**values, "update": row.get("update", 0)})
        note, self._note = self._note, ""
        return note or None

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:
        """Send histograms of the weights, if they are selected; see `Logger.checkpoint`."""
        if not self._options.wandb_weight_histogram:
            return
        import wandb

        from ipucnn.models.weights_file import read_weights

        self._run.log({"update": update, "epoch": epoch, **{
            f"weights/{name}": wandb.Histogram(tensor.float().flatten().tolist(), num_bins=BINS)
            for name, tensor in read_weights(path).items()
            if tensor.is_floating_point() and tensor.numel()}})

    def best(self, figures: Mapping[str, Any]) -> None:
        """Put the best validation into the run's summary; see `Logger.best`."""
        self._run.summary.update({f"best/{name}": value for name, value in figures.items()})

    def finish(self, status: str, result: Mapping[str, Any]) -> None:
        """End the run; see `Logger.finish`."""
        self._run.summary.update({"status": status, **{
            name: result[name] for name in ("epochs", "updates", "images_per_second",
                                            "compute_images_per_second") if name in result}})
        self._run.finish(exit_code=0 if status == COMPLETED else 1)


@hookimpl
def ipucnn_loggers() -> Iterable[LoggerSpec]:
    """Return wandb."""
    found: List[LoggerSpec] = [LoggerSpec(
        name="wandb", summary="Weights & Biases, online or offline",
        target="ipucnn.plugins.loggers.wandb:WandbLogger", options=WandbOptions,
        requires=(Requirement("wandb", "pip install 'ipucnn[wandb]'"),))]
    return found
