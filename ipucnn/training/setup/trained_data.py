"""Compares the images of a restored training with those that it was trained on."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from ipucnn.core.errors import DataError, PluginError, UsageError
from ipucnn.core.names import brief, listed
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.records import RANDOM_RESIZED_CROP
from ipucnn.data import ImageDataset
from ipucnn.data.dataset_checks import who
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_content import CLASS_COUNTS
from ipucnn.models.class_names import match_classes
from ipucnn.models.optimisation import parameter_groups
from ipucnn.training.checkpoints.checkpoint import Checkpoint
from ipucnn.training.options.fine_tuning import FineTuningPart
from ipucnn.training.setup.parameters import layers_of


def described(dataset: ImageDataset, counts: Sequence[int] = ()) -> Dict[str, Any]:
    """Return the description of training images that checkpoints carry.

    Args:
        dataset: the images.
        counts: their number by output, if the loss depends on it.
    """
    fingerprint = dataset.fingerprint()
    if not isinstance(fingerprint, str):
        raise PluginError(f"{who(dataset)} returned {brief(fingerprint)} as its fingerprint, "
                          "expected text")
    found = {"images": len(dataset), "classes": list(dataset.class_names),
             "fingerprint": fingerprint, "recipe": dataset.recipe}
    if counts:
        found[CLASS_COUNTS] = list(counts)
    if dataset.held_out:
        names = _names(dataset)
        found["names"] = _digests(names, _folder(names)).sort().values
    return found


def moved(checkpoint: Checkpoint, dataset: ImageDataset,
          validation: Optional[ImageDataset]) -> List[str]:
    """Return the note about validation images that the checkpoint was trained on.

    The number of images held out changes with that of all images, and so does their choice.

    Args:
        checkpoint: from which the training continues.
        dataset: its training images now.
        validation: its validation images now.
    """
    trained = checkpoint.data.get("names")
    if not isinstance(trained, torch.Tensor) or trained.dtype is not torch.int64 \
            or validation is None or not validation.held_out:
        return []
    now = _digests(_names(validation), _folder(_names(dataset)))
    count = int(torch.isin(now, trained).sum())
    if not count:
        return []
    return [f"{count} of the {len(validation)} validation images {'was' if count == 1 else 'were'} "
            "trained on before, because other images are held out now: the accuracy may be too "
            "high; '--validation-data-dir' names a folder of validation images"]


def _names(dataset: ImageDataset) -> List[str]:
    return [dataset.name(index) for index in range(len(dataset))]


def _folder(names: Sequence[str]) -> str:
    """Return the folder of all images, which may have moved since."""
    # names of datasets that are not paths, or are URLs, have no `commonpath`
    return os.path.dirname(os.path.commonprefix(names))  # noqa: RUF071 - the folder of it is one


def _digests(names: Sequence[str], folder: str) -> torch.Tensor:
    """Return a number for each name below a folder, int64 `(n,)`."""
    return torch.tensor([int.from_bytes(hashlib.blake2b(
        name[len(folder):].replace(os.sep, "/").encode("utf-8", "surrogatepass"), digest_size=8,
    ).digest(), "big", signed=True) for name in names], dtype=torch.int64)


def same_images(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two results of `described` are of the same listing of images.

    Files of earlier versions have no description; their images count as the same.
    """
    return not before or all(before[name] == now[name] for name in ("images", "fingerprint"))


def crop_as_before(checkpoint: Checkpoint, dataset: ImageDataset) -> List[str]:
    """Crop the training images of a restored training as it did, and return notes.

    Checkpoints without a recipe were written when all training images were cropped alike.

    Args:
        checkpoint: from which the training continues.
        dataset: its training images now.
    """
    before = checkpoint.data.get("recipe", RANDOM_RESIZED_CROP)
    if before == dataset.recipe:
        return []
    if before != RANDOM_RESIZED_CROP and not dataset.native_size:
        return []  # another dataset, with images of any size
    own, dataset.recipe = dataset.recipe, before
    return [f"training images are cropped by {before}, as before; a new training on this dataset "
            f"uses {own}"]


