"""Conformance suite for losses."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from ipucnn.core.execution.losses import CrossEntropyForm, Loss
from ipucnn.core.execution.mixing import Mixing
from ipucnn.core.names import described
from ipucnn.core.registry.records import LossSpec
from ipucnn.testing.suite import Suite, require

if TYPE_CHECKING:
    import torch

MICRO_BATCH = 4


class LossSuite(Suite):
    """Checks a loss on three micro-batches of random logits.

    Attributes:
        classes: number of classes.
        tolerance: maximum relative and absolute difference between values that must be equal.
    """

    classes: int = 5
    tolerance: float = 1e-5

    @property
    def spec(self) -> LossSpec:
        """The record under test."""
        return self.used_registry.get_typed(LossSpec, self.name)

    def loss(self) -> Loss:
        """Return the loss under test."""
        made = self.made()
        require(isinstance(made, Loss), f"the target returned {described(made)}")
        made.check(self.classes)
        return made  # type: ignore[no-any-return]

    def logits(self, scale: float = 2.0) -> torch.Tensor:
        """Return logits of three micro-batches, the same at every call."""
        import torch

        return scale * torch.randn(3 * MICRO_BATCH, self.classes,
                                   generator=torch.Generator().manual_seed(13))

    def labels(self) -> torch.Tensor:
        """Return a label for each image; every class occurs if there are enough images."""
        import torch

        return torch.arange(3 * MICRO_BATCH) % self.classes

    def mixing(self) -> Mixing:
        """Return a mixing of the images by mixup and cutmix."""
        import torch

        coefficients = torch.linspace(0.5, 1, 3 * MICRO_BATCH)
        return Mixing(coefficients, torch.zeros(3, 4, dtype=torch.int64),
                      torch.tensor([0.25, 0.5, 1.0]))

    def require_close(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        """Require equal values up to the tolerance."""
        import torch

        require(torch.allclose(found, expected, rtol=self.tolerance, atol=self.tolerance),
                f"{what}: {float(found.detach()):.6g} instead of {float(expected.detach()):.6g}")

    def test_it_has_the_name_of_its_record(self) -> None:
        """The loss's `name`, for messages, is that of the record."""
        found = self.loss().name
        require(found == self.spec.name, f"its name is {found!r}, that of the record "
                f"{self.spec.name!r}")

    def test_returns_a_finite_float32_scalar(self) -> None:
        """The loss is a scalar in single precision, for logits of every type and large ones too."""
        import torch

        loss = self.loss()
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for scale in (1.0, 1e4):
                value = loss(self.logits(scale).to(dtype), self.labels())
                require(value.dtype == torch.float32 and value.dim() == 0,
                        f"it returned {value.dtype} of shape {tuple(value.shape)} for logits in "
                        f"{dtype}, expected a float32 scalar")
                require(bool(torch.isfinite(value)), f"it is {float(value)} for logits of size "
                        f"{scale:g} in {dtype}")

    def test_gradient_is_that_of_the_value(self) -> None:
        """A small step along the gradient changes the loss by the square of its length."""
        import torch

        loss = self.loss()
        for mixing in (None, self.mixing()):
            x = self.logits().requires_grad_()
            loss(x, self.labels(), mixing, MICRO_BATCH).backward()  # type: ignore[no-untyped-call]
            require(x.grad is not None and bool(torch.isfinite(x.grad).all()),
                    "the gradient is not finite")
            assert x.grad is not None
            square = float((x.grad ** 2).sum())
            require(square > 0, "the gradient is zero")
            step = 0.01 / square ** 0.5
            with torch.no_grad():
                ends = [float(loss(x + sign * step * x.grad, self.labels(), mixing, MICRO_BATCH))
                        for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * step)
            require(abs(slope - square) < 0.02 * square + 1e-4,
                    f"the loss changes by {slope:.4g} along its gradient, expected {square:.4g}")

    def test_minimising_it_predicts_the_labels(self) -> None:
        """Gradient descent on the logits makes every label the largest logit."""
        import torch

        loss, x, labels = self.loss(), self.logits().requires_grad_(), self.labels()
        optimizer = torch.optim.Adam([x], lr=0.2)
        for _ in range(100):
            optimizer.zero_grad()
            loss(x, labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        require(torch.equal(x.argmax(1), labels), "minimising it does not predict the labels")

    def test_micro_batches_are_averaged(self) -> None:
        """The loss of several micro-batches is the mean of their losses, mixed or not."""
        import torch

        loss, x, labels = self.loss(), self.logits(), self.labels()
        for mixing in (None, self.mixing()):
            parts = [loss(x[first:first + MICRO_BATCH], labels[first:first + MICRO_BATCH],
                          mixing.part(first // MICRO_BATCH, 1, MICRO_BATCH) if mixing else None,
                          MICRO_BATCH) for first in range(0, len(x), MICRO_BATCH)]
            self.require_close(loss(x, labels, mixing, MICRO_BATCH), torch.stack(parts).mean(),
                               "the loss of three micro-batches is not the mean of their losses")

    def test_mixed_labels_count_by_their_shares(self) -> None:
        """A mixed image's loss is the share-weighted sum of losses with its parts' labels."""
        import torch

        loss, x, labels = self.loss(), self.logits(), self.labels()
        form = loss.device_form()
        if form is not None and form.class_weights:
            raise SkipTest("its shares are weighted by class")
        for share in (1.0, 0.75):
            # two copies of one image, labelled either way and mixed with each other
            mixing = Mixing(torch.tensor([share, 1 - share]))
            for row in range(len(labels) - 1):
                image, both = x[row:row + 1], labels[row:row + 2]
                first, second = (loss(image, label) for label in (both[:1], both[1:]))
                self.require_close(loss(image.expand(2, -1), both, mixing, 2),
                                   share * first + (1 - share) * second,
                                   "the loss of a mixed image is not that of its labels by share")

    def test_it_is_a_pure_function(self) -> None:
        """A second call returns the same value, and no random numbers are drawn."""
        import torch

        loss, state = self.loss(), torch.random.get_rng_state()
        first, second = (loss(self.logits(), self.labels()) for _ in range(2))
        require(torch.equal(first, second), "it gives another value at the second call")
        require(torch.equal(state, torch.random.get_rng_state()), "it draws random numbers")

    def test_several_labels_per_image(self) -> None:
        """With a target per class, one label has the loss of the class label; two have another."""
        import torch

        if not self.spec.multi_label:
            raise SkipTest("it takes one label per image")
        loss, x, labels = self.loss(), self.logits(), self.labels()
        hot = torch.nn.functional.one_hot(labels, self.classes).float()
        for mixing in (None, self.mixing()):
            self.require_close(loss(x, hot, mixing, MICRO_BATCH),
                               loss(x, labels, mixing, MICRO_BATCH),
                               "targets with one label have another loss than the labels")
        require(not torch.allclose(loss(x, hot), loss(x, hot + hot.roll(1, 1))),
                "a second label does not change the loss")

    def test_traces(self) -> None:
        """A `traceable` loss can be traced, for backends that compile it with the model."""
        import torch

        loss = self.loss()
        if not loss.traceable:
            raise SkipTest("it is declared not to be traceable")
        mixing, x, labels = self.mixing(), self.logits(), self.labels()

        def mixed(x: torch.Tensor, labels: torch.Tensor, *drawn: torch.Tensor) -> torch.Tensor:
            return loss(x, labels, Mixing(*drawn), MICRO_BATCH)

        drawn = (mixing.coefficients, mixing.boxes, mixing.kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated in new torch and emits warnings
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                mixed, (x, labels, *drawn), check_trace=False)
            other: Any = (-3 * x, labels.flip(0), *drawn)
            self.require_close(traced(*other), mixed(*other),
                               "the traced loss gives another value for other logits and labels")

    def test_its_description_is_what_it_computes(self) -> None:
        """The result of `device_form` describes the same function."""
        import torch

        loss = self.loss()
        form = loss.device_form()
        if form is None:
            raise SkipTest("it has no description for devices with their own operators")
        require(isinstance(form, CrossEntropyForm),
                f"'device_form' returned {described(form)}")
        x, labels = self.logits(), self.labels()
        self.require_close(loss(x, labels), torch.nn.functional.cross_entropy(
            x, labels, weight=torch.tensor(form.class_weights) if form.class_weights else None,
            label_smoothing=form.label_smoothing), "its description is of another function")
