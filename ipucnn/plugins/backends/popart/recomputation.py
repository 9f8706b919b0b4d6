"""Restrictions of PopART for trainings, in addition to those of all IPU backends."""

from __future__ import annotations

from typing import List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.plugins.backends._ipu.rules import rules
from ipucnn.plugins.backends.popart.options import PopArtOptions


def popart_rules(plan: ExecutionPlan, choice: OptimizerChoice,
                 options: Optional[PopArtOptions]) -> List[str]:
    """Return the restrictions that a training violates; see `BackendSpec.rules`."""
    return rules(plan, choice, options, lambda: check_recomputation(plan))


def check_recomputation(plan: ExecutionPlan) -> None:
    """Raise an error for recomputation that PopART does not support.

    Raises:
        UsageError: the plan requires it.
    """
    if plan.recompute == "auto" and plan.recompute_checkpoints:
        raise UsageError("backend 'popart' keeps '--recompute-checkpoints' only with "
                         "'--recompute-mode manual': PopART does not combine them with what it "
                         "chooses", "use 'manual', or '--backend poptorch'")
    if plan.recompute == "manual" and plan.pipelined:
        raise UsageError("'--recompute-mode manual' and pipeline splits exclude each other: "
                         "a pipeline recomputes whole stages", "use '--recompute-mode auto'")
