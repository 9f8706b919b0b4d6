"""Conformance suite for backends."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar, Mapping, Tuple
from unittest import SkipTest

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.backend import Backend, InferenceSession, Probe
from ipucnn.core.execution.plan import PRECISIONS, ExecutionPlan
from ipucnn.core.names import described
from ipucnn.testing.suite import require
from ipucnn.testing.training import TrainingChecks

if TYPE_CHECKING:
    import torch


class BackendSuite(TrainingChecks):
    """Checks a backend's logits against the plain module on the CPU, and its training.

    If the backend is not usable, only the probe is checked and the other checks are skipped.

    Attributes:
        tolerance: largest difference of a logit, as a share of the largest logit, by precision.
        micro_batch: B of the plans.
        input_size: height and width of the images.
    """

    tolerance: ClassVar[Mapping[str, float]] = {"32.32": 1e-4, "16.32": 0.05, "16.16": 0.05,
                                                "int8": 0.1}
    micro_batch: int = 2
    input_size: int = 16

    def usable(self) -> Backend:
        """Return the backend; skip the check if it cannot run inference on this machine."""
        backend: Backend = self.made()
        probe = backend.probe()
        if not probe.usable:
            raise SkipTest(f"not usable here: {probe.reason}")
        if not self.spec.inference:
            raise SkipTest("it offers no inference")
        return backend

    def model(self) -> torch.nn.Module:
        """Return a small network, in eval mode, with non-trivial batch-norm statistics."""
        import torch
        from torch import nn

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            model = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16),
                nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
            for module in model:
                if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None \
                        and module.running_var is not None:
                    module.running_mean.uniform_(-0.5, 0.5)
                    module.running_var.uniform_(0.5, 2.0)
        return model.eval()

    def plan(self, precision: str = "32.32", iterations: int = 2,
             place: str = "device") -> ExecutionPlan:
        """Return a plan with several micro-batches per call."""
        return ExecutionPlan(micro_batch=self.micro_batch, device_iterations=iterations,
                             precision=precision, normalisation=place,
                             eight_bit_io=place == "device", seed=0)

    def logits(self, plan: ExecutionPlan, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """Classify `count` images; return the backend's logits and those of the plain module."""
        import torch

        from ipucnn.data.normalisation import normalise

        images = torch.randint(0, 256, (count, 3, self.input_size, self.input_size),
                               dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
        normalised = normalise(images)
        with torch.no_grad():
            expected = self.model()(normalised)
        given = images if plan.eight_bit_io else normalised
        with self.inference_session(plan, images) as session:
            seconds = session.compile()
            require(isinstance(seconds, float) and seconds >= 0,
                    f"'compile' returned {seconds!r}, expected seconds")
            size = session.samples_per_call
            require(0 < size <= plan.combined_batch,
                    f"'samples_per_call' is {size}, the combined batch {plan.combined_batch}")
            parts = [session(part) for part in torch.split(given, size)]
        return torch.cat(parts), expected

    def inference_session(self, plan: ExecutionPlan, images: torch.Tensor) -> InferenceSession:
        """Return the backend's session; one in 8-bit integers is calibrated with `images`."""
        from ipucnn.inference.calibration_images import CalibrationImages

        backend, model = self.usable(), copy.deepcopy(self.model())
        if plan.precision != "int8":
            return backend.inference(model, plan, self.input_size)
        return backend.quantised(model, plan, self.input_size, CalibrationImages(
            images, [None] * len(images), len(images)))

    def compare(self, plan: ExecutionPlan, count: int) -> None:
        """Require correct logits, in float32 on the host."""
        import torch

        logits, expected = self.logits(plan, count)
        require(logits.dtype == torch.float32 and logits.device.type == "cpu",
                f"logits are {logits.dtype} on {logits.device}, expected float32 on the host")
        require(logits.shape == expected.shape,
                f"logits of {count} images have shape {tuple(logits.shape)}, expected "
                f"{tuple(expected.shape)}")
        error = float((logits - expected).abs().max() / expected.abs().max())
        require(error <= self.tolerance[plan.precision],
                f"logits in {plan.precision} are off by {error:.2g} of the largest")

    def test_probe_never_raises_and_explains_itself(self) -> None:
        """The probe describes the device, or explains why it is not usable and how to fix that."""
        backend = self.made()
        require(isinstance(backend, Backend), f"the target returned {described(backend)}")
        probe = backend.probe()
        require(isinstance(probe, Probe), f"'probe' returned {described(probe)}")
        require(bool(probe.device) if probe.usable else bool(probe.reason and probe.remedy),
                "a usable backend names its device, another its reason and remedy")

    def test_logits_equal_those_of_the_plain_module(self) -> None:
        """Logits are correct over several full calls in single precision."""
        self._needs("32.32")
        self.compare(self.plan(), 2 * self.plan().combined_batch)

    def test_short_last_batch(self) -> None:
        """A call with fewer images than its capacity returns the correct rows."""
        self._needs("32.32")
        for count in (1, self.plan().combined_batch + 1):
            self.compare(self.plan(), count)

    def test_result_does_not_depend_on_the_batching(self) -> None:
        """One micro-batch per call returns the same logits as four."""
        self._needs("32.32")
        for iterations in (1, 4):
            self.compare(self.plan(iterations=iterations), 4 * self.micro_batch)

    def test_images_normalised_on_the_host(self) -> None:
        """With normalisation on the host, float images are used unchanged."""
        self._needs("32.32")
        self.compare(self.plan(place="host"), self.micro_batch)

    def test_every_declared_precision_works(self) -> None:
        """Logits in every other precision of the record are correct within its tolerance."""
        declared = [p for p in self.spec.precisions if p != "32.32"]
        if not declared:
            raise SkipTest("it declares single precision only")
        there = [p for p in declared if p == "int8" or self.usable().probe().half]
        if not there:
            raise SkipTest("the device has no half precision")
        for precision in there:
            self.compare(self.plan(precision), 2 * self.micro_batch)

    def test_undeclared_precision_is_refused(self) -> None:
        """A plan in a precision that the record does not list is rejected before compilation."""
        from ipucnn.core.execution.offers import check_offer
        from ipucnn.inference.options import RunOptions

        for precision in [p for p in PRECISIONS if p not in self.spec.precisions]:
            plan = self.plan(precision)
            try:
                check_offer(RunOptions(), plan, self.spec, self.used_registry)
            except IpucnnError as error:
                require(precision in error.message, f"the refusal does not name {precision}")
            else:
                require(False, f"precision {precision} is not declared and not refused")

    def test_what_is_measured_are_options_of_its_own(self) -> None:
        """The options that `run --tune` varies are the backend's, and their default is None."""
        from ipucnn.core.options.declaration import declared

        options = self.used_registry.options_class(self.spec)
        own = {item.name: item for item in declared(options)} if options else {}
        for values in self.made().variants(self.plan(iterations=1)):
            for name, value in values.items():
                require(name in own, f"a variant has {name!r}, which is none of its options")
                require(own[name].default is None,
                        f"option {name!r} of a variant has the default {own[name].default!r}, "
                        "expected None")
                own[name].coerce(value)

    def _needs(self, precision: str) -> None:
        if precision not in self.spec.precisions:
            raise SkipTest(f"it does not declare {precision}")
