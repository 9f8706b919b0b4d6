"""Reads weights files without running code that is in them."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import warnings
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Dict, Union

import torch

from ipucnn.core.errors import WeightsError
from ipucnn.core.files import kind_of
from ipucnn.core.warning_filters import own_filters

StateDict = Dict[str, torch.Tensor]

_LAYOUTS = ("model_state_dict", "state_dict", "model")
"""Keys of the weights in checkpoints; other files are the state dictionary itself."""

_AVERAGES = ("ema", "state_dict_ema", "model_ema")
"""Keys of the moving average of the weights: those of ipucnn, timm and torchvision's scripts."""

_HEADER = 9  # bytes of a file that show its format
_FORBIDDEN = re.compile(r"(?:GLOBAL|class) ([\w.]+)")
_HOW_TO_CONVERT = ("if you trust the file, load it where it was made and save its state dictionary "
                   "alone, best as safetensors")


def read_weights(path: Path, ema: bool = False) -> StateDict:
    """Return the state dictionary in a file, on the CPU.

    Supported are `.safetensors` files and files of `torch.save`, including checkpoints. Pickled
    code is an error and is never executed.

    Args:
        path: the file.
        ema: return the moving average of the weights in a checkpoint.

    Raises:
        WeightsError: the file is missing, damaged, holds code or no weights, or no moving average
            although `ema` requests it.
    """
    if kind_of(path):
        raise WeightsError(f"weights '{path}' are {kind_of(path)}", "name a file")
    if not path.exists():
        raise WeightsError(f"there is no weights file '{path}'", remedy_for_missing(
            path, "'--weights' accepts 'pretrained', 'random', a file or a folder"))
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except OSError as error:
        raise WeightsError(f"cannot read weights '{path}': {error.strerror or error}",
                           "check the file and its permissions") from error
    if header[:1] == pickle.PROTO and header[1:2] > b"\2":  # torch.save writes protocol 2
        raise WeightsError(f"weights '{path}' are a plain pickle, which could run code, and are "
                           "refused", _HOW_TO_CONVERT)
    content = _safetensors(path) if _is_safetensors(path, header) else _quietly(path)
    if ema:
        averages = [content[name] for name in _AVERAGES if isinstance(content.get(name), dict)] \
            if isinstance(content, dict) else []
        if not averages:
            raise WeightsError(f"'{path}' has no moving average of its weights",
                               "leave '--ema' out")
        content = averages[0]
    for name in _LAYOUTS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in content.items()):
        raise WeightsError(f"there is no state dictionary in '{path}'",
                           "it must map names to tensors, itself or under "
                           + " or ".join(repr(name) for name in _LAYOUTS))
    return dict(content)


