"""Translates PopTorch's errors into one line with a remedy."""

from __future__ import annotations

import logging
from typing import Any, ContextManager

import poptorch

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends._ipu.errors import HARDWARE_FAILED, reset_needed, translated

log = logging.getLogger("ipucnn.poptorch")


def device_errors(doing: str, plan: ExecutionPlan) -> ContextManager[None]:
    """Return a context that converts exceptions of PopTorch to an `IpucnnError`.

    Args:
        doing: the failed operation on the model: "be compiled", "run" ...
        plan: the plan, whose values the hint names.
    """
    return translated(doing, (poptorch.Error,), lambda error: _remedy(error, plan))


def release(executor: Any) -> None:
    """Release the IPUs and the program; an error is only logged, as its cause was reported."""
    try:
        executor.destroy()
    except (poptorch.Error, AssertionError) as error:
        log.debug("the program could not be released: %s", error)


def _remedy(error: BaseException, plan: ExecutionPlan) -> str:
    text = f"{getattr(error, 'type', '')} {getattr(error, 'message', '') or error}".lower()
    if "out of memory" in text or "memory_allocation" in text:
        training = ", '--recompute-mode auto', '--offload-optimizer'" if plan.training else ""
        return (f"try a smaller '--batch-size' than {plan.micro_batch}, more pipeline splits, a "
                f"lower '--available-memory-proportion', '--half-partial'{training}, or "
                "'--precision half'")
    if "failed to acquire" in text:
        return ("'gc-monitor' shows who uses the IPUs; with POPTORCH_WAIT_FOR_IPU=1 the run waits "
                "for them")
    if "failed to attach" in text:  # on demand, which does not wait
        return ("'gc-monitor' shows who uses the IPUs; with POPTORCH_WAIT_FOR_IPU=1 and without "
                "'--connection-type ondemand' the run waits for them")
    if isinstance(error, poptorch.RecoverableError):
        return reset_needed(getattr(error, "recovery_action", ""))
    if isinstance(error, poptorch.UnrecoverableError):
        return HARDWARE_FAILED
    return "POPTORCH_LOG_LEVEL=INFO shows what led to it"
