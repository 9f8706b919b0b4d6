"""Reads folders of images, one per class, and finds their splits."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import name_text
from ipucnn.core.names import class_key, listed
from ipucnn.data import DatasetRequest, left_out
from ipucnn.data.image_files import Contents, contents, folders_in, list_images
from ipucnn.data.left_out import LeftOut, unpacking

TRAINING_FOLDERS = ("train", "training")
VALIDATION_FOLDERS = ("validation", "valid", "val", "dev", "eval", "evaluation", "test", "testing")
"""Names of split folders in any case, the preferred ones first."""

_SPLITS = (*TRAINING_FOLDERS, *VALIDATION_FOLDERS)

# "training_set", "seg_test", "val2017", "Train images"
_LONGER = re.compile(rf"(.*[^a-z])?({'|'.join(_SPLITS)})((?:sets?|data|images|[^a-z]).*)?")


@dataclass(frozen=True)
class Layout:
    """The splits of a folder, and what is left out of it.

    Attributes:
        place: the folder that holds the classes or the splits.
        train: the folder of the training images; None without splits.
        validation: the folder of the validation images, or None.
        left: what is left out.
        notes: notes on the interpretation of the folder, if it is not obvious.
    """

    place: str
    train: Optional[str]
    validation: Optional[str]
    left: LeftOut
    notes: Tuple[str, ...] = ()

    @property
    def divided(self) -> bool:
        """Whether it has folders of splits."""
        return self.train is not None or self.validation is not None


def given_folder(request: DatasetRequest, dataset: str, layout: str) -> str:
    """Return the folder that a dataset is read from.

    Raises:
        DataError: no folder is named, or it does not exist.
    """
    if request.data_dir is None:
        raise DataError(f"dataset {dataset!r} needs a folder",
                        f"name it with '--data-dir'; layout: {layout}")
    if os.path.isfile(request.data_dir):
        raise DataError(f"{request.data_dir!r} is a file, and dataset {dataset!r} reads a folder",
                        unpacking(request.data_dir,
                                  f"name its folder with '--data-dir'; layout: {layout}"))
    if not os.path.isdir(request.data_dir):
        here = "" if os.path.isabs(request.data_dir) else f" in {os.getcwd()!r}"
        raise DataError(f"folder {request.data_dir!r} does not exist{here}",
                        f"name another one; layout: {layout}")
    return request.data_dir


def split_folder(root: str, names: Sequence[str]) -> Optional[str]:
    """Return the first folder below `root` with one of the names, in any case, or None."""
    by_name = {name.lower(): name for name in reversed(folders_in(root))}
    return next((os.path.join(root, by_name[name]) for name in names if name in by_name), None)


def find_layout(root: str) -> Layout:
    """Return how a folder of labelled images is divided.

    Folders called `train`, `val`, `test` or the like in any case are splits if they hold class
    folders, and so are pairs such as `seg_train` and `seg_test`. A folder that is alone in `root`
    and holds class folders or splits is entered.

    Raises:
        DataError: the layout is ambiguous, or the folder cannot be read.
    """
    left = LeftOut(root)
    notes: List[str] = []
    place = _entered(root, contents(root, left), notes)
    here = contents(place, left)
    words = _split_words(here.folders)
    splits = {name: contents(os.path.join(place, name)) for name in words}
    nested = [name for name in splits if splits[name].folders]
    flat = [name for name in splits if splits[name].images and name not in nested]
    others = [name for name in here.folders if name not in splits]
    if not nested:
        if flat and not others:
            raise _without_classes(place, flat)
        _question(place, here.folders, notes)
        _leave_loose(place, here, left)
        return Layout(place, None, None, left, tuple(notes))
    train, validation = (_preferred(nested, names, words)
                         for names in (TRAINING_FOLDERS, VALIDATION_FOLDERS))
    if others and (train is None or validation is None):
        raise _splits_and_classes(place, nested, others)
    unused = [name for name in here.folders if name not in (train, validation)]
    if unused:
        used = [name for name in (train, validation) if name is not None]
        notes.append(f"the splits {_listed(used)} of {name_text(place)!r} are used, not "
                     f"{_listed(unused)}")
    _leave_loose(place, here, left)
    training = train and _entered(os.path.join(place, train), splits[train], notes)
    held = validation and os.path.join(place, validation)
    # a class of the model is not a wrapper folder
    if validation and held and not (training and set(splits[validation].folders)
                                    <= set(folders_in(training))):
        held = _entered(held, splits[validation], notes)
    return Layout(place, training, held, left, tuple(notes))


def _without_classes(place: str, splits: Sequence[str]) -> DataError:
    """Return the error for splits with images and without class folders."""
    return DataError(
        f"{place!r} looks like splits without classes: {_listed(splits)} "
        f"{'holds' if len(splits) == 1 else 'hold'} images and no class folders",
        "put the images of each class into a folder of its own in each split, or name their "
        "classes in a file with '--labels'; '--data real' takes images without classes")


def _splits_and_classes(place: str, splits: Sequence[str], others: Sequence[str]) -> DataError:
    """Return the error for folders that may be splits or classes."""
    return DataError(
        f"{place!r} looks like splits and like classes: {_listed(splits)} "
        f"{'holds' if len(splits) == 1 else 'hold'} folders as a split does, and beside it "
        f"{'is' if len(others) == 1 else 'are'} {_listed(others)}",
        "keep only 'train' and 'validation' there, or only one folder per class; rename a class "
        "whose name is that of a split")


def _entered(folder: str, here: Contents, notes: List[str]) -> str:
    """Return the folder that holds the classes or splits: `folder`, or the only one in it."""
    place = folder
    while len(here.folders) == 1 and not here.images and here.folders[0].lower() not in _SPLITS:
        inner = os.path.join(place, here.folders[0])
        here = contents(inner)
        if here.images:  # it is a class
            return folder
        place = inner
        if len(here.folders) > 1 or any(name.lower() in _SPLITS for name in here.folders):
            notes.append(f"the images are read from {name_text(place)!r}, the only folder in "
                         f"{name_text(folder)!r}")
            return place
    return folder


def _split_words(folders: Sequence[str]) -> Dict[str, str]:
    """Return the split that each folder's name means, of those that mean one.

    Names longer than those of `_SPLITS` are considered only if no folder has one of these, and if a
    training and a validation folder differ only in this word or all folders contain one.
    """
    exact = {name: name.lower() for name in folders if name.lower() in _SPLITS}
    if exact:
        return exact
    matches = {name: match for name in folders
               for match in [_LONGER.fullmatch(name.lower())] if match}
    alike: Dict[Tuple[str, str], List[str]] = {}
    for name, match in matches.items():
        rest = ("", "") if len(matches) == len(folders) else (match[1] or "", match[3] or "")
        alike.setdefault(rest, []).append(name)
    for names in alike.values():
        words = {name: matches[name][2] for name in names}
        if {word in TRAINING_FOLDERS for word in words.values()} == {True, False}:
            return words
    return {}


def _question(place: str, folders: Sequence[str], notes: List[str]) -> None:
    """Raise an error for classes that are probably splits.

    Raises:
        DataError: every class is divided into splits.
    """
    inside = {name: contents(os.path.join(place, name)) for name in folders}
    if len(folders) < 2 or not all(here.folders for here in inside.values()):
        return
    if all({word in TRAINING_FOLDERS for word in _split_words(here.folders).values()}
           == {True, False} for here in inside.values()):
        first = folders[0]
        raise DataError(
            f"{place!r} has splits within its classes, such as "
            + " and ".join(repr(os.path.join(name_text(first), name_text(name)))
                           for name in list(_split_words(inside[first].folders))[:2]),
            "put the classes into the splits, as in 'train/<class>' and 'validation/<class>'")
    held = [tuple(here.folders) for here in inside.values() if not here.images]
    if len(held) == len(folders) and len(held[0]) > 1 and len(set(held)) == 1:
        notes.append(f"{_listed(folders)} are taken for classes, though each holds the folders "
                     f"{_listed(held[0])}: if those are the classes, call the folders around them "
                     "'train' and 'validation'")


def _preferred(found: Sequence[str], names: Sequence[str], words: Dict[str, str]) -> Optional[str]:
    """Return the folder whose word comes first in `names`.

    Raises:
        DataError: two folders have equal names but for the case, or both training names.
    """
    ranked = sorted((names.index(words[name]), name) for name in found if words[name] in names)
    if len(ranked) > 1 and (names is TRAINING_FOLDERS or ranked[0][0] == ranked[1][0]):
        raise DataError(f"{ranked[0][1]!r} and {ranked[1][1]!r} both look like the same split",
                        "keep one of them in the folder")
    return ranked[0][1] if ranked else None


def _leave_loose(place: str, here: Contents, left: LeftOut) -> None:
    for name in here.images:
        left.add(left_out.LOOSE, os.path.join(place, name))


def _listed(names: Sequence[str]) -> str:
    """Return up to four names in quotes."""
    return listed([name_text(name) for name in names], 4)


def images_by_class(folder: str, layout: str, classes: Sequence[str] = (),
                    left: Optional[LeftOut] = None,
                    ) -> Tuple[List[str], List[int], Tuple[str, ...]]:
    """Return paths, labels and class names.

    Args:
        folder: contains one folder per class.
        layout: for the error message.
        classes: class names in the order of labels; the sorted folders when empty. A class
            without a folder has no images.
        left: receives what is left out.

    Raises:
        DataError: there are no class folders, one is empty, or is not in `classes`.
    """
    left = left or LeftOut(folder)
    here = contents(folder, left)
    if not here.folders:
        count = len(here.images)
        why = f"{count} image{'s' * (count > 1)}" if count else left.summary()
        raise DataError(f"there are no class folders in {folder!r}"
                        + (f", but {why}" if why else ""),
                        "; ".join(filter(None, ("" if count else left.advice(),
                                                f"layout: {layout}"))))
    _leave_loose(folder, here, left)
    names = tuple(classes) or tuple(name_text(name) for name in here.folders)
    numbers: Dict[str, int] = {name: number for number, name in enumerate(names)}
    forms = [class_key(name) for name in names]
    counts = Counter(forms)
    alike = {form: number for number, form in enumerate(forms) if counts[form] == 1}
    paths: List[str] = []
    labels: List[int] = []
    for name in here.folders:
        place = os.path.join(folder, name)
        label = numbers.get(name_text(name), alike.get(class_key(name_text(name))))
        if label is None:
            raise DataError(f"class folder {place!r} is none of the {len(numbers)} classes that "
                            "are trained", "both splits must have the same class folders")
        own = LeftOut(place)
        images = list_images(place, own)
        if not images:
            why = own.summary()
            raise DataError(f"class folder {place!r} has no images"
                            + (f", but {why}" if why else ""),
                            "; ".join(filter(None, (own.advice(),
                                                    "add some, or remove the folder"))))
        left.include(own)
        paths += images
        labels += [label] * len(images)
    return paths, labels, names


def class_names(folder: str) -> Tuple[str, ...]:
    """Return the names of the classes whose folders are in `folder`, in the order of labels."""
    return tuple(name_text(name) for name in folders_in(folder))
