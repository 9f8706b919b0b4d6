"""Conformance checks for backends that train."""

from __future__ import annotations

import copy
import functools
import io
import warnings
from typing import TYPE_CHECKING, Any, Callable, ClassVar, List, Optional, Sequence
from unittest import SkipTest

from ipucnn.core.execution.backend import Backend
from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.assignment import options_for
from ipucnn.core.registry.records import BackendSpec, LossSpec, OptimizerSpec
from ipucnn.testing.plain_loop import plain_training
from ipucnn.testing.suite import Suite, require

if TYPE_CHECKING:
    import torch

    from ipucnn.core.execution.training_session import (
        OptimizerChoice,
        StateDict,
        StepResult,
        TrainingSession,
    )
    from ipucnn.testing.plain_loop import Samples

CALLS = 3
"""Host calls of a short training."""


class TrainingChecks(Suite):
    """Checks the weights of a backend's training sessions against a plain torch loop.

    Attributes:
        training_tolerance: largest difference of a weight after a short training in single
            precision.
        optimizers: the optimizers to check; by default all built-in ones.
        splits: pipeline splits of the small network to check; empty skips the check.
    """

    training_tolerance: ClassVar[float] = 1e-5
    optimizers: ClassVar[Sequence[str]] = ("sgd", "sgd_combined", "adam", "adamw", "rmsprop",
                                           "rmsprop_tf", "lamb")
    splits: ClassVar[Sequence[str]] = ("body",)
    image_size: ClassVar[int] = 8

    @property
    def spec(self) -> BackendSpec:
        """The record under test."""
        return self.used_registry.get_typed(BackendSpec, self.name)

    @property
    def replicas(self) -> int:
        """Number of replicas that plans with several have."""
        return 2 if self.spec.replicas else 1

    def trainer(self) -> Backend:
        """Return the backend; skip the check if it cannot train on this machine."""
        if not self.spec.training:
            raise SkipTest("it offers no training")
        backend: Backend = self.made()
        probe = backend.probe()
        if not probe.usable:
            raise SkipTest(f"not usable here: {probe.reason}")
        return backend

    def network(self, batch_norm: bool = False) -> torch.nn.Module:
        """Return a small network for five classes."""
        import torch
        from torch import nn

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if batch_norm else nn.GroupNorm(2, channels)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            model = nn.Sequential()
            model.add_module("stem", nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.ReLU()))
            model.add_module("body", nn.Sequential(
                nn.Conv2d(6, 6, 3, padding=1), norm(6), nn.ReLU()))
            model.add_module("head", nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)))
        return model

    def training_plan(self, **values: Any) -> ExecutionPlan:
        """Return a plan in single precision."""
        return ExecutionPlan(**{"precision": "32.32", "normalisation": "host", "training": True,
                                "eight_bit_io": False, "seed": 3, **values})

    def choice(self, name: str = "sgd") -> OptimizerChoice:
        """Return an optimizer for which all hyper-parameters have an effect."""
        from ipucnn.core.execution.training_session import OptimizerChoice

        registry = self.used_registry
        spec = registry.get_typed(OptimizerSpec, name)
        options = options_for(spec, "optimizer", {
            "momentum": 0.9, "optimizer_eps": 1e-3, "rmsprop_decay": 0.9}, registry)
        return OptimizerChoice(spec.name, 0.05, 0.01, options,
                               functools.partial(registry.make, spec, options=options))

    def samples(self, plan: ExecutionPlan, calls: int = CALLS) -> List[Samples]:
        """Return images and labels for several host calls."""
        import torch

        generator = torch.Generator().manual_seed(7)
        size = self.image_size
        return [(torch.randn(plan.combined_batch, 3, size, size, generator=generator),
                 torch.randint(0, 5, (plan.combined_batch,), generator=generator), None)
                for _ in range(calls)]

    def session(self, model: torch.nn.Module, plan: ExecutionPlan,
                optimizer: Optional[OptimizerChoice] = None, **setup: Any) -> TrainingSession:
        """Return a compiled session."""
        from ipucnn.core.execution.training_session import TrainingSetup

        registry = self.used_registry
        loss = registry.make(registry.get_typed(LossSpec, "cross-entropy"))
        made = self.trainer().training(
            copy.deepcopy(model), plan,
            TrainingSetup(**{"loss": loss, "optimizer": optimizer or self.choice(), **setup}),
            self.image_size)
        made.compile()
        return made

    def train(self, session: TrainingSession, samples: Sequence[Samples], plan: ExecutionPlan,
              first: int = 0, lr: Callable[[int], float] = lambda _: 0.05,
              scaling: float = 1.0) -> List[StepResult]:
        """Execute several host calls."""
        from ipucnn.core.execution.training_session import TrainingBatch

        results = []
        for number, sample in enumerate(samples, first):
            session.set_rates(lr(number), scaling)
            results.append(session.step(TrainingBatch(*sample), number * plan.device_iterations))
        return results

    def mixed_samples(self, plan: ExecutionPlan, mix: MixOptions) -> List[Samples]:
        """Return `samples` with how their images are mixed."""
        from ipucnn.data.mixup import draw

        return [(images, labels, draw(mix, 5, call, range(plan.combined_batch), plan.micro_batch,
                                      self.image_size))
                for call, (images, labels, _) in enumerate(self.samples(plan))]

    def compare_training(self, model: torch.nn.Module, plan: ExecutionPlan,
                optimizer: Optional[OptimizerChoice] = None,
                lr: Callable[[int], float] = lambda _: 0.05, scaling: float = 1.0) -> None:
        """Require the same weights as from a plain loop."""
        samples = self.samples(plan)
        with self.session(model, plan, optimizer, loss_scaling=scaling) as session:
            results = self.train(session, samples, plan, lr=lr, scaling=scaling)
            found = session.weights()
        expected, losses = plain_training(model, plan, optimizer or self.choice(), samples, lr)
        self.require_equal(found, expected, self.training_tolerance)
        for number, result in enumerate(results):
            first = number * plan.device_iterations
            wanted = losses[first:first + plan.device_iterations]
            mean = sum(wanted) / len(wanted)
            require(abs(result.loss - mean) <= self.training_tolerance,
                    f"the loss of call {number} is {result.loss}, expected {mean}")
            require(not result.losses or all(
                abs(a - b) <= self.training_tolerance for a, b in zip(result.losses, wanted)),
                f"the losses of call {number} are {result.losses}, expected {wanted}")

    def require_equal(self, found: StateDict, expected: StateDict, tolerance: float) -> None:
        """Require equal names and values."""
        import torch

        require(set(found) == set(expected),
                f"weights have other names: {sorted(set(found) ^ set(expected))}")
        for name, value in expected.items():
            if not value.is_floating_point():
                continue
            require(found[name].dtype == torch.float32 and found[name].device.type == "cpu",
                    f"{name!r} is not float32 on the host")
            error = float((found[name] - value).abs().max())
            require(error <= tolerance, f"{name!r} is off by {error:.2g}")

    def test_training_of_every_shape_equals_plain_torch(self) -> None:
        """An update is the mean gradient of its samples, for any division of the batch."""
        for micro, iterations, replicas, accumulation in (
                (4, 1, 1, 1), (1, 1, 4, 1), (1, 1, 1, 4), (2, 3, 2, 2)):
            replicas = replicas if self.spec.replicas else 1
            self.compare_training(self.network(), self.training_plan(
                micro_batch=micro, device_iterations=iterations, replicas=replicas,
                gradient_accumulation=accumulation))

    def test_training_with_the_sum_over_accumulation(self) -> None:
        """The gradient is the sum over accumulation of means over samples and replicas."""
        if not self.spec.has("accumulation-sum"):
            raise SkipTest("it does not offer sums over accumulation")
        self.compare_training(self.network(), self.training_plan(
            micro_batch=2, replicas=self.replicas, gradient_accumulation=3, device_iterations=2,
            accumulation_reduction="sum"))

    def test_training_with_batch_norm(self) -> None:
        """Statistics are per micro-batch and replica; the first replica's are saved."""
        for replicas, accumulation in ((1, 1), (1, 3), (self.replicas, 2)):
            self.compare_training(self.network(batch_norm=True), self.training_plan(
                micro_batch=3, device_iterations=2, replicas=replicas,
                gradient_accumulation=accumulation))

    def test_training_with_every_optimizer(self) -> None:
        """Each optimizer updates as its registered implementation does."""
        for name in self.optimizers:
            self.compare_training(self.network(), self.training_plan(
                micro_batch=2, device_iterations=2, gradient_accumulation=2), self.choice(name))

    def test_training_with_mixup(self) -> None:
        """Mixup and cutmix mix images and labels within micro-batches only."""
        if not self.spec.mixup:
            raise SkipTest("it does not offer mixup")
        plan = self.training_plan(micro_batch=4, device_iterations=2, gradient_accumulation=2,
                                  replicas=self.replicas)
        model, mix = self.network(), MixOptions(0.5, 0.3, 0.8)
        samples = self.mixed_samples(plan, mix)
        with self.session(model, plan, mix=mix) as session:
            results = self.train(session, samples, plan)
            found = session.weights()
        expected, losses = plain_training(model, plan, self.choice(), samples)
        self.require_equal(found, expected, self.training_tolerance)
        mean = sum(losses[:plan.device_iterations]) / plan.device_iterations
        require(abs(results[0].loss - mean) <= self.training_tolerance,
                f"the loss of mixed images is {results[0].loss}, expected {mean}")

    def test_recomputation_changes_nothing(self) -> None:
        """Recomputation of activations does not change the weights."""
        if not self.spec.has("recompute"):
            raise SkipTest("it does not offer recomputation")
        for mode, checkpoints in (("auto", ()), ("manual", ("body",))):
            self.compare_training(self.network(batch_norm=True), self.training_plan(
                micro_batch=2, recompute=mode, recompute_checkpoints=checkpoints,
                # in a pipeline, some recompute whole stages only
                pipeline_splits=tuple(self.splits[:1]) if mode == "auto" else (),
                gradient_accumulation=3))

    def test_training_in_a_pipeline(self) -> None:
        """Splitting a model does not change the weights."""
        if not self.spec.pipelining:
            raise SkipTest("it does not offer pipelining")
        if not self.splits:
            raise SkipTest("no splits are checked")
        self.compare_training(self.network(batch_norm=True), self.training_plan(
            micro_batch=2, pipeline_splits=tuple(self.splits),
            gradient_accumulation=2 * len(self.splits) + 1))
        if self.spec.has("sharding"):  # needs no accumulation
            self.compare_training(self.network(), self.training_plan(
                micro_batch=2, pipeline_splits=tuple(self.splits), sharded=True))

    def test_training_follows_the_learning_rate(self) -> None:
        """A new learning rate takes effect from the next call on."""
        for name in ("sgd", "rmsprop_tf"):
            self.compare_training(self.network(), self.training_plan(micro_batch=2),
                                  self.choice(name), lr=lambda call: 0.1 / (call + 1))

    def test_loss_scaling_changes_nothing(self) -> None:
        """In single precision, loss scaling changes neither weights nor losses."""
        for name in ("sgd", "adamw", "lamb"):
            self.compare_training(self.network(), self.training_plan(
                micro_batch=2, replicas=self.replicas), self.choice(name), scaling=128.0)

    def test_training_resumes_exactly(self) -> None:
        """A training resumed from saved state is bit-for-bit identical, for each optimizer."""
        import torch

        plan = self.training_plan(micro_batch=2, replicas=self.replicas, device_iterations=2)
        model, samples = self.network(batch_norm=True), self.samples(plan, 4)
        for name in self.optimizers:
            with self.session(model, plan, self.choice(name)) as whole:
                self.train(whole, samples, plan)
                expected = whole.weights()
            with self.session(model, plan, self.choice(name)) as first:
                self.train(first, samples[:2], plan)
                file = io.BytesIO()
                torch.save([first.weights(), first.state()], file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch 2.0 emits a warning of its own here
                weights, state = torch.load(file, weights_only=True)
            with self.session(model, plan, self.choice(name)) as second:
                second.load(weights, state)
                self.train(second, samples[2:], plan, first=2)
                self.require_equal(second.weights(), expected, 0.0)

    def test_fine_tuning(self) -> None:
        """Freezing layers and learning rates by layer work, and both resume exactly."""
        if not self.spec.has("fine-tuning"):
            raise SkipTest("it does not offer fine-tuning")
        plan = self.training_plan(micro_batch=2, gradient_accumulation=2)
        model, samples = self.network(batch_norm=True), self.samples(plan, 3)
        setup = {"head": "head.2", "rate_factors": {"stem.0.weight": 0.25, "stem.0.bias": 0.0}}
        body = {name: value for name, value in model.state_dict().items()
                if not name.startswith("head.")}
        for name in self.optimizers:
            with self.session(model, plan, self.choice(name), **setup) as session:
                session.freeze(True)
                self.train(session, samples[:1], plan)
                weights, state = session.weights(), session.state()
                self.require_equal({name: weights[name] for name in body}, body, 0.0)
                require(bool((weights["head.2.bias"] != model.state_dict()["head.2.bias"]).any()),
                        "the output layer is not trained while the others are frozen")
                session.freeze(False)
                self.train(session, samples[1:], plan, first=1)
                expected = session.weights()
            require(bool((expected["stem.0.bias"] == body["stem.0.bias"]).all())
                    and bool((expected["stem.0.weight"] != body["stem.0.weight"]).any()),
                    "a layer is not trained at its own rate")
            with self.session(model, plan, self.choice(name), **setup) as session:
                session.load(weights, state)
                session.freeze(False)
                self.train(session, samples[1:], plan, first=1)
                self.require_equal(session.weights(), expected, 0.0)

    def test_training_alternates_with_validation(self) -> None:
        """The use of the device by another session in between has no effect."""
        import torch

        plan = self.training_plan(micro_batch=2)
        model, samples = self.network(batch_norm=True), self.samples(plan)
        expected, _ = plain_training(model, plan, self.choice(), samples)
        with self.session(model, plan) as session:
            for number, part in enumerate(samples):
                self.train(session, [part], plan, first=number)
                with session.detached():
                    copied = self.network(batch_norm=True)
                    copied.load_state_dict(session.weights())
                    inference = ExecutionPlan(micro_batch=2, precision="32.32", seed=3,
                                              normalisation="host", eight_bit_io=False)
                    with self.trainer().inference(copied, inference, self.image_size) as other:
                        other.compile()
                        logits = other(part[0])
                with torch.no_grad():
                    wanted = copied.eval()(part[0])
                require(torch.allclose(logits, wanted, atol=1e-4),
                        "validation between updates is not of the weights at that time")
            self.require_equal(session.weights(), expected, self.training_tolerance)

    def test_step_tells_what_it_did(self) -> None:
        """A step returns its samples and correct predictions, and a loss per update or none."""
        plan = self.training_plan(micro_batch=2, device_iterations=3, gradient_accumulation=2)
        with self.session(self.network(), plan) as session:
            (result,) = self.train(session, self.samples(plan, 1), plan)
        require(result.samples == plan.combined_batch, f"it counted {result.samples} samples")
        require(len(result.losses) in (0, 3),
                f"it returned {len(result.losses)} losses of 3 updates")
        require(not result.losses or abs(result.loss - sum(result.losses) / 3) < 1e-5,
                "its loss is not their mean")
        require(0 <= result.correct <= result.samples, f"it counted {result.correct} hits")
