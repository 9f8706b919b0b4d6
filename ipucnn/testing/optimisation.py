"""Conformance of optimizers and learning-rate schedules."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Mapping

from ipucnn.core.registry.records import OptimizerSpec, ScheduleSpec
from ipucnn.testing.suite import Suite, require

if TYPE_CHECKING:
    import torch


class OptimizerSuite(Suite):
    """Checks of an optimizer, on the loss ``|w - 1|^2 / 2``.

    Attributes:
        lr: learning rate.
        hyperparameters: further arguments.
        steps: in which the loss must fall to a tenth.
    """

    lr: float = 0.05
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    steps: int = 100

    @property
    def spec(self) -> OptimizerSpec:
        """The record under test."""
        return self.used_registry.get_typed(OptimizerSpec, self.name)

    def build(self, *weights: torch.Tensor) -> torch.optim.Optimizer:
        """Return an optimizer with a parameter group for each of `weights`."""
        import torch

        groups = [{"params": [w], "weight_decay": 0.0} for w in weights]
        optimizer: torch.optim.Optimizer = self.target()(groups, lr=self.lr, **self.hyperparameters)
        require(isinstance(optimizer, torch.optim.Optimizer),
                f"the target returned {type(optimizer).__name__}")
        return optimizer

    @staticmethod
    def step(optimizer: torch.optim.Optimizer, *weights: torch.Tensor) -> float:
        """Make a step on all weights and return the loss before it."""
        optimizer.zero_grad()
        loss = sum(((w - 1) ** 2).sum() / 2 for w in weights)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        return float(loss.detach())  # type: ignore[union-attr]

    @staticmethod
    def weights() -> torch.Tensor:
        """Return weights to start from: six values between -1 and 0.5."""
        import torch

        return torch.linspace(-1, 0.5, 6).view(2, 3).requires_grad_()

    def test_reduces_a_quadratic(self) -> None:
        """The loss falls to a tenth."""
        w = self.weights()
        optimizer = self.build(w)
        losses = [self.step(optimizer, w) for _ in range(self.steps)]
        require(losses[-1] < losses[0] / 10, f"the loss goes from {losses[0]:g} to {losses[-1]:g}")

    def test_state_dict_round_trip(self) -> None:
        """An optimizer restored from a state dictionary makes the same next steps."""
        import torch

        w = self.weights()
        optimizer = self.build(w)
        for _ in range(3):
            self.step(optimizer, w)
        twin = w.detach().clone().requires_grad_()
        restored = self.build(twin)
        restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(3):
            self.step(optimizer, w)
            self.step(restored, twin)
        require(torch.equal(w, twin), "after loading its state it makes other steps")

    def test_learning_rate_of_a_group_is_obeyed(self) -> None:
        """With a group's `lr` at zero its weights rest, those of the other group move."""
        import torch

        resting, moving = self.weights(), self.weights()
        optimizer = self.build(resting, moving)
        optimizer.param_groups[0]["lr"] = 0.0
        self.step(optimizer, resting, moving)
        require(torch.equal(resting, self.weights()), "a learning rate of zero moves weights")
        require(not torch.equal(moving, self.weights()), "a step does not move the weights")

    def test_takes_its_declared_hyperparameters(self) -> None:
        """The target has a keyword for every hyperparameter of the record."""
        self.accepts([], lr=self.lr, **dict.fromkeys(self.spec.hyperparameters))


class ScheduleSuite(Suite):
    """Checks of a schedule.

    Attributes:
        parameters: arguments; the usual ones, as far as the record declares them, when empty.
        epochs: of the training.
    """

    parameters: ClassVar[Mapping[str, Any]] = {}
    epochs: int = 10

    @property
    def spec(self) -> ScheduleSpec:
        """The record under test."""
        return self.used_registry.get_typed(ScheduleSpec, self.name)

    def arguments(self) -> Dict[str, Any]:
        """Return the arguments of the schedule."""
        usual = {"epochs": self.epochs, "decay": 0.5, "power": 2.0, "frequency": 1.0,
                 "milestones": (self.epochs * 0.3, self.epochs * 0.6)}
        return dict(self.parameters) or {
            name: value for name, value in usual.items() if name in self.spec.parameters}

    def factor(self, epoch: float) -> float:
        """Return the factor at `epoch`."""
        return self.target()(epoch, **self.arguments())  # type: ignore[no-any-return]

    def test_factors_are_finite_and_not_negative(self) -> None:
        """From the first epoch to beyond the last the factor is a number of at least 0."""
        for tenth in range(12 * self.epochs):
            factor = self.factor(tenth / 10)
            require(isinstance(factor, float) and math.isfinite(factor) and factor >= 0,
                    f"the factor at epoch {tenth / 10} is {factor!r}")

    def test_it_trains_at_all(self) -> None:
        """Some epoch has a factor above 0."""
        require(any(self.factor(tenth / 10) > 0 for tenth in range(10 * self.epochs)),
                "the factor is 0 throughout")

    def test_it_is_a_pure_function(self) -> None:
        """An epoch has the same factor in whatever order epochs are asked for."""
        epochs = [tenth / 10 for tenth in range(10 * self.epochs)]
        forward = [self.factor(epoch) for epoch in epochs]
        backward = [self.factor(epoch) for epoch in reversed(epochs)]
        require(forward == backward[::-1], "the factor depends on what was asked for before")

    def test_takes_its_declared_parameters(self) -> None:
        """The target has a keyword for every parameter of the record."""
        self.accepts(0.0, **dict.fromkeys(self.spec.parameters))
