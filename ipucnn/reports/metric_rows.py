"""Rows of metrics in memory, of which a long training writes millions."""

from __future__ import annotations

from typing import Any, Dict, List

LARGEST = 1e300
"""Values beyond it, and those that are not finite, are not drawn."""

MOST = 10_000
"""Maximum number of rows for a picture that is drawn every second."""


class MetricRows(List[Dict[str, Any]]):
    """Rows of metrics in their order, from which some are left out if there are very many.

    All validations and the last row of the training are kept. Of its other rows, every second one
    is left out whenever there are more rows than the maximum.

    Args:
        most: the maximum; twice the number of the rows that are always kept if that is more.
    """

    def __init__(self, most: int = MOST) -> None:
        super().__init__()
        self._most = self._limit = most

    def add(self, row: Dict[str, Any]) -> None:
        """Append a row."""
        self.append(row)
        if len(self) <= self._limit:
            return
        trained = [place for place, one in enumerate(self) if one.get("kind") == "train"]
        left_out = {*trained[-2::-2]}
        self._limit = max(self._most, 2 * (len(self) - len(trained)))
        self[:] = [one for place, one in enumerate(self) if place not in left_out]
