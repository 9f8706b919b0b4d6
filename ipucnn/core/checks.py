"""The installation checks that `ipucnn doctor` reports.

A record's `checks` names a function that returns them.
"""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""The statuses of a check."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: `ok`, `warning` or `problem`.
        detail: what was found.
        remedy: the command or step that fixes it; empty when there is nothing to fix.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""
