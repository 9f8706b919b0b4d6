"""The note about class folders whose images a run classifies without scoring them."""

from __future__ import annotations

import os
from collections import Counter
from typing import Iterator, List, Sequence, Tuple

from ipucnn.core.errors import IpucnnError
from ipucnn.core.files import name_text
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.data.formats.recognition import dataset_in, is_url
from ipucnn.data.remote.transfer import shown
from ipucnn.inference.options import RunDataset, RunOptions
from ipucnn.models.built import BuiltModel
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import known_outputs

_DEEPEST = 5
"""Levels of folders that may be classes: below wrapper folders and the folders of splits."""


def unscored_notes(options: RunOptions, images: ImageDataset, built: BuiltModel,
                   registry: Registry) -> List[str]:
    """Return the note about folders that look like classes and are not scored; empty without one.

    Args:
        options: of the run.
        images: the images to classify.
        built: the model; nothing is noted for random weights.
        registry: where the format of the folder is looked up.
    """
    place = options.dataset.data_dir
    if "data" in options.given or options.dataset.name != RunDataset.data \
            or not place or images.class_names or built.weights.source == "random":
        return []
    card = built.card
    root = shown(place) if is_url(place) else os.path.expanduser(place)
    if os.path.isfile(root):
        return []
    levels = list(_levels(images, name_text(root)))
    if not levels:
        return []
    known = next(((folder, card.names[output]) for folders in levels
                  for folder, output in _known(folders, card)), None)
    try:
        data = dataset_in(place, registry, "image_folder")
    except IpucnnError:  # a store that fails, which reading the images reports
        return []
    begin = f"the images of {name_text(root)!r} are classified without being scored: "
    if known is not None:
        return [f"{begin}folder {name_text(known[0])!r} is the class {name_text(known[1])!r} of "
                f"the model: '--data {data}' scores a folder that contains one folder per class"]
    names = f"such as {name_text(card.class_names[0])!r}" if card.class_names \
        else "which does not name its classes"
    return [f"{begin}none of its folders, such as {name_text(levels[-1][0])!r}, is a class of the "
            f"model, {names}: use a model of these classes or "
            f"another folder, '--data {data} --match-classes position' if only the names differ, "
            f"or '--data {RunDataset.data}' if the folders are no classes"]


def _levels(images: ImageDataset, root: str) -> Iterator[List[str]]:
    """Yield the sorted names of the folders of each level that can be classes.

    Most images are in a folder of this level, and there are several of them.
    """
    places = Counter(os.path.dirname(images.name(index)) or os.curdir
                     for index in range(len(images)))
    counts = {_parts(os.path.relpath(place, root)): count for place, count in places.items()}
    for level in range(_DEEPEST):
        inside = {parts: count for parts, count in counts.items() if len(parts) > level}
        if 2 * sum(inside.values()) <= len(images):
            break
        folders = sorted({parts[level] for parts in inside})
        if len(folders) > 1:
            yield folders


def _parts(folder: str) -> Tuple[str, ...]:
    return () if folder == os.curdir else tuple(folder.split(os.sep))


def _known(folders: Sequence[str], card: ModelCard) -> Iterator[Tuple[str, int]]:
    """Yield the folders that are classes of the model, and their numbers."""
    outputs = known_outputs(folders, card.class_names, card.classes)
    yield from ((folder, output) for folder, output in zip(folders, outputs)
                if output is not None)
