"""A model that is ready to classify images: the result of `ipucnn.load`."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple, Union, overload

from ipucnn.api.modes import ordinary_modes
from ipucnn.core.errors import UsageError
from ipucnn.core.showing import Blocks, Shown
from ipucnn.inference.answering import Answering, Prediction, Predictions

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from ipucnn.core.registry.discovery import PluginSettings
    from ipucnn.models.card import ModelCard


class LoadedModel(Shown):
    """A model that classifies images; created by `ipucnn.load`.

    The device is prepared with the first prediction, and freed by `close` or at the end of a
    ``with`` block. A model is thread-safe; calls are executed one after the other.

    A pickled model holds its options, not its weights: unpickling, as in another process, loads the
    model again from its files, which takes as long as `ipucnn.load`.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._module: Optional[nn.Module] = None

    @overload
    def predict(self, images: Union[str, os.PathLike[str]], top_k: int = 5) -> Any: ...

    @overload
    def predict(self, images: Image.Image, top_k: int = 5) -> Prediction: ...

    @overload
    def predict(self, images: Sequence[Any], top_k: int = 5) -> Predictions: ...

    @overload
    def predict(self, images: Any, top_k: int = 5) -> Any: ...

    def predict(self, images: Any, top_k: int = 5) -> Any:
        """Return the most probable classes of one image, or of each of several.

        Images are preprocessed for the model (`card.preprocessing`).

        Args:
            images: an image of Pillow, numpy (uint8, `(height, width, 3)`) or torch (uint8,
                `(3, height, width)`), the path of one or of a folder, or several in a list, an
                iterable or a dataset; or an item of a dataset of ipucnn. Labels are not used.
            top_k: classes per image, at most those of the model.

        Returns:
            A `Prediction` for one image, and a list of them, `Predictions`, for several: names and
            probabilities from 0 to 1, the most probable class first.

        Raises:
            DataError: an image cannot be read, or is not of 8-bit RGB.
            UsageError: the argument has no images, or `top_k` is less than 1.
        """
        from ipucnn.data.given_images import given_images

        try:
            classes = operator.index(top_k)  # numpy's whole numbers, too
        except TypeError:
            raise UsageError(f"option 'top_k' is {top_k!r}", "it is a whole number") from None
        if classes < 1:
            raise UsageError(f"option 'top_k' is {top_k}", "the smallest value is 1")
        dataset, single = given_images(images, labels=False)
        with ordinary_modes():
            found = self._answering(dataset, classes)
        return found[0] if single and found else found

    @property
    def card(self) -> ModelCard:
        """The description of the model, its input images and its outputs."""
        return self._answering.job.built.card

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of its classes, in the order of its outputs."""
        return tuple(self.card.names)

    @property
    def module(self) -> nn.Module:
        """The network as a `torch.nn.Module`, in float32 and evaluation mode.

        It maps `(n, 3, size, size)` normalised float images to `(n, outputs)`. It is a copy:
        changes have no effect on `predict`.

        Raises:
            UsageError: the model is an ONNX file.
        """
        if self._module is None:
            from ipucnn.inference.prepared_run import model_of

            job = self._answering.job
            if job.options.network.onnx:
                raise UsageError(f"{job.options.network.onnx!r} is an ONNX file, not a torch "
                                 "module", "load the checkpoint that it was exported from")
            with ordinary_modes():
                built = model_of(job.options, job.options.network, job.registry)
            self._module = built.module.eval()
        return self._module

    @property
    def backend(self) -> str:
        """Name of the backend that computes."""
        return self._answering.job.chosen.spec.name

    @property
    def notes(self) -> List[str]:
        """Notes for the user about the model and the backend."""
        return list(self._answering.job.notes)

    def __reduce__(self) -> Tuple[Any, ...]:
        return _loaded_again, self._answering.recipe()

    def close(self) -> None:
        """Free the device; the next prediction acquires it again."""
        self._answering.close()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def blocks(self) -> Blocks:
        """Return the model card; see `Shown`."""
        card, job = self.card, self._answering.job
        few = ", ".join(self.classes[:5]) + (" ..." if len(self.classes) > 5 else "")
        return [[("model", f"{card.model}, {job.built.weights.summary()}"),
                 ("classes", f"{card.classes}: {few}"), ("images", card.preprocessing.summary()),
                 ("backend", f"{self.backend} on {job.chosen.probe.device}"),
                 ("precision", job.options.execution.precision)]]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per class."""
        return [{"class": number, "name": name} for number, name in enumerate(self.classes)]


def _loaded_again(values: Dict[str, Any], settings: PluginSettings) -> LoadedModel:
    """Return the model of a pickle.

    Raises:
        IpucnnError: its files or plugins cannot be used any more.
    """
    from ipucnn.core.options.building import build
    from ipucnn.core.registry.registry import Registry, registry
    from ipucnn.inference.options import RunOptions

    used = registry()
    if used.settings != settings:
        used = Registry(settings)
    with ordinary_modes():
        return LoadedModel(Answering(build(RunOptions, values, registry=used), used))
