"""Fetches published sample images and writes generated datasets as image files."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

from ipucnn.core.documents import LARGEST_JSON, parsed_json
from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.files import read_limited, require_local
from ipucnn.core.names import key
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.core.staging import scratch
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.dataset_checks import image_of
from ipucnn.data.image_files import list_images
from ipucnn.data.image_formats import IMAGE_SUFFIXES
from ipucnn.data.labels import class_of

if TYPE_CHECKING:
    import torch

SAMPLE_IMAGES_URL = "https://gc-demo-resources.s3-us-west-1.amazonaws.com/images224.tar.gz"
"""A few photographs of ImageNet classes, published by Graphcore for its example applications."""

URL_VARIABLE = "IPUCNN_SAMPLE_IMAGES_URL"

SAMPLE_IMAGES = "sample-images"
SAMPLE_IMAGES_FOLDER = "data/images"

_RECORD = ".ipucnn.json"
_LABELLED_ONLY = "only a labelled dataset can be written as class folders"
_OTHER_WAYS = ("name a folder of your own images with '--data-dir', or draw some with "
               "'ipucnn data shapes --out data/images'")


def fetch_sample_images(out: Path, url: str = "") -> List[Path]:
    """Fetch the sample images into a folder; does nothing when it holds images already.

    Args:
        out: the folder, created if it does not exist.
        url: a tar archive of images; the environment's `IPUCNN_SAMPLE_IMAGES_URL`, or else
            `SAMPLE_IMAGES_URL`, when empty.

    Returns:
        The image files in the folder.

    Raises:
        DataError: they cannot be fetched, unpacked or written.
    """
    from ipucnn.data.remote.download import fetch

    if out.is_dir():
        present = list_images(str(out))
        if present:
            return [Path(path) for path in present]
    url = url or os.environ.get(URL_VARIABLE, "") or SAMPLE_IMAGES_URL
    made = not out.exists()
    unpacked: List[Tuple[str, Path]] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        # in the target folder itself, so that unpacked files only have to be renamed
        with scratch(out, "fetch") as folder:
            archive = fetch(url, folder, filename="archive")
            unpacked += _unpack_images(archive, folder)
            for name, path in unpacked:
                os.replace(str(path), str(out / name))
    except IpucnnError as error:
        raise DataError(f"cannot fetch the sample images: {error.message}", _OTHER_WAYS) from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"cannot unpack the sample images: {url!r} is not a tar archive, or a "
                        "damaged one", _OTHER_WAYS) from error
    except OSError as error:
        raise _cannot_write(out, error) from error
    finally:
        if made and not unpacked:
            with suppress(OSError):
                out.rmdir()
    if not unpacked:
        raise DataError(f"there are no images in {url!r}", _OTHER_WAYS)
    return [Path(path) for path in list_images(str(out))]


def fetch_named(name: str, out: Optional[str] = None) -> List[Path]:
    """Fetch published files by name; only 'sample-images' exists.

    Args:
        name: what to fetch.
        out: target folder; the default folder when None.

    Raises:
        UsageError: the name is unknown, or `out` is a URL.
        DataError: it cannot be fetched.
    """
    if key(name) != SAMPLE_IMAGES:
        raise UsageError(f"there is nothing named {name!r} to fetch", f"there is '{SAMPLE_IMAGES}'")
    if out:
        require_local(out, "--out")
    return fetch_sample_images(Path(out or SAMPLE_IMAGES_FOLDER))


@dataclass(frozen=True)
class GeneratedFiles:
    """The files of a generated dataset.

    Attributes:
        per_class: images of each class.
        size: height and width in pixels.
        seed: of the images.
        quality: of the JPEG files, 1 to 95.
        validation_per_class: further images of each class; the folder then holds `train` and
            `validation`.
    """

    per_class: int
    size: int
    seed: int = 0
    quality: int = 90
    validation_per_class: int = 0


def write_made(name: str, out: str, files: GeneratedFiles) -> int:
    """Write a generated dataset as a folder of JPEG files, one folder per class.

    Repeating a completed call does nothing; an interrupted one starts over.

    Args:
        name: the dataset; its labels must cycle through its classes.
        out: the folder: new, empty, or written by the same call.
        files: number and properties of the files.

    Returns:
        The number of images in the folder.

    Raises:
        UnknownNameError: there is no such dataset.
        UsageError: `out` is a URL.
        DataError: the folder holds something else or cannot be written, or the dataset has no
            classes.
    """
    require_local(out, "--out")
    spec = registry().get_typed(DatasetSpec, name)
    make = registry().resolve(spec)
    request = DatasetRequest(input_size=files.size, seed=files.seed)
    classes = make(request).class_names
    if not classes:
        raise DataError(f"dataset {spec.name!r} has no classes", _LABELLED_ONLY)
    splits = {"train": files.per_class, "validation": files.validation_per_class}
    datasets = {split: make(replace(request, split=split, length=count * len(classes)))
                for split, count in splits.items() if count}
    total = sum(map(len, datasets.values()))
    parameters = {"dataset": spec.name, **asdict(files)}
    if not files.validation_per_class:
        del parameters["validation_per_class"]
    folder = Path(out)
    record = folder / _RECORD
    try:
        present = os.listdir(out) if folder.exists() else []
        recorded = _read_record(record)
        if present and recorded.get("parameters") != parameters:
            raise DataError(f"folder {out!r} is not empty",
                            "choose another with '--out', or remove it first")
        if recorded.get("complete") and len(list_images(out)) == total:
            return total
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"parameters": parameters, "complete": False}))
        for split, dataset in datasets.items():
            write_folder(dataset, folder / split if files.validation_per_class else folder,
                         files.quality)
        record.write_text(json.dumps({"parameters": parameters, "complete": True}))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return total


def write_folder(dataset: ImageDataset, out: Path, quality: int = 90) -> int:
    """Write a labelled dataset as JPEG files, `out/<class>/<number>.jpg`.

    Args:
        dataset: any dataset whose images all have labels.
        out: the folder, made when it does not exist.
        quality: of the JPEG files, 1 to 95.

    Returns:
        The number of images written.

    Raises:
        DataError: an image has no label or cannot be read, or the folder cannot be written.
    """
    folders = [name.replace("/", "_").replace(os.sep, "_") for name in dataset.class_names]
    digits = len(str(max(0, len(dataset) - 1)))
    try:
        for index in range(len(dataset)):
            label = class_of(dataset, index)
            if label is None:
                raise DataError(f"image {dataset.name(index)!r} has no class",
                                _LABELLED_ONLY)
            folder = out / folders[label]
            folder.mkdir(parents=True, exist_ok=True)
            _save_jpeg(image_of(dataset, index), folder / f"{index:0{digits}d}.jpg", quality)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return len(dataset)


def _save_jpeg(image: torch.Tensor, path: Path, quality: int) -> None:
    import numpy
    from PIL import Image

    pixels = numpy.ascontiguousarray(image.permute(1, 2, 0).numpy())
    Image.fromarray(pixels).save(str(path), "JPEG", quality=quality)


def _unpack_images(archive: Path, scratch: Path) -> Iterator[Tuple[str, Path]]:
    """Yield name and extracted path of every image in a tar archive.

    Only regular files are extracted, under the last part of their names, so that no member can
    be written outside the folder or link to another file.
    """
    taken = set()
    with tarfile.open(str(archive)) as tar:
        for number, member in enumerate(tar):
            if member.size < 0:
                raise tarfile.ReadError(f"{member.name!r} has a negative size")
            path = PurePosixPath(member.name)
            if not member.isfile() or path.name.startswith(".") \
                    or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            content = tar.extractfile(member)
            assert content is not None  # it is a regular file
            name = path.name if path.name not in taken else f"{number}-{path.name}"
            taken.add(name)
            place = scratch / f".member-{number}"
            with content, open(place, "wb") as file:
                shutil.copyfileobj(content, file)
            yield name, place


def _read_record(record: Path) -> Dict[str, Any]:
    try:
        content = parsed_json(read_limited(record, LARGEST_JSON))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _cannot_write(out: Path, error: OSError) -> DataError:
    place = error.filename if isinstance(error.filename, str) else str(out)
    return DataError(f"cannot write {place!r}: {(error.strerror or str(error)).lower()}",
                     "free disk space or grant permission there, or choose another folder with "
                     "'--out'")
