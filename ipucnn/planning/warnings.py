"""Warnings about violated restrictions of a backend, and about stages that do not fit."""

from __future__ import annotations

from typing import List, Optional

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.names import key
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.targets import import_target
from ipucnn.models.stage_memory import MIB
from ipucnn.planning.stages import FITS, MARGIN, TOO_LARGE, Pipeline
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.rates import optimizer_choice


def warnings(options: TrainOptions, plan: ExecutionPlan, registry: Registry,
             pipeline: Optional[Pipeline]) -> List[str]:
    """Return the problems that would stop a training, as notes for the user.

    Args:
        options: of the training.
        plan: of the training.
        registry: where the backend is looked up.
        pipeline: its stages, if they must fit into the first device, or None.
    """
    found = _rules(options, plan, registry)
    norm = registry.get_typed(NormLayerSpec, options.network.normlayer)
    if norm.batch_dependent and plan.micro_batch == 1 and options.execution.batch_size == 1:
        found.append("batch norm's statistics are those of a single image: use a larger "
                     "'--batch-size', or '--normlayer group'")
    if pipeline is None:
        return found
    estimate = pipeline.estimates[0]
    if estimate.verdict != FITS:
        refused = estimate.verdict == TOO_LARGE
        found.append(
            f"the largest stage needs about {estimate.largest / MIB:,.0f} MiB of the "
            f"{estimate.device.memory / MIB:,.0f} MiB of {estimate.device.name}: "
            f"{'it does not fit' if refused else f'within the margin of {MARGIN:.0%}'}; use a "
            "smaller '--batch-size', '--recompute-mode auto' or more pipeline stages")
    return found


def _rules(options: TrainOptions, plan: ExecutionPlan, registry: Registry) -> List[str]:
    name = options.execution.backend
    if key(name) == AUTO:
        return []
    spec = registry.get_typed(BackendSpec, name)
    if not spec.rules:
        return []
    broken = import_target(spec.rules)(plan, optimizer_choice(options, registry),
                                       options.plugins.of("backend", spec.name))
    return [f"backend {spec.name!r} would refuse this: {line}" for line in broken]
