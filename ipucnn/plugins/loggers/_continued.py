"""Stores in the log folder the run of a logger and the position up to which it has recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

from ipucnn.core.documents import LARGEST_JSON, json_text, parsed_json
from ipucnn.core.files import read_limited, write_text
from ipucnn.core.loggers import RunInfo


def kind_of(row: Mapping[str, Any]) -> str:
    """Return the name of a row's series: `train`, `validation` or `validation_ema`."""
    weights = row.get("weights")
    return f"{row['kind']}_{weights}" if weights not in (None, "", "raw") else str(row["kind"])


def scalars(row: Mapping[str, Any]) -> Dict[str, float]:
    """Return the numbers of a row by name (`train/loss`); `update` is their step."""
    kind = kind_of(row)
    return {f"{kind}/{name}": float(value) for name, value in row.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            and name != "update"}


class Continued:
    """The state of a logger in a log folder.

    A restored training computes the rows after its checkpoint again; rows that were already
    recorded are not recorded twice.

    Args:
        name: the logger; the file is `<name>-run.json`.
        run: the training.

    Attributes:
        run_id: of the run in the service; empty for a new one.
    """

    def __init__(self, name: str, run: RunInfo) -> None:
        self._path = Path(run.folder) / f"{name}-run.json"
        known: Dict[str, Any] = {}
        last: Dict[str, int] = {}
        if run.restored is not None:
            try:
                known = parsed_json(read_limited(self._path, LARGEST_JSON))
                last = {str(kind): int(update) for kind, update in known.get("last", {}).items()}
            except (OSError, ValueError, AttributeError, TypeError):  # another folder, or damaged
                known, last = {}, {}
        self.run_id: str = str(known.get("run", ""))
        self._last = last

    def back_to(self, update: int) -> None:
        """Discard the state after an update, whose records the logger has removed."""
        self._last = {kind: min(last, update) for kind, last in self._last.items()}

    def is_new(self, kind: str, update: int) -> bool:
        """Return whether no record of a kind exists for this update or a later one."""
        return update > self._last.get(kind, -1)

    def recorded(self, kind: str, update: int) -> None:
        """Store that a record of a kind was written."""
        self._last[kind] = update
        self.save()

    def save(self) -> None:
        """Write the state."""
        write_text(str(self._path), json_text({"run": self.run_id, "last": self._last}))
