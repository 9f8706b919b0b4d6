"""A plain torch loop over micro-batches, with which trainings of backends are compared."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.execution.mixing import Mixing, mixed_labels
from ipucnn.core.execution.plan import ExecutionPlan

if TYPE_CHECKING:
    import torch

    from ipucnn.core.execution.training_session import OptimizerChoice, StateDict

    Samples = Tuple[torch.Tensor, torch.Tensor, Optional[Mixing]]
    """Images and labels of a host call, and how they are mixed."""


def plain_training(model: torch.nn.Module, plan: ExecutionPlan, optimizer: OptimizerChoice,
                   samples: Sequence[Samples], lr: Callable[[int], float] = lambda _: 0.05
                   ) -> Tuple[StateDict, List[float]]:
    """Train as a device does, one micro-batch at a time, and return weights and losses.

    Samples go to device iterations first, then to accumulation steps, then to replicas. Each
    replica has its own buffers, and gradients are means over all samples of an update, times
    `ExecutionPlan.gradient_factor`.
    """
    import torch

    from ipucnn.models.optimisation import make_optimizer

    model = copy.deepcopy(model).train()
    updates = make_optimizer(model, optimizer)
    buffers: List[Dict[str, torch.Tensor]] = [
        {name: value.clone() for name, value in model.named_buffers()}
        for _ in range(plan.replicas)]
    losses = []
    for number, (images, labels, mixing) in enumerate(samples):
        for group in updates.param_groups:
            group["lr"] = lr(number)
        parts = list(zip(torch.split(images, plan.micro_batch),
                         torch.split(labels, plan.micro_batch)))
        share = 1 / (plan.replicas * plan.gradient_accumulation)
        for iteration in range(plan.device_iterations):
            updates.zero_grad()
            total = 0.0
            for step in range(plan.gradient_accumulation):
                for replica in range(plan.replicas):
                    _exchange(model, buffers[replica])
                    micro = ((iteration * plan.gradient_accumulation + step)
                             * plan.replicas + replica)
                    loss = share * _loss(model, *parts[micro],
                                         mixing and mixing.part(micro, 1, plan.micro_batch))
                    (loss * plan.gradient_factor).backward()  # type: ignore[no-untyped-call]
                    total += float(loss.detach())
                    buffers[replica] = {name: value.clone()
                                        for name, value in model.named_buffers()}
            updates.step()
            losses.append(total)
    _exchange(model, buffers[0])
    return {name: value.detach() for name, value in model.state_dict().items()}, losses


def _loss(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor,
          mixing: Optional[Mixing]) -> torch.Tensor:
    """Return the cross-entropy of a micro-batch, whose images may be mixed."""
    from torch.nn import functional

    from ipucnn.data.mixup import mix_images

    if mixing is None:
        return functional.cross_entropy(model(images), labels)
    logits = model(mix_images(images, mixing, len(images)))
    terms = [(1.0 if part is None else part) * functional.cross_entropy(
        logits, target, reduction="none") for target, part in mixed_labels(labels, mixing, 0)]
    return sum(terms[1:], terms[0]).mean()


def _exchange(model: torch.nn.Module, values: Dict[str, torch.Tensor]) -> None:
    for name, value in model.named_buffers():
        value.copy_(values[name])
