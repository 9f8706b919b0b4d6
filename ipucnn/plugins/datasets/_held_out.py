"""Divides the images of one folder into training and validation images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from typing import Dict, Hashable, List, Optional, Sequence

from ipucnn.core.errors import NoSplitError, UsageError
from ipucnn.core.files import name_bytes
from ipucnn.data import DatasetRequest

DEFAULT_SHARE = 0.1
"""Share of the images that a training holds out by default."""


def share_of(request: DatasetRequest, given: Optional[float]) -> float:
    """Return the share of the images that is held out: 0 for none.

    Args:
        request: the request; an evaluation of the whole dataset holds out nothing.
        given: the value of `--validation-split`.
    """
    if request.split is None:
        return 0.0
    return given if given is not None else DEFAULT_SHARE if request.hold_out else 0.0


def held_out(names: Sequence[str], strata: Sequence[Hashable], share: float,
             seed: int) -> List[bool]:
    """Return whether each image is held out for validation.

    Of each stratum (class) with at least two images the rounded share is held out, at least one
    image and never all. The selection depends on `seed` and the names only, so that adding images
    moves few others.

    Args:
        names: of the images, relative to their folder.
        strata: the class of each.
        share: 0 to 1.
        seed: of the training.

    Raises:
        NoSplitError: no class has two images.
    """
    groups: Dict[Hashable, List[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        groups[stratum].append(index)
    result = [False] * len(names)
    for members in groups.values():
        count = min(len(members) - 1, max(1, int(share * len(members) + 0.5)))
        ranked = sorted(members, key=lambda index: _rank(names[index], seed))
        for index in ranked[:count]:
            result[index] = True
    if not any(result):
        raise NoSplitError("there are too few images to hold some out for validation",
                           "a class needs at least two; or add '--no-validation'")
    return result


def _rank(name: str, seed: int) -> bytes:
    text = f"{seed}/".encode() + name_bytes(name.replace(os.sep, "/"))
    return hashlib.blake2b(text, digest_size=16).digest()


def note(root: str, kept: Sequence[bool], strata: Sequence[Hashable], given: bool) -> str:
    """Return the note about images that are held out."""
    single = sum(count == 1 for count in Counter(strata).values())
    without = "" if not single else " ({} a single image, which is not held out)".format(
        "1 class has" if single == 1 else f"{single} classes have")
    how = "" if given else ": set the share with '--validation-split'"
    are = "is" if sum(kept) == 1 else "are"
    return (f"{sum(kept)} of the {len(kept)} images in {root!r} {are} held out for validation"
            f"{without}{how}")


def no_effect(request: DatasetRequest, why: str) -> str:
    """Return the note about a share without effect, which the checkpoint of a training contains.

    Raises:
        UsageError: the images are those of a training.
    """
    message = f"'--validation-split' has no effect: {why}"
    if request.split == "train":
        raise UsageError(message, "leave it out; a restored training needs the images as they were")
    return message


def no_training(root: str) -> NoSplitError:
    """Return the error for validation images without training images."""
    return NoSplitError(f"there are no training images in {root!r}, only validation images",
                        "name other data, or validate on them")


def no_split(root: str, layout: str) -> NoSplitError:
    """Return the error for a folder without validation images and without a held-out share."""
    return NoSplitError(
        f"there are no validation images in {root!r}",
        f"hold some out with '--validation-split 0.1', name a folder of them with "
        f"'--validation-data-dir', or add '--no-validation'; layout: {layout}")
