"""The commands of `ipucnn data` in Python: fetch, shapes, partition, convert and verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional

from ipucnn.api.arguments import path_of, whole_number
from ipucnn.api.reporting import Progress, counted
from ipucnn.api.signatures import PathLike, refuse, takes_options
from ipucnn.data.formats.convert_options import ConvertOptions

if TYPE_CHECKING:
    from ipucnn.data.formats.convert import Converted
    from ipucnn.data.formats.partition import Partitions
    from ipucnn.data.formats.verify import Verification


def fetch(name: str = "sample-images", out: Optional[PathLike] = None) -> List[Path]:
    """Download the images that the examples use: `ipucnn data fetch` in Python.

    Args:
        name: data to download: "sample-images".
        out: folder to write; `data/images` when None.

    Returns:
        The image files in the folder.

    Raises:
        UsageError: the name is unknown.
        DataError: it cannot be fetched.
    """
    from ipucnn.data.formats.sample_data import fetch_named

    return fetch_named(str(name), None if out is None else path_of("out", out))


def shapes(out: PathLike, *, per_class: int = 20, size: int = 224, seed: int = 0,
           validation_per_class: int = 0) -> int:
    """Draw sample images (shapes) as JPEG files: `ipucnn data shapes` in Python.

    Args:
        out: folder to write.
        per_class: images per class, at least 1.
        size: height and width in pixels, at least 8.
        seed: of the images.
        validation_per_class: further images per class for validation; the folder then holds
            `train` and `validation`.

    Returns:
        The number of images in the folder.

    Raises:
        UsageError: a number is too small, or no whole number.
        DataError: the folder holds something else or cannot be written.
    """
    from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

    return write_made("shapes", path_of("out", out), GeneratedFiles(
        whole_number("per_class", per_class, 1), whole_number("size", size, 8),
        whole_number("seed", seed, 0),
        validation_per_class=whole_number("validation_per_class", validation_per_class, 0)))


def partition(data_dir: PathLike, partitions: int, output: PathLike, *,
              copy: bool = False) -> Partitions:
    """Divide a folder of images into numbered folders: `ipucnn data partition` in Python.

    Args:
        data_dir: the folder of images, at any depth; it is not changed.
        partitions: number of partitions.
        output: a new or empty folder outside `data_dir`.
        copy: copy the images instead of linking them.

    Returns:
        The folders and their numbers of images.

    Raises:
        UsageError: `output` cannot be used, or there are more partitions than images.
        DataError: there are no images, they cannot be read, or the partitions cannot be written.
    """
    from ipucnn.data.formats.partition import partition as divided

    return divided(path_of("data_dir", data_dir),
                   whole_number("partitions", partitions, 1), path_of("output", output), copy)


@takes_options(ConvertOptions)
def convert(source: Optional[PathLike] = None, target: Optional[PathLike] = None, *,
            progress: Progress = "auto", **options: Any) -> Converted:
    """Convert a dataset to shards (tar archives): `ipucnn data convert` in Python.

    Calling it again with the same arguments continues an interrupted conversion.

    Args:
        source: folder of the dataset to convert; None for a dataset that generates images.
        target: folder to write.
        progress: as in `ipucnn.run`.
        options: options of `ipucnn data convert`.

    Returns:
        Samples, shards and bytes of each split, and the duration in seconds.

    Raises:
        UsageError: the source or the format does not support conversion, or the target cannot be
            used.
        DataError: an image cannot be read, or the target cannot be written.
    """
    from ipucnn.core.options.building import build

    made = build(ConvertOptions, {"source": source, "target": target, **refuse(options)})
    with counted(progress, "listing the images") as report:
        from ipucnn.data.formats.convert import convert as converted

        return converted(made, report)


def verify(path: PathLike, data: Optional[str] = None) -> Verification:
    """Check that a dataset on disk is complete and unchanged: `ipucnn data verify` in Python.

    Args:
        path: its folder.
        data: its format; recognised by its layout when None.

    Returns:
        The problems, one line each; `ok` is true if there are none.

    Raises:
        DataError: there is no such folder, or its format is not recognised.
        UsageError: the format is unknown or cannot be verified, or it is a URL.
    """
    from ipucnn.data.formats.verify import verification

    return verification(path_of("path", path), data)
