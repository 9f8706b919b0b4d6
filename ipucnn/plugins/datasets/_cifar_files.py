"""Reads and downloads CIFAR-10 and CIFAR-100 in their published formats.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (formats and files).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy

from ipucnn.core.errors import DataError
from ipucnn.core.files import require_file
from ipucnn.core.staging import scratch
from ipucnn.data import DatasetRequest, ImageDataset, check_classes
from ipucnn.data.left_out import unpacking

if TYPE_CHECKING:
    import torch

URL = "https://www.cs.toronto.edu/~kriz/"
URL_VARIABLE = "IPUCNN_CIFAR_URL"
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Form:
    """One of the two datasets.

    Attributes:
        name: of the dataset.
        archive: its published archive.
        sha256: of the archive.
        pickled: folder of the pickled files, and the files of each split.
        binary: folder of the binary files, likewise.
        labels: key of the labels in pickled files.
        meta, names: pickled file and key of the class names.
        text: file of the class names beside the binary files.
        label_bytes: bytes before the pixels of a binary record; the last is the label.
        md5: of the published pickled files.
    """

    name: str
    archive: str
    sha256: str
    pickled: Tuple[str, Dict[str, Tuple[str, ...]]]
    binary: Tuple[str, Dict[str, Tuple[str, ...]]]
    labels: bytes
    meta: str
    names: bytes
    text: str
    label_bytes: int
    md5: Dict[str, str]


FORMS = {
    "cifar10": Form(
        "cifar10", "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ("cifar-10-batches-py", {"train": tuple(f"data_batch_{i}" for i in range(1, 6)),
                                 "validation": ("test_batch",)}),
        ("cifar-10-batches-bin", {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
                                  "validation": ("test_batch.bin",)}),
        b"labels", "batches.meta", b"label_names", "batches.meta.txt", 1,
        {"data_batch_1": "c99cafc152244af753f735de768cd75f",
         "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
         "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
         "data_batch_4": "634d18415352ddfa80567beed471001a",
         "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
         "test_batch": "40351d587109b95175f43aff81a1287e",
         "batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}),
    "cifar100": Form(
        "cifar100", "cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ("cifar-100-python", {"train": ("train",), "validation": ("test",)}),
        ("cifar-100-binary", {"train": ("train.bin",), "validation": ("test.bin",)}),
        b"fine_labels", "meta", b"fine_label_names", "fine_label_names.txt", 2,
        {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
         "meta": "7973b15100ade9c7d40fb424638fde48"}),
}


class CifarImages(ImageDataset):
    """Images of 32 x 32 pixels, in memory."""

    labels_in_memory = in_memory = True

    def __init__(self, name: str, pixels: Any, labels: List[int], names: Tuple[str, ...]) -> None:
        self._name, self._pixels, self._labels = name, pixels, labels
        self.class_names = names

    def __len__(self) -> int:
        return len(self._labels)

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; see `ImageDataset.image`."""
        import torch

        return torch.from_numpy(self._pixels[index].reshape(3, 32, 32))

    def name(self, index: int) -> str:
        """Return `<dataset>/<split>/<index>`."""
        return f"{self._name}/{index}"

    def label(self, index: int) -> int:
        """Return the class of image `index`."""
        return self._labels[index]


def make_cifar10(request: DatasetRequest) -> ImageDataset:
    """Return CIFAR-10; see `make`."""
    return make(FORMS["cifar10"], request)


def make_cifar100(request: DatasetRequest) -> ImageDataset:
    """Return CIFAR-100 with its fine labels; see `make`."""
    return make(FORMS["cifar100"], request)


def make(form: Form, request: DatasetRequest) -> ImageDataset:
    """Return one split, the test images for an evaluation; download the files if missing.

    Raises:
        DataError: the files cannot be fetched, or one is damaged.
    """
    root = Path(request.data_dir or f"data/{form.name}")
    split = "train" if request.split == "train" else "validation"
    found = _find(form, root)
    if found is None:
        if root.is_file():
            raise DataError(f"'{root}' is a file, and dataset {form.name!r} reads a folder",
                            unpacking(str(root), "name its folder with '--data-dir'"))
        _fetch(form, root)
        found = _find(form, root)
    if found is None:
        raise DataError(f"there is no {form.name} in '{root}'", _manual(form, root))
    folder, binary = found
    files = (form.binary if binary else form.pickled)[1][split]
    read = _read_binary if binary else _read_pickled
    parts = [read(form, folder / file) for file in files]
    pixels = numpy.concatenate([part[0] for part in parts])
    labels = [label for part in parts for label in part[1]]
    names = _class_names(form, folder, binary)
    for file, (_, present) in zip(files, parts):
        if not 0 <= min(present) <= max(present) < len(names):
            raise _cannot_read(folder / file, f"it has labels outside of {len(names)} classes")
    check_classes(form.name, names, request.num_classes)
    images = CifarImages(f"{form.name}/{split}", pixels, labels, names)
    images.split = split
    return images


def verify_cifar10(folder: str) -> List[str]:
    """Return the problems of a folder of CIFAR-10."""
    return _verify(FORMS["cifar10"], Path(folder))


def verify_cifar100(folder: str) -> List[str]:
    """Return the problems of a folder of CIFAR-100."""
    return _verify(FORMS["cifar100"], Path(folder))


