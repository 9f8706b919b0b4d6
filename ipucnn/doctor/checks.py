"""What an examination finds: checks and their report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Tuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: `ok`, `warning` or `problem`.
        detail: what was found.
        remedy: the command or step that mends it; empty when there is nothing to mend.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """All findings of an examination."""

    checks: Tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check found a problem; warnings do not count."""
        return all(check.status != PROBLEM for check in self.checks)

    def as_dict(self) -> Dict[str, Any]:
        """Return it as plain types."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}
