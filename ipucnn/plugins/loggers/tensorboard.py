"""Records a training in event files for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from ipucnn.core.loggers import Logger, RunInfo
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LoggerSpec
from ipucnn.plugins.loggers._continued import Continued, kind_of, scalars
from ipucnn.plugins.loggers._pictures import LARGEST, heat_map, worst
from ipucnn.plugins.loggers._sending import Sender

FOLDER = "tensorboard"
"""Folder of the event files, in the log folder."""

_ROOM = 1 << 16
"""Bytes that must fit on the disk before a record is written."""


class TensorBoardLogger(Logger):
    """Writes scalars, options, pictures and texts; `tensorboard --logdir logs` shows them."""

    name = "tensorboard"

    def start(self, run: RunInfo) -> None:
        """Open an event file, and write the options; see `Logger.start`."""
        self._state = Continued(self.name, run)
        self._folder = Path(run.folder) / FOLDER
        # readers ignore records of an interrupted training after the checkpoint
        self._writer: Any = self._opened(run.update + 1 if run.restored is not None else None)
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

        def write(writer: Any) -> None:
            for name, value in scalars(row).items():
                writer.add_scalar(name, value, update)

        return self._put(write, kind, update)

    def confusion(self, figures: Mapping[str, Any], confusion: Sequence[Sequence[int]],
                  names: Sequence[str]) -> Optional[str]:
        """Draw the confusion matrix and list the mistakes; see `Logger.confusion`."""
        kind, update = "confusion_" + kind_of(figures), int(figures["update"])
        if len(confusion) > LARGEST or not self._state.is_new(kind, update):
            return None

        def write(writer: Any) -> None:
            writer.add_image(kind_of(figures) + "/confusion", heat_map(confusion), update,
                             dataformats="HWC")
            writer.add_text(kind_of(figures) + "/mistakes", _rows(
                ("class", "taken for", "images"), worst(confusion, names)), update)

        return self._put(write, kind, update)

    def samples(self, images: Any, names: Sequence[str], update: int) -> Optional[str]:
        """Show training images; see `Logger.samples`."""
        def write(writer: Any) -> None:
            writer.add_images("samples", images, update, dataformats="NHWC")
            writer.add_text("samples/classes", ", ".join(names), update)

        return self._put(write)

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:
        """Write the path of a checkpoint; see `Logger.checkpoint`."""
        if self._state.is_new("checkpoint", update):
            self._text("checkpoints", f"epoch {epoch}: `{path}`", update, "checkpoint")

    def finish(self, status: str, result: Mapping[str, Any]) -> Optional[str]:
        """Write the status, and close the file; see `Logger.finish`."""
        self._text("status", status, int(result.get("updates") or 0))
        self._put(lambda writer: writer.close())
        return self._sender.close()

    def _text(self, name: str, text: str, update: int, kind: str = "") -> None:
        self._put(lambda writer: writer.add_text(name, text, update), kind, update)

    def _put(self, write: Callable[[Any], Any], kind: str = "", update: int = 0) -> Optional[str]:
        """Write to the event file in the background; see `Sender.put`.

        A writer whose disk was full cannot write any more: another one with a further event file
        replaces it, and the record is written again.

        Args:
            write: adds the record to a writer.
            kind: see `Continued.recorded`; empty for records that may be repeated.
            update: the number of weight updates.
        """
        def record() -> None:
            with TemporaryFile(dir=str(self._folder)) as probe:  # fails before the writer does
                probe.write(bytes(_ROOM))
            if self._writer is None:
                self._writer = self._opened()
            try:
                write(self._writer)
                self._writer.flush()
            except BaseException:
                self._writer = None
                raise
            if kind:
                self._state.recorded(kind, update)

        return self._sender.put(record)

    def _opened(self, purge_step: Optional[int] = None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=purge_step)


def _table(values: Mapping[str, Any]) -> str:
    return _rows(("name", "value"), [(name, value) for name, value in values.items()])


def _rows(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines: List[Sequence[Any]] = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |"
                     for line in lines)


@hookimpl
def ipucnn_loggers() -> Iterable[LoggerSpec]:
    """Return the record of the logger `tensorboard`."""
    found: List[LoggerSpec] = [LoggerSpec(
        name="tensorboard", summary="event files for TensorBoard",
        target="ipucnn.plugins.loggers.tensorboard:TensorBoardLogger",
        requires=(Requirement("tensorboard", "pip install 'ipucnn[tensorboard]'"),))]
    return found
