"""Conformance suites for models and norm layers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Optional, Tuple

from ipucnn.core.names import described
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec
from ipucnn.models.norms import NormSite
from ipucnn.testing.suite import Suite, require

if TYPE_CHECKING:
    import torch


class ModelSuite(Suite):
    """Checks a model.

    Attributes:
        input_size: height and width of the images; None for that of the record. Smaller images
            speed up the checks of a large network.
    """

    input_size: Optional[int] = None
    _last: ClassVar[Tuple[Any, Any]] = (None, None)

    @property
    def spec(self) -> ModelSpec:
        """The record under test."""
        return self.used_registry.get_typed(ModelSpec, self.name)

    def arguments(self) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Return the arguments of the target other than its options."""
        return (), {"num_classes": 7}

    def network(self) -> torch.nn.Module:
        """Return the result of `build()`; shared by checks that do not change the network."""
        key = (type(self), self.name)
        if ModelSuite._last[0] != key:
            ModelSuite._last = (key, self.build())
        network: torch.nn.Module = ModelSuite._last[1]
        return network.eval()

    def build(self, num_classes: int = 7, seed: int = 0) -> torch.nn.Module:
        """Return a new network, in eval mode, with random weights determined by `seed`."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: torch.nn.Module = self.made(num_classes=num_classes)
        require(isinstance(model, torch.nn.Module), f"the target returned {described(model)}")
        return model.eval()

    def images(self, count: int = 2) -> torch.Tensor:
        """Return normalised images, `(count, 3, size, size)`."""
        import torch

        size = self.input_size or self.spec.input_size
        return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))

    def test_logits_for_any_number_of_classes(self) -> None:
        """A network for n classes returns n finite floating-point logits per image."""
        import torch

        for num_classes in (7, 1000):
            model = self.network() if num_classes == 7 else self.build(num_classes)
            with torch.no_grad():
                logits = model(self.images())
            require(tuple(logits.shape) == (2, num_classes),
                    f"logits for {num_classes} classes have shape {tuple(logits.shape)}")
            require(bool(torch.isfinite(logits).all()), "logits are not finite")

    def test_eval_is_deterministic(self) -> None:
        """In eval mode, equal images give equal logits, independent of the rest of the batch."""
        import torch

        model, images = self.network(), self.images()
        with torch.no_grad():
            first, second = model(images), model(images)
            alone = torch.cat([model(image[None]) for image in images])
        require(torch.equal(first, second), "two evaluations of the same images differ")
        require(torch.allclose(first, alone, rtol=1e-3, atol=1e-4),
                "an image's logits depend on its neighbours in the batch")

    def test_outputs_are_logits(self) -> None:
        """Outputs are float32 logits, not probabilities, because losses apply softmax."""
        import torch

        with torch.no_grad():
            found = self.network()(self.images())
        require(found.dtype == torch.float32, f"logits are {found.dtype}, expected float32: the "
                "backend decides on the precision")
        positive = bool((found >= 0).all()) and bool((found > 0).any())
        require(not (positive and torch.allclose(found.sum(1), torch.ones(len(found)), atol=1e-3)),
                "outputs of an image add up to 1: it returns probabilities instead of logits")
        require(not (positive and bool((found < 1).all())),
                "all outputs are between 0 and 1: it returns probabilities instead of logits")

    def test_state_dict_round_trip(self) -> None:
        """The state dictionary contains all state that the logits depend on."""
        import torch

        model, other = self.network(), self.build(seed=1)
        state = model.state_dict()
        wrong = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
        require(not wrong, f"the state dictionary holds no tensor under {wrong[:3]}")
        other.load_state_dict(state)
        with torch.no_grad():
            require(torch.equal(model(self.images()), other(self.images())),
                    "loading the state dictionary does not give the same logits")

    def test_gradient_reaches_every_parameter(self) -> None:
        """The loss depends on every parameter that requires a gradient."""
        import torch

        # In eval mode: dropped branches (stochastic depth) would cut parameters off by chance.
        model = self.network()
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(self.images()), torch.tensor([0, 1]))
        loss.backward()  # type: ignore[no-untyped-call]
        cut = [name for name, p in model.named_parameters()
               if p.requires_grad and (p.grad is None or not bool(torch.isfinite(p.grad).all()))]
        require(not cut, f"no finite gradient reaches {', '.join(cut[:3])} ({len(cut)} in all)")

    def test_trains(self) -> None:
        """A training step changes the parameters and keeps the logits finite."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().train()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            before = [p.detach().clone() for p in model.parameters()]
            loss = torch.nn.functional.cross_entropy(model(self.images(4)),
                                                     torch.tensor([0, 1, 2, 3]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        require(bool(torch.isfinite(loss)), "the loss is not finite")
        require(any(not torch.equal(a, b) for a, b in zip(before, model.parameters())),
                "a training step changes no parameter")

    def test_traces(self) -> None:
        """The network can be traced, as required for IPUs and exports."""
        import torch

        model, images = self.network(), self.images()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing is deprecated in new torch and emits warnings
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                model, images, check_trace=False)
            require(torch.allclose(traced(images), model(images), rtol=1e-3, atol=1e-4),
                    "the traced model gives other logits")

    def test_preprocessing_is_that_of_the_weights(self) -> None:
        """The record prepares images at a size that it computes, as stated in files with a card."""
        from ipucnn.models.weights_card import file_card
        from ipucnn.models.weights_source import local_file

        spec = self.spec
        for tag, used in (("", spec.preprocessing),
                          *((one.tag, one.preprocessing) for one in spec.weights)):
            if used is not None and spec.input_sizes:
                low, high = spec.input_sizes
                require(low <= used.input_size <= high,
                        f"preprocessing{' of weights ' + repr(tag) if tag else ''} is for "
                        f"{used.input_size} pixels, and the record computes {low} to {high}")
        for published in spec.weights:
            path = local_file(published.url, spec.requires)
            card = file_card(str(path), self.used_registry) if path else None
            stated = published.preprocessing or spec.preprocessing
            if card is None or stated is None:
                continue
            own, declared = (one.as_plain() for one in (stated, card.preprocessing))
            wrong = [name for name in own if name != "assumed" and own[name] != declared.get(name)]
            require(not wrong, "; ".join(
                f"weights '{published.tag}' state {name} {declared.get(name)}, and the record "
                f"{own[name]}" for name in wrong))

    def test_published_weights_load(self) -> None:
        """Downloads have a digest; other published weights fit, with the head or a new one."""
        from ipucnn.models.weights import load_weights
        from ipucnn.models.weights_source import local_file

        for published in self.spec.weights:
            if published.reader:  # another library finds and checks the file
                continue
            if local_file(published.url, self.spec.requires) is None:
                require(bool(published.sha256), f"weights '{published.tag}' are published without "
                        "a digest")
                continue
            for classes in (None, 7):
                model = self.build(classes or self.spec.num_classes)
                load_weights(model, self.spec, f"pretrained:{published.tag}", num_classes=classes)


class NormLayerSuite(Suite):
    """Checks a norm layer.

    Attributes:
        channels: of the layers built.
    """

    channels: int = 32

    @property
    def spec(self) -> NormLayerSpec:
        """The record under test."""
        return self.used_registry.get_typed(NormLayerSpec, self.name)

    def arguments(self) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Return the arguments of the target other than its options."""
        return (NormSite(name="layer1/0/bn1", channels=self.channels, eps=1e-5, momentum=0.1,
                         affine=True, running_statistics=True,
                         common_channels=self.channels),), {}

    def build(self) -> torch.nn.Module:
        """Return a layer for `channels` channels."""
        import torch

        layer: torch.nn.Module = self.made(*self.arguments()[0])
        require(isinstance(layer, torch.nn.Module), f"the target returned {described(layer)}")
        return layer

    def images(self) -> torch.Tensor:
        """Return activations, `(2, channels, 5, 4)`."""
        import torch

        return torch.randn(2, self.channels, 5, 4, generator=torch.Generator().manual_seed(1))

    def test_shape_and_type_are_kept(self) -> None:
        """Activations keep shape and type, in training and in eval mode."""
        import torch

        for training in (True, False):
            result = self.build().train(training)(self.images())
            require(result.shape == self.images().shape, f"the shape becomes {result.shape}")
            require(result.dtype == torch.float32, f"the type becomes {result.dtype}")
            require(bool(torch.isfinite(result).all()), "the result is not finite")

    def test_gradient_flows(self) -> None:
        """The gradient reaches the input and every parameter."""
        import torch

        layer, images = self.build().train(), self.images().requires_grad_()
        weight = torch.linspace(-1, 1, images.numel()).view_as(images)
        (layer(images) * weight).sum().backward()
        require(images.grad is not None and bool(images.grad.abs().sum() > 0),
                "no gradient reaches the input")
        cut = [name for name, p in layer.named_parameters()
               if p.grad is None or not bool(p.grad.abs().sum() > 0)]
        require(not cut, f"no gradient reaches {', '.join(cut)}")

    def test_state_dict_round_trip(self) -> None:
        """A second layer with the same state gives the same result."""
        import torch

        layer, other = self.build(), self.build()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
        layer.train()(self.images())
        state: Dict[str, torch.Tensor] = layer.state_dict()
        other.load_state_dict(state)
        require(torch.equal(layer.eval()(self.images()), other.eval()(self.images())),
                "loading the state dictionary does not give the same result")

    def test_samples_are_independent_unless_it_says_otherwise(self) -> None:
        """Only layers with a `batch_dependent` record mix the samples of a batch in training."""
        import torch

        if self.spec.batch_dependent:
            return
        layer, images = self.build().train(), self.images()
        require(torch.allclose(layer(images)[:1], layer(images[:1]), rtol=1e-4, atol=1e-5),
                "samples influence each other, and the record lacks 'batch_dependent'")
