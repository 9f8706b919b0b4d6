"""Conformance suites for optimizers and learning-rate schedules."""

from __future__ import annotations

import copy
import inspect
import math
from typing import TYPE_CHECKING, Any, Dict, Tuple

from ipucnn.core.names import described
from ipucnn.core.registry.records import OptimizerSpec, ScheduleSpec
from ipucnn.testing.suite import Suite, require

if TYPE_CHECKING:
    import torch


class OptimizerSuite(Suite):
    """Checks an optimizer on the loss ``|w - 1|^2 / 2``.

    Attributes:
        lr: learning rate.
        steps: number of steps in which the loss must fall to a tenth.
    """

    lr: float = 0.05
    steps: int = 100

    @property
    def spec(self) -> OptimizerSpec:
        """The record under test."""
        return self.used_registry.get_typed(OptimizerSpec, self.name)

    def arguments(self) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Return the arguments of the target other than its options."""
        return ([],), {"lr": self.lr}

    def exercise(self) -> None:
        """Build the optimizer of some weights."""
        self.build(self.weights())

    def build(self, *weights: torch.Tensor) -> torch.optim.Optimizer:
        """Return an optimizer with a parameter group for each of `weights`."""
        import torch

        groups = [{"params": [w], "weight_decay": 0.0} for w in weights]
        optimizer: torch.optim.Optimizer = self.made(groups, lr=self.lr)
        require(isinstance(optimizer, torch.optim.Optimizer),
                f"the target returned {described(optimizer)}")
        return optimizer

    @staticmethod
    def step(optimizer: torch.optim.Optimizer, *weights: torch.Tensor) -> float:
        """Take one step on all weights and return the loss before it."""
        optimizer.zero_grad()
        loss = sum(((w - 1) ** 2).sum() / 2 for w in weights)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        return float(loss.detach())  # type: ignore[union-attr]

    @staticmethod
    def weights() -> torch.Tensor:
        """Return the initial weights: six values between -1 and 0.5."""
        import torch

        return torch.linspace(-1, 0.5, 6).view(2, 3).requires_grad_()

    def test_reduces_a_quadratic(self) -> None:
        """The loss falls to a tenth."""
        w = self.weights()
        optimizer = self.build(w)
        losses = [self.step(optimizer, w) for _ in range(self.steps)]
        require(losses[-1] < losses[0] / 10, f"the loss goes from {losses[0]:g} to {losses[-1]:g}")

    def test_state_dict_round_trip(self) -> None:
        """An optimizer restored from a state dictionary computes the same following steps."""
        import torch

        from ipucnn.training.checkpoints.plain_values import Typed, plain

        w = self.weights()
        optimizer = self.build(w)
        for _ in range(3):
            self.step(optimizer, w)
        twin = w.detach().clone().requires_grad_()
        restored = self.build(twin)
        state = plain(Typed(optimizer.state_dict()))  # as a checkpoint contains it
        restored.load_state_dict(copy.deepcopy(state))
        for _ in range(3):
            self.step(optimizer, w)
            self.step(restored, twin)
        require(torch.equal(w, twin), "after loading its state it makes other steps")

    def test_learning_rate_of_a_group_is_obeyed(self) -> None:
        """With `lr` 0 in one group, its weights are constant and those of the other change."""
        import torch

        resting, moving = self.weights(), self.weights()
        optimizer = self.build(resting, moving)
        optimizer.param_groups[0]["lr"] = 0.0
        self.step(optimizer, resting, moving)
        require(torch.equal(resting, self.weights()), "a learning rate of zero moves weights")
        require(not torch.equal(moving, self.weights()), "a step does not move the weights")


class ScheduleSuite(Suite):
    """Checks a schedule.

    Attributes:
        epochs: of the training.
        frequency: updates of the rate per epoch.
    """

    epochs: int = 10
    frequency: float = 1.0

    @property
    def spec(self) -> ScheduleSpec:
        """The record under test."""
        return self.used_registry.get_typed(ScheduleSpec, self.name)

    def arguments(self) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Return epoch 0, and `epochs` and `frequency` if the target has them."""
        accepted = inspect.signature(self.target()).parameters
        return (0.0,), {name: getattr(self, name) for name in ("epochs", "frequency")
                        if name in accepted}

    def factor(self, epoch: float) -> float:
        """Return the factor at `epoch`."""
        return self.made(epoch, **self.arguments()[1])  # type: ignore[no-any-return]

    def test_factors_are_finite_and_not_negative(self) -> None:
        """The factor is at least 0 from the first epoch to beyond the last."""
        for tenth in range(12 * self.epochs):
            factor = self.factor(tenth / 10)
            require(isinstance(factor, float) and math.isfinite(factor) and factor >= 0,
                    f"the factor at epoch {tenth / 10} is {factor!r}")

    def test_it_trains_at_all(self) -> None:
        """Some epoch has a factor above 0."""
        require(any(self.factor(tenth / 10) > 0 for tenth in range(10 * self.epochs)),
                "the factor is 0 throughout")

    def test_it_is_a_pure_function(self) -> None:
        """The factor of an epoch does not depend on the order of calls."""
        epochs = [tenth / 10 for tenth in range(10 * self.epochs)]
        forward = [self.factor(epoch) for epoch in epochs]
        backward = [self.factor(epoch) for epoch in reversed(epochs)]
        require(forward == backward[::-1], "the factor depends on earlier calls")
