"""Maps the registered optimizers to the hyper-parameters of the IPU's optimizers."""

from __future__ import annotations

from typing import Any, Dict

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.core.names import flag_of

_TERMS = {"momentum": "momentum", "optimizer_eps": "eps", "rmsprop_decay": "alpha",
          "centered": "centered"}
"""The SDK's names of options."""

_ELSEWHERE = ("dampening", "nesterov", "trust_ratio_min", "trust_ratio_max")
"""Options that change an update in a way that the device does not support."""


def hyperparameters(choice: OptimizerChoice) -> Dict[str, Any]:
    """Return the values of a registered optimizer by the SDK's names: `momentum`, `betas` ...

    Raises:
        UsageError: the device does not support the optimizer with these options.
    """
    options = choice.options
    for name in _ELSEWHERE:
        if getattr(options, name, None) not in (None, False, 0.0):
            raise UsageError(f"IPUs compute optimizer {choice.name!r} without '{flag_of(name)}'",
                             "leave it out")
    values = {theirs: getattr(options, ours) for ours, theirs in _TERMS.items()
              if hasattr(options, ours)}
    if hasattr(options, "beta1"):
        values["betas"] = (options.beta1, options.beta2)
    return values
