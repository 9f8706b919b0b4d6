"""Records a training in event files for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from ipucnn.core.loggers import Logger, RunInfo
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LoggerSpec
from ipucnn.plugins.loggers._continued import Continued, kind_of, scalars
from ipucnn.plugins.loggers._pictures import LARGEST, heat_map, worst
from ipucnn.plugins.loggers._sending import Sender

FOLDER = "tensorboard"
"""Folder of the event files, in the log folder."""


class TensorBoardLogger(Logger):
    """Writes scalars, options, pictures and texts; `tensorboard --logdir logs` shows them."""

    name = "tensorboard"

    def start(self, run: RunInfo) -> None:
        """Open an event file, and begin with the options; see `Logger.start`."""
        from torch.utils.tensorboard import SummaryWriter

        self._state = Continued(self.name, run)
        # readers leave out what an interrupted training wrote beyond the checkpoint
        self._writer = SummaryWriter(
            str(Path(run.folder) / FOLDER),
            purge_step=run.update + 1 if run.restored is not None else None)
        self._state.back_to(run.update)
        self._sender = Sender(self.name)
        if run.restored is None:
            self._text("options", _table(run.options), 0)
            if run.card:
                self._text("model card", _table(run.card), 0)

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Write the numbers of a row, named `train/loss` and the like; see `Logger.row`."""
        kind, update = kind_of(row), int(row.get("update", 0))
        if not self._state.is_new(kind, update):
            return None

        def write() -> None:
            for name, value in scalars(row).items():
                self._writer.add_scalar(name, value, update)
            self._writer.flush()
            self._state.recorded(kind, update)

        return self._sender.put(write)

    def confusion(self, figures: Mapping[str, Any], confusion: Sequence[Sequence[int]],
                  names: Sequence[str]) -> Optional[str]:
        """Draw the confusion matrix and list the mistakes; see `Logger.confusion`."""
        kind, update = "confusion_" + kind_of(figures), int(figures["update"])
        if len(confusion) > LARGEST or not self._state.is_new(kind, update):
            return None

        def write() -> None:
            self._writer.add_image(kind_of(figures) + "/confusion", heat_map(confusion), update,
                                   dataformats="HWC")
            self._writer.add_text(kind_of(figures) + "/mistakes", _rows(
                ("class", "taken for", "images"), worst(confusion, names)), update)
            self._writer.flush()
            self._state.recorded(kind, update)

        return self._sender.put(write)

    def samples(self, images: Any, names: Sequence[str], update: int) -> Optional[str]:
        """Show training images; see `Logger.samples`."""
        def write() -> None:
            self._writer.add_images("samples", images, update, dataformats="NHWC")
            self._writer.add_text("samples/classes", ", ".join(names), update)

        return self._sender.put(write)

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:
        """Note where a checkpoint is; event files hold none. See `Logger.checkpoint`."""
        if self._state.is_new("checkpoint", update):
            self._text("checkpoints", f"epoch {epoch}: `{path}`", update)
            self._sender.put(lambda: self._state.recorded("checkpoint", update))

    def finish(self, status: str, result: Mapping[str, Any]) -> Optional[str]:
        """Write the status, and close the file; see `Logger.finish`."""
        self._text("status", status, int(result.get("updates") or 0))
        self._sender.put(self._writer.close)
        return self._sender.close()

    def _text(self, name: str, text: str, update: int) -> None:
        self._sender.put(lambda: self._writer.add_text(name, text, update))


def _table(values: Mapping[str, Any]) -> str:
    return _rows(("name", "value"), [(name, value) for name, value in values.items()])


def _rows(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines: List[Sequence[Any]] = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |"
                     for line in lines)


@hookimpl
def ipucnn_loggers() -> Iterable[LoggerSpec]:
    """Return tensorboard."""
    found: List[LoggerSpec] = [LoggerSpec(
        name="tensorboard", summary="event files for TensorBoard",
        target="ipucnn.plugins.loggers.tensorboard:TensorBoardLogger",
        requires=(Requirement("tensorboard", "pip install 'ipucnn[tensorboard]'"),))]
    return found
