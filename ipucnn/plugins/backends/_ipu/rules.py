"""Restrictions of PopTorch and PopART that a planned training may violate."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.plugins.backends._ipu.optimizers import hyperparameters
from ipucnn.plugins.backends._ipu.options import IpuOptions
from ipucnn.plugins.backends._ipu.plans import (
    check_count,
    check_target,
    check_training_options,
    check_transfers,
)
from ipucnn.plugins.backends._options import check_proportions

OPTIMIZERS = ("sgd", "sgd_combined", "adam", "adamw", "rmsprop", "rmsprop_tf", "lamb")
"""The optimizers that the Poplar SDK has, by the names of the registry."""


def rules(plan: ExecutionPlan, choice: OptimizerChoice, options: Optional[IpuOptions],
          *more: Callable[[], object]) -> List[str]:
    """Return a line for each restriction that a training violates; see `BackendSpec.rules`.

    Args:
        plan: of the training.
        choice: its optimizer.
        options: of the backend; None for its defaults.
        more: further checks, which raise `UsageError`.
    """
    own = options or IpuOptions()
    checks: List[Callable[[], object]] = [
        lambda: check_proportions(own.available_memory_proportion, plan.stages),
        lambda: check_target(plan, own, emulation="", remedy=""),
        lambda: check_count(plan, None if own.offline_target_ipu_version is not None else _any),
        lambda: check_transfers(plan, own),
        lambda: check_training_options(plan, own),
        lambda: _check_optimizer(choice)]
    found = []
    for check in [*checks, *more]:
        try:
            check()
        except UsageError as error:
            found.append(f"{error.message}: {error.hint}" if error.hint else error.message)
    return found


def poptorch_rules(plan: ExecutionPlan, choice: OptimizerChoice, options: Any) -> List[str]:
    """Return the restrictions of PopTorch that a training violates; see `rules`."""
    return rules(plan, choice, options)


def _check_optimizer(choice: OptimizerChoice) -> None:
    if choice.name not in OPTIMIZERS:
        raise UsageError(f"the IPU has no optimizer {choice.name!r}",
                         "optimizers: " + ", ".join(OPTIMIZERS))
    hyperparameters(choice)


def _any(_: int) -> bool:
    return True
