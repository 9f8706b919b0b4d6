"""Combines the errors of failed processes into one error."""

from __future__ import annotations

from typing import List, Optional, Sequence

from ipucnn.core import errors
from ipucnn.core.errors import IpucnnError
from ipucnn.core.names import printable_lines
from ipucnn.inference.bulk.processes import Child

_MEMORY = ("the system kills so when memory is short: use a smaller batch, or fewer '--instances'",)


def failure_of(children: Sequence[Child]) -> Optional[IpucnnError]:
    """Return one error for all failed processes, or None when none failed.

    An error common to all of them is reported once, as by one process.
    """
    failed = [child for child in children if child.exit_code]
    if not failed:
        return None
    failures = [child.failure for child in failed if child.failure and "kind" in child.failure]
    if len(failures) == len(children) and all(
            (other["message"], other["hint"]) == (failures[0]["message"], failures[0]["hint"])
            for other in failures):
        shared = failures[0]
        kind = getattr(errors, shared["kind"], IpucnnError)
        error: IpucnnError = kind(shared["message"], shared["hint"], shared["exit_code"])
        return error
    first, *others = failed
    hints = [_hint(first), *(f"{_message(other)}: its log is {str(other.log)!r}"
                             for other in others)]
    found = IpucnnError(_message(first))
    found.hint = printable_lines("\n".join(filter(None, hints)))  # an error escapes line breaks
    return found


def _message(child: Child) -> str:
    if child.failure:
        return f"instance {child.index}: {child.failure['message']}"
    return f"instance {child.index} {child.ending()}"


def _hint(child: Child) -> str:
    """Return a hint, with the end of the log where that adds information."""
    parts: List[str] = []
    if child.failure and child.failure.get("hint"):
        parts.append(child.failure["hint"])
    if child.exit_code == -9:
        parts += _MEMORY
    if child.failure and "kind" in child.failure:
        parts.append(f"its log is {str(child.log)!r}")
    else:
        lines = "".join(f"\n  {line}" for line in child.tail().splitlines())
        parts.append(f"its log, {str(child.log)!r}, ends with:{lines}")
    return "; ".join(parts)
