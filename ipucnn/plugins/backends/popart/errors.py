"""What PopART and Poplar raise, as one line with what to try."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import popart

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.popart.sdk import first_line

RAISED = (popart.popart_exception, popart.poplibs_exception, popart.poplar_exception)
"""The three families of exceptions; all others derive from one of them."""


@contextmanager
def device_errors(doing: str, plan: ExecutionPlan) -> Iterator[None]:
    """Turn what PopART raises into an `IpucnnError`.

    Args:
        doing: what the model was to do: "be compiled", "run" ...
        plan: whose values the hint names.
    """
    try:
        yield
    except RAISED as error:
        raise IpucnnError(f"the model cannot {doing} on the IPU: {first_line(error)}",
                          _what_to_try(error, plan)) from error


def _what_to_try(error: Exception, plan: ExecutionPlan) -> str:
    told = str(error).lower()
    if isinstance(error, popart.OutOfMemoryException) or "out of memory" in told:
        training = ", '--enable-recompute'" if plan.training else ""
        splits = "" if plan.training else ", pipeline splits"
        half = "" if plan.half else ", '--precision half'"
        return (f"try a smaller '--batch-size' than {plan.micro_batch}{splits}, a lower "
                f"'--available-memory-proportion', '--half-partial'{training}{half}")
    if "failed to acquire" in told or "failed to attach" in told:
        return "'gc-monitor' shows who uses the IPUs; run again when there are free ones"
    if isinstance(error, popart.poplar_recoverable_runtime_error):
        action = getattr(error, "recoveryAction", "")
        return f"the IPUs need a reset ({action}): see 'gc-reset', then run again"
    if isinstance(error, popart.poplar_unrecoverable_runtime_error):
        return "the IPU hardware failed: 'gc-monitor' and the system's log say more"
    return "POPART_LOG_LEVEL=INFO and POPLAR_LOG_LEVEL=INFO show what led to it"
