"""Base class of ipucnn's own optimizers."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

import torch


class GroupwiseOptimizer(torch.optim.Optimizer):
    """An optimizer that updates each parameter group by itself."""

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:  # type: ignore[override]
        """Make one update; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.update_group(group)
        return loss

    def update_group(self, group: Dict[str, Any]) -> None:
        """Update the parameters of a group that have a gradient."""
        raise NotImplementedError
