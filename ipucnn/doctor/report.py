"""The report of `ipucnn doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Tuple

from ipucnn.core.checks import OK, PROBLEM, Check
from ipucnn.core.showing import Blocks, Shown, Table


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """The results of all checks."""

    checks: Tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check found a problem; warnings do not count."""
        return all(check.status != PROBLEM for check in self.checks)

    def as_dict(self) -> Dict[str, Any]:
        """Return the report as plain types."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def blocks(self) -> Blocks:
        """Return the checks, and how to fix what is not in order; see `Shown`."""
        return [Table(("check", "status", "detail"),
                      [(check.name, check.status, check.detail) for check in self.checks]),
                [(check.name, check.remedy) for check in self.checks if check.status != OK]]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per check."""
        return [asdict(check) for check in self.checks]
