"""The report of `ipucnn doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Tuple

from ipucnn.core.checks import PROBLEM, Check


@dataclass(frozen=True)
class Report:
    """The results of all checks."""

    checks: Tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check found a problem; warnings do not count."""
        return all(check.status != PROBLEM for check in self.checks)

    def as_dict(self) -> Dict[str, Any]:
        """Return the report as plain types."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}
