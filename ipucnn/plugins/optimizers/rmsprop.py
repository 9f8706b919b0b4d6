"""RMSprop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List

from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec
from ipucnn.plugins.optimizers._options import EpsilonOption, MomentumOption

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RMSpropOptions(MomentumOption, EpsilonOption):
    """Options of RMSprop (Hinton, lecture 6e of "Neural Networks for Machine Learning")."""

    rmsprop_decay: float = option(
        0.99, "Decay of the running mean of squared gradients.", minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class CenteredRMSpropOptions(RMSpropOptions):
    """Options of torch's RMSprop."""

    centered: bool = option(
        False, "Divide by the standard deviation of the gradient instead of its root mean square.")


def build(param_groups: List[Dict[str, Any]], lr: float,
          options: CenteredRMSpropOptions) -> torch.optim.Optimizer:
    """Return `torch.optim.RMSprop`: epsilon is added to the root of the mean square.

    Args:
        param_groups: as torch takes them; a group's weight decay is added to the gradient as
            ``weight_decay * w``.
        lr: learning rate.
        options: decay, epsilon, momentum, and whether gradients are centred.
    """
    from torch.optim import RMSprop

    return RMSprop(param_groups, lr=lr, alpha=options.rmsprop_decay, eps=options.optimizer_eps,
                   momentum=options.momentum, centered=options.centered)


def build_tf(param_groups: List[Dict[str, Any]], lr: float,
             options: RMSpropOptions) -> torch.optim.Optimizer:
    """Return RMSprop as TensorFlow computes it: epsilon inside the root; arguments as `build`."""
    from ipucnn.plugins.optimizers._rmsprop_tf import RMSpropTF

    return RMSpropTF(param_groups, lr=lr, alpha=options.rmsprop_decay, eps=options.optimizer_eps,
                     momentum=options.momentum)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return the records of the optimizers `rmsprop` and `rmsprop_tf`."""
    return [
        # 0.016 for 256 images: "EfficientNet" (Tan and Le, 2019) as published in code
        OptimizerSpec(
            name="rmsprop", lr=0.016,
            summary="RMSprop, epsilon outside the root",
            target="ipucnn.plugins.optimizers.rmsprop:build", options=CenteredRMSpropOptions),
        OptimizerSpec(
            name="rmsprop_tf", lr=0.016,
            summary="RMSprop as TensorFlow computes it, epsilon in the root",
            target="ipucnn.plugins.optimizers.rmsprop:build_tf", options=RMSpropOptions)]
