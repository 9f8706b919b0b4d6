"""Translates errors of PopART and Poplar into one line with a remedy."""

from __future__ import annotations

from typing import ContextManager

import popart

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends._ipu.errors import HARDWARE_FAILED, reset_needed, translated

RAISED = (popart.popart_exception, popart.poplibs_exception, popart.poplar_exception)
"""The three families of exceptions; all others derive from one of them."""


def device_errors(doing: str, plan: ExecutionPlan) -> ContextManager[None]:
    """Return a context that converts exceptions of PopART to an `IpucnnError`.

    Args:
        doing: the failed operation on the model: "be compiled", "run" ...
        plan: the plan, whose values the hint names.
    """
    return translated(doing, RAISED, lambda error: _remedy(error, plan),
                      callers=__name__.rpartition(".")[0])


def _remedy(error: BaseException, plan: ExecutionPlan) -> str:
    text = str(error).lower()
    if isinstance(error, popart.OutOfMemoryException) or "out of memory" in text:
        training = ", '--enable-recompute'" if plan.training else ""
        splits = "" if plan.training else ", pipeline splits"
        half = "" if plan.half else ", '--precision half'"
        return (f"try a smaller '--batch-size' than {plan.micro_batch}{splits}, a lower "
                f"'--available-memory-proportion', '--half-partial'{training}{half}")
    if "failed to acquire" in text or "failed to attach" in text:
        return "'gc-monitor' shows who uses the IPUs; run again when there are free ones"
    if isinstance(error, popart.poplar_recoverable_runtime_error):
        action = getattr(error, "recoveryAction", "")
        return reset_needed(getattr(action, "name", action))
    if isinstance(error, popart.poplar_unrecoverable_runtime_error):
        return HARDWARE_FAILED
    return "POPART_LOG_LEVEL=INFO and POPLAR_LOG_LEVEL=INFO show what led to it"
