"""Optimizers as a training chooses them, for tests of sessions."""

from __future__ import annotations

import functools

from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.core.registry.records import OptimizerSpec
from ipucnn.core.registry.registry import Registry

REGISTRY = Registry()


def optimizer(name="sgd", lr=0.1, weight_decay=0.01, **options):
    """Return a built-in optimizer with options of its own by name."""
    spec = REGISTRY.get_typed(OptimizerSpec, name)
    own = REGISTRY.options_class(spec)(**options)
    return OptimizerChoice(spec.name, lr, weight_decay, own,
                           functools.partial(REGISTRY.make, spec, options=own))
