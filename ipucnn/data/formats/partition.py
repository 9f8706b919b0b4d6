"""Divides a folder of images into numbered folders, one for each process that reads them."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import name_text, require_local
from ipucnn.core.showing import Blocks, Shown
from ipucnn.core.staging import scratch
from ipucnn.data.image_files import list_images, no_images
from ipucnn.data.left_out import LeftOut, unpacking

log = logging.getLogger(__name__)

# error codes of file systems that do not support a kind of link, or not for this file
_NO_SUCH_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS,
                 errno.ENOTSUP, errno.EOPNOTSUPP}

Way = Tuple[str, Callable[[str, str], Any]]


@dataclass(frozen=True, repr=False)
class Partitions(Shown):
    """The result of a partitioning.

    Attributes:
        output: the folder of the partitions.
        sizes: images of each partition, whose folder is its number.
        made_as: how many images are hard links, symbolic links and copies.
        notes: what was left out of the folder of the images.
    """

    output: str
    sizes: List[int]
    made_as: Dict[str, int]
    notes: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        """Return plain types, for JSON."""
        return {"output": self.output, "images": sum(self.sizes), "made_as": self.made_as,
                "notes": list(self.notes),
                "partitions": [{"path": os.path.join(self.output, str(number)), "images": size}
                               for number, size in enumerate(self.sizes)]}

    def blocks(self) -> Blocks:
        """Return the summary and the notes; see `Shown`."""
        return [[("partitions", self.summary()), ("notes", list(self.notes))]]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per partition."""
        rows: List[Dict[str, Any]] = self.as_dict()["partitions"]
        return rows

    def summary(self) -> str:
        """Return one line."""
        sizes = " or ".join(map(str, sorted(set(self.sizes))))
        ways = ", ".join(f"{count} {way}" for way, count in self.made_as.items())
        return f"{name_text(self.output)}: {len(self.sizes)} partitions of {sizes} images ({ways})"


def partition(data_dir: str, partitions: int, output: str, copy: bool = False) -> Partitions:
    """Divide the images in a folder into the folders `output/0`, `output/1` and so on.

    Each gets consecutive images in sorted order, under their path below `data_dir`; sizes
    differ by at most one. `output` appears when it is complete, or not at all.

    Args:
        data_dir: the folder of images, at any depth; it is not changed.
        partitions: how many.
        output: a new or empty folder outside `data_dir`.
        copy: copy the images. Otherwise they are hard links where the file system supports them,
            or else symbolic links, or else copies.

    Raises:
        UsageError: `output` cannot be used, or there are more partitions than images.
        DataError: there are no images, or they cannot be read, or the partitions not written.
    """
    if not os.path.isdir(data_dir):
        what = "is no folder" if os.path.exists(data_dir) else "does not exist"
        raise DataError(f"{data_dir!r} {what}",
                        unpacking(data_dir, "name a folder with '--data-dir'"))
    left = LeftOut(data_dir)
    images = list_images(data_dir, left)
    if not images:
        raise no_images(data_dir, left, "is it the right folder?")
    if not 1 <= partitions <= len(images):
        raise UsageError(f"{partitions} partitions cannot be made of {len(images)} images",
                         f"'--partitions' can be 1 to {len(images)}")
    _check_output(output, data_dir)
    bounds = [number * len(images) // partitions for number in range(partitions + 1)]
    places = [os.path.join(str(number), os.path.relpath(path, data_dir))
              for number in range(partitions)
              for path in images[bounds[number]:bounds[number + 1]]]
    made_as = _make(dict(zip(places, images)), os.path.realpath(output), _ways(copy))
    for place in places:
        log.debug("%s", name_text(os.path.join(output, place)))
    return Partitions(output, [end - begin for begin, end in zip(bounds, bounds[1:])], made_as,
                      left.notes())


def _ways(copy: bool) -> List[Way]:
    """Return the ways to put images into a partition, in order of preference."""
    copies: Way = ("copies", shutil.copyfile)
    if copy:
        return [copies]
    # a hard link survives removal of the original, and works in a container that mounts the folder
    return [("hard links", os.link), ("symbolic links", os.symlink), copies]


def _check_output(output: str, data_dir: str) -> None:
    require_local(output, "--output")
    place, source = os.path.realpath(output), os.path.realpath(data_dir)
    if os.path.commonpath([place, source]) == source:
        raise UsageError(f"output {output!r} is in the folder of the images, {data_dir!r}",
                         "they would be found twice: choose a folder outside with '--output'")
    if os.path.ismount(place):
        raise UsageError(f"output {output!r} is where a file system is mounted",
                         "name a folder in it")
    try:
        fault = "is not empty" if os.listdir(place) else ""
    except FileNotFoundError:
        fault = ""
    except OSError as error:
        fault = f"cannot be used: {(error.strerror or str(error)).lower()}"
    if fault:
        raise UsageError(f"output {output!r} {fault}",
                         "choose another with '--output', or remove it first")


def _make(sources: Dict[str, str], output: str, ways: Sequence[Way]) -> Dict[str, int]:
    """Create `output` from `sources`, keyed by path in it; return how often each way was used."""
    made_as: Counter[str] = Counter()
    parent, name = os.path.split(output)
    try:
        os.makedirs(parent, exist_ok=True)
        with scratch(Path(parent), name) as folder:
            whole = os.path.join(str(folder), name)
            for place, source in sources.items():
                target = os.path.join(whole, place)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                made_as[_put(source, target, ways)] += 1
            os.replace(whole, output)
    except OSError as error:
        raise _failure(output, error) from error
    return dict(made_as)


def _put(source: str, target: str, ways: Sequence[Way]) -> str:
    real = os.path.realpath(source)  # a relative link target would be wrong from here
    if not os.path.isfile(real):
        raise DataError(f"image {source!r} is a broken link or not a file",
                        "nothing was made: fix or remove it first")
    (way, put), *others = ways
    try:
        put(real, target)
    except OSError as error:
        if others and error.errno in _NO_SUCH_LINK:
            return _put(source, target, others)
        raise _failure(source, error) from error
    return way


def _failure(path: str, error: OSError) -> DataError:
    return DataError(f"cannot make partitions: {path!r}: {(error.strerror or str(error)).lower()}",
                     "nothing was made and no image was changed: free disk space or grant "
                     "permission, or choose another folder with '--output'")