def compared(checkpoint: Checkpoint, dataset: ImageDataset, how: str,
             what: str) -> Tuple[ModelCard, List[str]]:
    """Compare the training images with those of a checkpoint.

    Args:
        checkpoint: from which the training continues.
        dataset: its training images now.
        how: how classes are matched, see `match_classes`.
        what: the dataset, for messages.

    Returns:
        The card of the model, with further classes if the checkpoint allows them, and notes.

    Raises:
        DataError: classes were added without `--add-classes`, or no class matches.
    """
    card = checkpoint.card
    assert card is not None
    notes = _differences(checkpoint.data, dataset, what)
    if not dataset.class_names or not card.class_names or how == "position":
        return card, notes
    match = match_classes(dataset.class_names, card.class_names, card.classes, how, what)
    added = [name for name, output in zip(dataset.class_names, match.outputs) if output is None]
    known = {output for output in match.outputs if output is not None}
    lost = [name for number, name in enumerate(card.class_names) if number not in known]
    gone = f", and {listed(lost)} {'is' if len(lost) == 1 else 'are'} gone" if lost else ""
    if added and not checkpoint.add_classes:
        raise DataError(
            f"{what} has classes that the training does not have: {listed(added)}{gone}",
            "rename their folders as before, or remove them; '--add-classes' adds outputs for "
            "them")
    if lost:
        notes.append(f"{what} has no images of {listed(lost)} any more")
    if added:
        if card.num_outputs != card.classes:
            raise DataError("a model with one output distinguishes two classes and cannot get a "
                            "third", "start another training with 'ipucnn train --weights FILE'")
        notes.append(f"classes are added: {listed(added)}")
        card = replace(card, class_names=(*card.class_names, *added),
                       num_outputs=card.num_outputs + len(added))
    return card, notes


def _differences(before: Mapping[str, Any], dataset: ImageDataset, what: str) -> List[str]:
    if not before:
        return []
    images = len(dataset)
    if images != before["images"]:
        change = "more" if images > before["images"] else "fewer"
        return [f"{what} has {change} images than before: {images}, not {before['images']}"]
    if dataset.fingerprint() != before["fingerprint"]:
        return [f"{what} has {images} images as before, but not the same files"]
    return [f"{what} is the same as before: {images} images"]


def grown(checkpoint: Checkpoint, module: nn.Module) -> Checkpoint:
    """Return a checkpoint for a model with more outputs.

    New outputs start with the model's own random weights, and with an optimizer state of zero.
    Earlier validations did not count the new classes, so the best of them is forgotten.

    Args:
        checkpoint: of the smaller model.
        module: the larger model, in which the trained parameters require gradients.

    Raises:
        UsageError: the backend's optimizer state cannot be extended.
    """
    fresh = module.state_dict()
    larger = {name for name, value in checkpoint.weights.items()
              if name in fresh and fresh[name].shape != value.shape}
    optimizer = checkpoint.session.get("optimizer")
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get("state"), dict):
        raise UsageError("'--add-classes' cannot extend the optimizer state of this backend",
                         "start another training with 'ipucnn train --weights FILE "
                         "--weights-partial'")
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tuning = FineTuningPart(**{item.name: checkpoint.options.get(item.name, item.default)
                               for item in declared(FineTuningPart)})
    factors, head = layers_of(module, tuning)
    order = [names[id(parameter)] for group in parameter_groups(module, 1.0, factors, head)
             for parameter in group["params"]]
    shapes = {name: value.shape for name, value in checkpoint.weights.items()}
    state = {index: {key: _padded(value, torch.zeros_like(fresh[order[index]], dtype=value.dtype))
                     if order[index] in larger and isinstance(value, torch.Tensor)
                     and value.shape == shapes[order[index]] else value
                     for key, value in entry.items()}
             for index, entry in optimizer["state"].items()}

    def extended(weights: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        return {name: _padded(value, fresh[name]) if name in larger else value
                for name, value in weights.items()}

    session = {**checkpoint.session, "optimizer": {**optimizer, "state": state}}
    return replace(checkpoint, weights=extended(checkpoint.weights), session=session, grown=True,
                   progress={**checkpoint.progress, **_validated(checkpoint), "standing": {}},
                   ema=None if checkpoint.ema is None else extended(checkpoint.ema))


def _validated(checkpoint: Checkpoint) -> Dict[str, int]:
    """Return the progress that counts the validation of a finished epoch as recorded.

    A checkpoint is older than the validation of its epoch, which a restored training otherwise
    repeats. The larger model does not, so the rows of the smaller one are kept.
    """
    position, validated = checkpoint.position, checkpoint.progress.get("validated", 0)
    if position.call or validated == position.epoch:
        return {}
    rows = 1 if checkpoint.ema is None else 2
    return {"validated": position.epoch, "rows": checkpoint.progress.get("rows", 0) + rows}


def _padded(value: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """Return `value` with the further rows of `fresh`."""
    return torch.cat([value, fresh[len(value):].to(value.dtype).cpu()])
