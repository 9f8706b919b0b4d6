"""LAMB, for large batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec
from ipucnn.plugins.optimizers._options import AdamOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LambOptions(AdamOptions):
    """Options of LAMB (You et al., 2020)."""

    trust_ratio_min: float = option(
        0.0, "Lower limit of the trust ratio, which scales the learning rate of a layer.",
        minimum=0.0)
    trust_ratio_max: Optional[float] = option(
        None, "Upper limit of the trust ratio (default: none).", exclusive_minimum=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trust_ratio_max is not None and self.trust_ratio_max < self.trust_ratio_min:
            raise UsageError(f"'--trust-ratio-max {self.trust_ratio_max:g}' is below "
                             f"'--trust-ratio-min {self.trust_ratio_min:g}'",
                             "the range goes from low to high")


def build(param_groups: List[Dict[str, Any]], lr: float,
          options: LambOptions) -> torch.optim.Optimizer:
    """Return LAMB (You et al., 2020).

    Args:
        param_groups: as torch takes them; a group's weight decay is within the update whose norm
            is adapted.
        lr: learning rate.
        options: decay of the running means, epsilon, and limits of the trust ratio.
    """
    from ipucnn.plugins.optimizers._lamb import Lamb

    return Lamb(param_groups, lr=lr, betas=(options.beta1, options.beta2),
                eps=options.optimizer_eps,
                trust=(options.trust_ratio_min, options.trust_ratio_max))


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return the record of the optimizer `lamb`."""
    # 0.005 for 2048 images: "ResNet strikes back" (Wightman et al., 2021), table 2
    return [OptimizerSpec(name="lamb", lr=0.0018, lr_growth="root",
                          summary="LAMB: Adam with a learning rate per layer, for large batches",
                          target="ipucnn.plugins.optimizers.lamb:build", options=LambOptions)]
