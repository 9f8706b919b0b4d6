"""The job behind `ipucnn explain`: class activation maps over a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy

from ipucnn.core.errors import DataError, IpucnnError, UnavailableError, UsageError
from ipucnn.core.names import class_key, did_you_mean
from ipucnn.core.showing import Blocks, Shown, Table
from ipucnn.data.given_images import GivenImages, fitted
from ipucnn.data.prepare import Preparation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ipucnn.core.registry.registry import Registry
    from ipucnn.inference.options import RunOptions
    from ipucnn.inference.prepared_run import Job

EXTRA = "pip install 'ipucnn[explain]'"


@dataclass(frozen=True)
class Activation:
    """The activation map of one class.

    Attributes:
        name: of the class.
        number: of the class.
        probability: of the class, 0 to 1.
        overlay: the input of the network with the map over it: uint8 `(size, size, 3)`.
    """

    name: str
    number: int
    probability: float
    overlay: Any


@dataclass(repr=False)
class Explanation(Shown):
    """The activation maps of an image, the most probable class first.

    Attributes:
        path: of the image.
        model: name of the model.
        layer: path of the module with the activations.
        image: the stored image: uint8 `(height, width, 3)`.
        classes: a map per class.
    """

    path: str
    model: str
    layer: str
    image: Any
    classes: List[Activation]

    def as_dict(self) -> Dict[str, Any]:
        """Return classes and layer as plain types, for JSON."""
        return {"format": "ipucnn.explain/1", "path": self.path, "model": self.model,
                "layer": self.layer, "classes": self.records()}

    def blocks(self) -> Blocks:
        """Return the classes; see `Shown`."""
        return [[("image", self.path), ("model", self.model), ("layer", self.layer)],
                Table(("class", "probability"), [
                    (one.name, f"{100 * one.probability:.1f} %") for one in self.classes])]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per class."""
        return [{"class": one.number, "name": one.name, "probability": one.probability}
                for one in self.classes]


def explain(path: str, options: RunOptions, registry: Registry, top_k: int,
            classes: Sequence[str] = (), layer: Optional[str] = None) -> Explanation:
    """Return class activation maps of an image by Grad-CAM.

    Source: Selvaraju et al., "Grad-CAM" (2017); computed by captum.

    Args:
        path: of the image.
        options: of a run: the model and its weights.
        registry: where names are looked up.
        top_k: number of the most probable classes, unless classes are named.
        classes: names or numbers of classes.
        layer: path of the module; by default the last one that contains a convolution and returns
            more than one value per channel, such as the last residual block, not its shortcut.

    Raises:
        UnavailableError: captum is not installed.
        DataError: the image cannot be read.
        UsageError: there is no such class or layer.
        IpucnnError: an output of the model is not a finite number.
    """
    _require_captum()
    import torch

    from ipucnn.data.images import cannot_skip
    from ipucnn.data.normalisation import normalise
    from ipucnn.inference.prepared_run import prepare

    job = prepare(options, registry, images=GivenImages([]))
    built, preprocessing = job.built, job.built.preprocessing
    dataset = fitted(GivenImages([path]), preprocessing.input_size)
    try:
        seen = torch.empty(Preparation(dataset, preprocessing).shape, dtype=torch.uint8)
        Preparation(dataset, preprocessing)(0, 0, seen.numpy())
    except DataError as error:
        cannot_skip(error, "name another image file")
        raise
    images = normalise(seen.permute(2, 0, 1)[None], preprocessing=preprocessing)
    module = built.module.eval().float()
    name, chosen = _layer(module, images, layer)
    with torch.no_grad():
        probabilities = built.card.probabilities(module(images))[0]
    if not numpy.isfinite(probabilities).all():
        raise IpucnnError(f"the model's outputs for {path!r} are not finite",
                          "the weights are damaged or diverged in training")
    numbers = [_class(word, built.card.names) for word in classes] or \
        (-probabilities).argsort(kind="stable")[:top_k].tolist()
    pixels = seen.flip(2) if preprocessing.channel_order == "bgr" else seen
    return Explanation(
        path, built.spec.name, name, dataset.image(0).permute(1, 2, 0).numpy(),
        [Activation(built.card.names[number], number, float(probabilities[number]),
                    _overlaid(pixels, _map(job, images, chosen, number))) for number in numbers])