def beside_weights(path: Path) -> Dict[Any, Any]:
    """Return the dictionary in a checkpoint, or the metadata of a file of safetensors.

    Raises:
        WeightsError: the file cannot be read, is damaged or holds code.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
        if _is_safetensors(path, header):
            with safe_open(str(path), "pt") as opened:
                return opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error
    content = read_checkpoint(path)
    return content if isinstance(content, dict) else {}


def _is_safetensors(path: Path, header: bytes) -> bool:
    # such a file begins with the size of a JSON object in 8 bytes
    return header[8:] == b"{" or path.suffix.lower() == ".safetensors"


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise _damaged(path, error) from error


def read_checkpoint(path: Path) -> Any:
    """Return any content that `torch.save` wrote, without running code in it.

    Tensors and plain types are read. Of an `argparse.Namespace`, which the old applications saved
    with their weights, the values are returned as a dictionary.

    Raises:
        WeightsError: the file is damaged or holds code.
    """
    return _quietly(path)


def _quietly(path: Path) -> Any:
    with own_filters():
        warnings.simplefilter("ignore")  # about how the file was written, not about its content
        return _torch(path)


def _silence_torch() -> None:
    """Suppress torch's warnings about its own loader, and about how a file was written.

    The filter is permanent because `warnings.catch_warnings` is not thread-safe.
    """
    remark = re.compile("TypedStorage is deprecated|Detected pickle protocol", re.IGNORECASE)
    if not any(rule[1] == remark for rule in warnings.filters):
        warnings.filterwarnings("ignore", message=remark.pattern)


def read_tensor(content: bytes, name: str) -> torch.Tensor:
    """Return the one tensor in the content of a file that `torch.save` wrote; for any thread.

    Args:
        content: of the file.
        name: of the file, for error messages.

    Raises:
        WeightsError: it is damaged, holds code, or something else than a tensor.
    """
    _silence_torch()
    found = _torch(io.BytesIO(content), name)
    if not isinstance(found, torch.Tensor):
        raise WeightsError(f"'{name}' holds a value of type {type(found).__name__} and no tensor")
    return found


def _torch(file: Union[Path, BinaryIO], name: str = "") -> Any:
    """Return what `torch.save` wrote into a file; without running code in it."""
    name = name or str(file)
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as opened:
            _refuse_archives(opened, name)
            return _unpickled(opened)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can raise anything
        found = _FORBIDDEN.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and found:
            raise WeightsError(f"weights '{name}' hold '{found.group(1)}', which could run code, "
                               "and are refused", _HOW_TO_CONVERT) from error
        raise _damaged(name, error) from error


def _unpickled(file: BinaryIO) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "argparse.Namespace" not in str(error):
            raise
    file.seek(0)
    return _plain(torch.load(file, map_location="cpu", weights_only=False,
                             pickle_module=_Restricted))


class _Namespace:
    """A replacement for `argparse.Namespace` that only has attributes."""


_ALLOWED = {("collections", "OrderedDict"): OrderedDict, ("argparse", "Namespace"): _Namespace}
_REBUILDING = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"}


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors and allows no other function."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object for a name in the file, or reject it."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch._utils" and name in _REBUILDING:
            return getattr(torch._utils, name)
        if module == "torch" and (name.endswith("Storage") or isinstance(
                getattr(torch, name, None), (torch.dtype, torch.Size))):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


class _Restricted:
    """The part of the module `pickle` that `torch.load` uses."""

    Unpickler = _Unpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """Read one object."""
        return _Unpickler(file, **options).load()


def _plain(value: Any) -> Any:
    if isinstance(value, _Namespace):
        return dict(vars(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _refuse_archives(file: BinaryIO, name: str) -> None:
    """Reject archives that `torch.load` of torch 2.0 reads regardless of `weights_only`.

    They are recognised as torch does it, by their beginning and with its own reader: another
    reader of archives may see other files in the same bytes.
    """
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK\3\4"):
        records = torch._C.PyTorchFileReader(file).get_all_records()
        if any(record.rpartition("/")[2] == "constants.pkl" for record in records):
            raise WeightsError(f"weights '{name}' are a TorchScript program, which is not run",
                               _HOW_TO_CONVERT)
        file.seek(0)
    elif _begins_tar(head):
        raise WeightsError(f"weights '{name}' are a tar archive", _HOW_TO_CONVERT)


def _begins_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def remedy_for_missing(path: Union[Path, str], otherwise: str) -> str:
    """Return the hint for a file that does not exist, and may be an address of the web."""
    return "download the file, and give its path" if re.match("https?:/", str(path)) else otherwise


def _damaged(path: Union[Path, str], error: Exception) -> WeightsError:
    lines = str(error).strip().splitlines()
    # do not pass on torch's advice to read the file with `weights_only=False`
    # and of a `KeyError`, the text is the missing key alone
    unsaid = not lines or isinstance(error, (pickle.UnpicklingError, KeyError))
    reason = "" if unsaid else ": " + lines[0][:200]
    hint = "fetch or copy it again"
    if str(path).lower().endswith(".onnx"):
        hint = ("'ipucnn run --onnx FILE' runs an ONNX file; other commands need the checkpoint or "
                "weights file that it was exported from")
    return WeightsError(f"'{path}' is damaged or not a weights file{reason}", hint)
