"""Opens image files whose classes are named in a CSV file."""

from __future__ import annotations

import os
from typing import Callable, Dict, Hashable, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import name_text
from ipucnn.data import DatasetRequest, check_classes, left_out
from ipucnn.data.image_files import FileImages, list_images, no_images
from ipucnn.data.left_out import LeftOut
from ipucnn.plugins.datasets import _held_out
from ipucnn.plugins.datasets._label_files import Finder, LabelFile, Labelled, read_labels
from ipucnn.plugins.datasets.image_folder import LAYOUT, ImageFolderOptions

Row = Tuple[str, Labelled]


class SeveralLabels(FileImages):
    """Image files that may have several labels each, or none.

    Args:
        paths: the files.
        labels: classes of each file.
        class_names: class names in the order of labels.
        notes: notes for the user.
        read: returns the content of a file.
    """

    multi_label = True

    def __init__(self, paths: Sequence[str], labels: Sequence[Tuple[int, ...]],
                 class_names: Tuple[str, ...], notes: Tuple[str, ...],
                 read: Callable[[str], bytes]) -> None:
        super().__init__(paths, None, class_names, notes, read)
        self._several = labels
        self.labels_in_memory = True

    def labels(self, index: int) -> Tuple[int, ...]:
        """Return the classes of image `index`."""
        return self._several[index]


def listed_images(root: str, request: DatasetRequest, options: ImageFolderOptions,
                  read: Callable[[str], bytes]) -> FileImages:
    """Return the images below `root` that a file of labels names, of one split.

    Args:
        root: the folder of the images.
        request: the arguments for the dataset.
        options: those of the dataset; `labels` is on this machine.
        read: returns the content of an image file.

    Raises:
        DataError: the file cannot be read or contradicts itself, names none of the images, or
            has classes that are not trained or more than the model has outputs.
        UsageError: `--validation-split` has no effect on a training.
    """
    file = read_labels(_place(str(options.labels), root))
    left = LeftOut(root)
    found = _found(file, root, left)
    rows, notes, shared = _of_split(found, file, left, request, options.validation_split)
    names = tuple(request.class_names) or file.classes
    numbers = {name: number for number, name in enumerate(names)}
    unknown = next((name for _, row in rows for name in row.classes if name not in numbers), None)
    if unknown is not None:
        raise DataError(f"label {unknown!r} in {file.path!r} is none of the {len(names)} classes "
                        "that are trained", "both splits must have the same classes")
    check_classes(repr(file.path), names, request.num_classes)
    labels = [tuple(sorted(numbers[name] for name in row.classes)) for _, row in rows]
    paths = [path for path, _ in rows]
    notes = (*file.notes, *notes, *left.notes())
    images = SeveralLabels(paths, labels, names, notes, read) if file.several else FileImages(
        paths, [label for label, in labels], names, notes, read)
    if len(rows) < len(found):
        images.split = request.split or "validation"
    images.held_out = shared
    return images


def _place(labels: str, root: str) -> str:
    """Return the path of the file of labels, which may be relative to the folder."""
    inside = os.path.join(root, labels)
    return inside if not os.path.exists(labels) and os.path.exists(inside) else labels


def _found(file: LabelFile, root: str, left: LeftOut) -> List[Row]:
    """Return the images that the file names, sorted by path."""
    paths = list_images(root, left)
    left.forget(os.path.join(root, os.path.relpath(file.path, root)))
    if not paths:
        raise no_images(root, left, f"layout: {LAYOUT}")
    finder = Finder(paths, root)
    found: Dict[str, Labelled] = {}
    for row in file.rows:
        path = finder(row.file)
        if path is None:
            left.add(left_out.MISSING, os.path.join(root, row.file or f"(line {row.line})"))
            continue
        before = found.setdefault(path, row)
        if (before.classes, before.split) != (row.classes, row.split):
            raise DataError(f"labels {file.path!r}: lines {before.line} and {row.line} give "
                            f"different labels for {name_text(path)!r}",
                            "keep one of them; several labels of an image are written in one line, "
                            "separated by '|'")
    if not found:
        raise DataError(f"labels {file.path!r} name none of the {len(paths)} images in {root!r}: "
                        f"the first line names {file.rows[0].file!r}, and the first image is "
                        f"{os.path.relpath(paths[0], root)!r}",
                        "name the folder of the images with '--data-dir'")
    for path in paths:
        if path not in found:
            left.add(left_out.UNLISTED, path)
        elif not found[path].classes and not file.several:
            left.add(left_out.UNLABELLED, path)
    rows = [(path, found[path]) for path in paths
            if path in found and (found[path].classes or file.several)]
    if not rows:
        raise DataError(f"labels {file.path!r} give no label to any of the {len(found)} images "
                        "that they name in " + repr(root),
                        "fill in the labels, or name another folder with '--data-dir'")
    return rows


def _of_split(rows: List[Row], file: LabelFile, left: LeftOut, request: DatasetRequest,
              given: Optional[float]) -> Tuple[List[Row], Tuple[str, ...], bool]:
    """Return the images of the requested split, notes, and whether a share is held out."""
    parts: Dict[str, List[Row]] = {}
    for row in rows:
        parts.setdefault(row[1].split, []).append(row)
    validation = parts.get("validation") or parts.get("test") or []
    if "validation" in parts:
        for path, _ in parts.get("test", []):
            left.add(left_out.OTHER_SPLIT, path)
    if validation:
        notes = (_held_out.no_effect(request, f"{file.path!r} has validation images"),) \
            if given else ()
        if request.split is None:
            return (validation, (*notes, f"the validation images of {file.path!r} are read"),
                    False)
        train = parts.get("train", [])
        if request.split == "train" and not train:
            raise _held_out.no_training(file.path)
        return train if request.split == "train" else validation, notes, False
    share = _held_out.share_of(request, given)
    if not share:
        if request.split == "validation":
            raise _held_out.no_split(file.path, LAYOUT)
        return rows, (), False
    # images with several labels cannot be divided by class
    strata: List[Hashable] = [0 if file.several else row.classes for _, row in rows]
    kept = _held_out.held_out([row.file for _, row in rows], strata, share, request.seed)
    wanted = request.split == "validation"
    return ([row for row, held in zip(rows, kept) if held == wanted],
            (_held_out.note(file.path, kept, strata, given is not None),), True)