def _require_captum() -> None:
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise UnavailableError("class activation maps need captum", EXTRA) from error


def _layer(module: nn.Module, images: torch.Tensor,
           wanted: Optional[str]) -> Tuple[str, nn.Module]:
    """Return the module with the activations, and its path."""
    import torch
    from torch import nn

    modules = {path.replace(".", "/"): one for path, one in module.named_modules() if path}
    if wanted is not None:
        path = wanted.replace(".", "/")
        if path not in modules:
            raise UsageError(f"the model has no module {wanted!r}", did_you_mean(path, modules)
                             or "'ipucnn show NAME --splits' lists them")
        return path, modules[path]
    called: List[str] = []
    hooks = [one.register_forward_hook(_note(called, path)) for path, one in modules.items()
             if any(isinstance(part, nn.Conv2d) for part in one.modules())]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        raise UsageError("the model has no convolution with more than one value per channel",
                         "name a module with '--layer'")
    return called[-1], modules[called[-1]]


def _note(called: List[str], path: str) -> Any:
    import torch

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            called.append(path)

    return hook


def _map(job: Job, images: torch.Tensor, layer: nn.Module, number: int) -> torch.Tensor:
    """Return the activation map of a class, 0 to 1, float32 `(size, size)`."""
    import torch
    from captum.attr import LayerAttribution, LayerGradCam

    module, single = job.built.module, job.built.num_outputs == 1 < job.built.card.classes

    def scores(batch: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = module(batch)
        return torch.cat([-outputs, outputs], 1) if single else outputs  # one output, two classes

    found = LayerGradCam(scores, layer).attribute(images.requires_grad_(), target=number,
                                                  relu_attributions=True)
    if found.dim() != 4 or min(found.shape[2:]) < 2:
        raise UsageError("the outputs of this module are not a map", "name another with '--layer'")
    large = LayerAttribution.interpolate(found.detach(), tuple(images.shape[2:]), "bilinear")[0, 0]
    peak = float(large.max())
    scaled: torch.Tensor = large / peak if peak > 0 else large
    return scaled


def _class(word: str, names: Sequence[str]) -> int:
    form = class_key(word)
    numbers = [number for number, name in enumerate(names) if name == word] or \
        [number for number, name in enumerate(names) if class_key(name) == form]
    if len(numbers) == 1:
        return numbers[0]
    if numbers:
        raise UsageError(f"{word!r} is the name of {len(numbers)} classes of the model",
                         "give a number: " + " or ".join(map(str, numbers)))
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise UsageError(f"the model has no class {word!r}", did_you_mean(word, names)
                     or f"it has {len(names)} classes: name one, or give its number")


_COLOURS = ((0.0, 0.0, 0.5), (0.0, 0.4, 1.0), (0.1, 0.9, 0.6), (1.0, 0.8, 0.0), (0.9, 0.1, 0.0))


def _overlaid(pixels: torch.Tensor, strength: torch.Tensor) -> Any:
    """Return an image with a map over it, which is opaque where it is strong."""
    import torch

    colours = torch.tensor(_COLOURS, dtype=torch.float32)
    place = strength.clamp(0, 1) * (len(_COLOURS) - 1)
    low = place.floor().long().clamp(max=len(_COLOURS) - 2)
    part = (place - low)[..., None]
    shade = 255 * (colours[low] * (1 - part) + colours[low + 1] * part)
    opacity = (0.65 * strength.clamp(0, 1) ** 0.7)[..., None]
    mixed = pixels.float() * (1 - opacity) + shade * opacity
    return mixed.round().clamp(0, 255).to(torch.uint8).numpy()