def _verify(form: Form, root: Path) -> List[str]:
    found = _find(form, root)
    if found is None:
        return [f"there is no {form.name} in '{root}'"]
    folder, binary = found
    problems = []
    if binary:
        for file in (name for names in form.binary[1].values() for name in names):
            try:
                _read_binary(form, folder / file)
            except DataError as error:
                problems.append(error.message)
        try:
            _class_names(form, folder, binary)
        except DataError as error:
            problems.append(error.message)
        return problems
    for file, expected in form.md5.items():
        try:
            require_file(folder / file)
            digest = hashlib.md5((folder / file).read_bytes()).hexdigest()
        except OSError as error:
            problems.append(f"'{folder / file}': {(error.strerror or str(error)).lower()}")
            continue
        if digest != expected:
            problems.append(f"'{folder / file}' is not the published file (MD5 {digest})")
    return problems


def _find(form: Form, root: Path) -> Optional[Tuple[Path, bool]]:
    for binary, (name, splits) in ((False, form.pickled), (True, form.binary)):
        for folder in (root / name, root):
            if any((folder / file).is_file() for files in splits.values() for file in files):
                return folder, binary
    return None


def _read_binary(form: Form, path: Path) -> Tuple[Any, List[int]]:
    try:
        require_file(path)
        data = numpy.frombuffer(path.read_bytes(), dtype=numpy.uint8)
    except OSError as error:
        raise _cannot_read(path, (error.strerror or str(error)).lower()) from error
    record = form.label_bytes + PIXELS
    if not len(data) or len(data) % record:
        raise _cannot_read(path, f"{len(data)} bytes are no whole number of records")
    rows = data.reshape(-1, record)
    return rows[:, form.label_bytes:], rows[:, form.label_bytes - 1].tolist()


def _read_pickled(form: Form, path: Path) -> Tuple[Any, List[int]]:
    content = _unpickled(path)
    pixels, labels = content.get(b"data"), content.get(form.labels)
    if not isinstance(pixels, numpy.ndarray) or pixels.dtype != numpy.uint8 \
            or not isinstance(labels, list) or pixels.shape != (len(labels), PIXELS) \
            or not labels or not all(isinstance(label, int) for label in labels):
        raise _cannot_read(path, "it has no pixels and labels as published")
    return pixels, labels


class _Unpickler(pickle.Unpickler):
    """Unpickles arrays and plain types only; anything else in a file is an error."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor of arrays, or of bytes as Python 3 writes them in old protocols."""
        if (module, name) in (("_codecs", "encode"), ("builtins", "bytes"),
                              ("__builtin__", "bytes")):
            return _bytes
        if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):
            return _from_buffer
        if name == "_reconstruct" and module in ("numpy.core.multiarray",
                                                 "numpy._core.multiarray"):
            return numpy.empty(0).__reduce__()[0]  # type: ignore[index]
        if (module, name) == ("numpy", "ndarray"):
            return numpy.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which could run code")


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """Return `text` as the bytes that it stands for; any other codec is refused."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it encodes with {encoding!r}, which could run code")
    return text.encode("latin1")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str) -> Any:
    return numpy.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _dtype(kind: Any, *_: Any) -> Any:
    # flags are numbers in old files, which numpy has deprecated
    return numpy.dtype(kind.decode() if isinstance(kind, bytes) else kind)


def _unpickled(path: Path) -> Dict[bytes, Any]:
    try:
        require_file(path)
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except OSError as error:
        raise _cannot_read(path, (error.strerror or str(error)).lower()) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _cannot_read(path, str(error) or type(error).__name__) from error
    if not isinstance(content, dict):
        raise _cannot_read(path, "it is no dictionary")
    return {key.encode() if isinstance(key, str) else key: value
            for key, value in content.items()}


def _class_names(form: Form, folder: Path, binary: bool) -> Tuple[str, ...]:
    path = folder / (form.text if binary else form.meta)
    try:
        if binary:
            require_file(path)
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
        names = _unpickled(path).get(form.names)
        if isinstance(names, list):
            return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    except OSError as error:
        raise _cannot_read(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise _cannot_read(path, f"its class names are not UTF-8 text: {error}") from error
    raise _cannot_read(path, "it has no class names")


def _fetch(form: Form, root: Path) -> None:
    """Fetch and unpack the archive; safe in several processes at once."""
    from ipucnn.data.remote.download import fetch

    base = os.environ.get(URL_VARIABLE, "") or URL
    url = f"{base.rstrip('/')}/{form.archive}"
    folder = form.pickled[0]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with scratch(root, "fetch") as place:
            archive = fetch(url, place, form.sha256, filename=form.archive)
            made = place / folder
            made.mkdir()
            with tarfile.open(str(archive)) as tar:
                for member in tar:
                    name = Path(member.name).name
                    content = tar.extractfile(member) if member.isfile() else None
                    if content is not None:
                        with content, (made / name).open("wb") as file:
                            shutil.copyfileobj(content, file)
            with suppress(OSError):  # another process was faster
                os.replace(str(made), str(root / folder))
    except DataError as error:
        raise DataError(f"cannot fetch {form.name}: {error.message}",
                        _manual(form, root)) from error
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot unpack {form.name} in '{root}': {error}",
                        _manual(form, root)) from error


def _manual(form: Form, root: Path) -> str:
    return (f"download {URL}{form.archive} where there is a network and unpack it in '{root}', or "
            "name a folder that has it with '--data-dir'")


def _cannot_read(path: Path, reason: str) -> DataError:
    return DataError(f"cannot read '{path}': {reason}",
                     "remove the folder to fetch it again, or copy it again")
