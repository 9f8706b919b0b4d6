"""Combines the errors of failed processes into one error."""

from __future__ import annotations

from typing import List, Optional, Sequence

from ipucnn.core import errors
from ipucnn.core.errors import IpucnnError
from ipucnn.inference.bulk.processes import Child

_MEMORY = ("the system kills processes when memory is short: use a smaller batch, or fewer "
           "'--instances'")


def failure_of(children: Sequence[Child],
               unmerged: Optional[IpucnnError] = None) -> Optional[IpucnnError]:
    """Return one error for all that failed, or None when nothing did.

    An error common to all processes is reported once, as by one process.

    Args:
        children: the processes.
        unmerged: the error of merging their predictions.
    """
    failed = [child for child in children if child.exit_code]
    if not failed:
        return unmerged
    further = [str(unmerged)] if unmerged else []
    failures = [child.failure for child in failed if child.failure and "kind" in child.failure]
    if len(failures) == len(children) and all(
            (other["message"], other["hint"]) == (failures[0]["message"], failures[0]["hint"])
            for other in failures):
        shared = failures[0]
        kind = getattr(errors, shared["kind"], IpucnnError)
        error: IpucnnError = kind(shared["message"], [shared["hint"], *further],
                                  shared["exit_code"])
        return error
    first, *others = failed
    return IpucnnError(_message(first), [
        *_hint(first), *(f"{_message(other)}: its log is {str(other.log)!r}" for other in others),
        *further])


def _message(child: Child) -> str:
    if child.failure:
        return f"instance {child.index}: {child.failure['message']}"
    return f"instance {child.index} {child.ending()}"


def _hint(child: Child) -> List[str]:
    """Return the lines of a hint, with the end of the log where that adds information."""
    parts: List[str] = []
    if child.failure and child.failure.get("hint"):
        parts.append(child.failure["hint"])
    if child.exit_code == -9:
        parts.append(_MEMORY)
    if child.failure and "kind" in child.failure:
        return ["; ".join([*parts, f"its log is {str(child.log)!r}"])]
    return ["; ".join([*parts, f"its log, {str(child.log)!r}, ends with:"]),
            *(f"  {line}" for line in child.tail().splitlines())]
