"""The logger; imported when a training begins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, Optional

from ipucnn.plugin import Logger, RunInfo

if TYPE_CHECKING:
    from pathlib import Path

    from ipucnn_frozen_logger.options import LoggerOptions


class FrozenLoggerLogger(Logger):
    """Writes each row of metrics as a line of JSON."""

    name = "frozen-logger"

    def __init__(self, options: LoggerOptions) -> None:
        self._file_name = options.frozen_logger_file
        self._path: Optional[Path] = None

    def start(self, run: RunInfo) -> None:
        """Begin, and keep the first `run.rows` rows of a training that is restored."""
        self._path = run.folder / self._file_name
        kept = []
        if run.rows and self._path.exists():
            kept = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:run.rows]
        self._path.write_text("".join(kept), encoding="utf-8")

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Append a row; return a note if that is not possible."""
        if self._path is None:
            return "a row came before the training began"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            return f"cannot write '{self._path}': {error.strerror}"
        return None
