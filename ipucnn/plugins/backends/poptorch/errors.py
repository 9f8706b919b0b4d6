"""What PopTorch raises, as one line with what to try."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import Any, Iterator

import poptorch

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.plan import ExecutionPlan

log = logging.getLogger("ipucnn.poptorch")


@contextmanager
def device_errors(doing: str, plan: ExecutionPlan) -> Iterator[None]:
    """Turn what PopTorch raises into an `IpucnnError`.

    Args:
        doing: what the model was to do: "be compiled", "run" ...
        plan: whose values the hint names.
    """
    try:
        yield
    except poptorch.Error as error:
        message = str(getattr(error, "message", "") or error).strip()
        line = message.splitlines()[0] if message else type(error).__name__
        raise IpucnnError(f"the model cannot {doing} on the IPU: {line}",
                          _what_to_try(error, message, plan)) from error


def release(executor: Any) -> None:
    """Release the IPUs and the program; what broke them was told by the call that met it."""
    try:
        executor.destroy()
    except poptorch.Error as error:
        log.debug("the program could not be released: %s", error)


def _what_to_try(error: Exception, message: str, plan: ExecutionPlan) -> str:
    told = f"{getattr(error, 'type', '')} {message}".lower()
    if "out of memory" in told or "memory_allocation" in told:
        training = ", '--recompute-mode auto', '--offload-optimizer'" if plan.training else ""
        return (f"try a smaller '--batch-size' than {plan.micro_batch}, more pipeline splits, a "
                f"lower '--available-memory-proportion', '--half-partial'{training}, or "
                "'--precision half'")
    if "failed to acquire" in told:
        return ("'gc-monitor' shows who uses the IPUs; with POPTORCH_WAIT_FOR_IPU=1 the run waits "
                "for them")
    if isinstance(error, poptorch.RecoverableError):
        action = getattr(error, "recovery_action", "")
        return f"the IPUs need a reset ({action}): see 'gc-reset', then run again"
    if isinstance(error, poptorch.UnrecoverableError):
        return "the IPU hardware failed: 'gc-monitor' and the system's log say more"
    return "POPTORCH_LOG_LEVEL=INFO shows what led to it"
