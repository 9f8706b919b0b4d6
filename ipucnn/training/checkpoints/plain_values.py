"""Converts the content of a checkpoint to the types that can be read from it again.

Checkpoints are read with ``weights_only=True``, which restores tensors and built-in types only.
What would not come back as it was is refused when it is saved: months later is too late.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from typing import Any, Mapping, NoReturn

import torch

from ipucnn.core.errors import PluginError

_LEAVES = (bytes, torch.dtype, torch.device)
"""Types besides tensors, numbers, texts and collections that a checkpoint may contain, where this
version of torch can read them."""

_BUILT_IN = (bool, int, float, str, bytes, type(None))

_LARGEST_BITS = 2000
"""Bits of the largest whole number; torch cannot read those with more than 255 bytes."""


class Typed:
    """A value with tuples that are restored as tuples, for the state of an engine."""

    def __init__(self, value: Any) -> None:
        self.value = value


def plain(value: Any) -> Any:
    """Return a copy of plain types such that equal contents are written as equal bytes.

    Pickle writes repeated objects as references, so the bytes depend on which equal strings and
    tuples are the same object, which differs after a restore. Numbers of numpy and other libraries
    become built-in ones.

    Raises:
        PluginError: it holds an object that could not be read again; the message names its place.
    """
    try:
        return _plain(value, False, "")
    except RecursionError:
        raise PluginError("a checkpoint cannot contain a collection that contains itself",
                          _REMEDY) from None


def _plain(value: Any, typed: bool, where: str) -> Any:
    """Return the copy of a value.

    Args:
        value: the value.
        typed: tuples stay tuples.
        where: the keys that lead to the value, for the error.
    """
    if isinstance(value, Typed):
        return _plain(value.value, True, where)
    if isinstance(value, str):
        return sys.intern(str.__str__(value))
    if isinstance(value, Mapping):
        return {_key(key, typed, where): _plain(item, typed, f"{where}[{key!r}]")
                for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if typed and type(value) not in (list, tuple, torch.Size):
            _refuse(value, where)  # its attributes would be lost
        items = [_plain(item, typed, f"{where}[{number}]") for number, item in enumerate(value)]
        # a new tuple is used in one place only, so it is never a reference
        return tuple(items) if typed and isinstance(value, tuple) else items
    if isinstance(value, torch.Tensor):
        return _tensor(value, where)
    return _leaf(value, where)


def _key(key: Any, typed: bool, where: str) -> Any:
    """Return the key of a mapping; a tensor would not be the same key again."""
    if isinstance(key, torch.Tensor):
        _refuse(key, f"{where}, as a key")
    return _plain(key, typed, where)


def _leaf(value: Any, where: str) -> Any:
    """Return a number or another single value in a built-in type."""
    if value is None or type(value) is bool:
        return value
    if type(value) in _LEAVES:
        # empty bytes are written in another way than others
        if not _comes_back(value[:1] if isinstance(value, bytes) else value):
            _refuse(value, where)
        return value
    if hasattr(value, "item") and not getattr(value, "ndim", 1):
        return _of_library(value, where)
    if isinstance(value, bytes):
        return _leaf(bytes(value), where)
    if isinstance(value, int):  # members of an enum, for example
        if value.bit_length() > _LARGEST_BITS:
            _refuse(value, where)
        return int(value)
    if isinstance(value, float):
        return float(value)
    _refuse(value, where)


@functools.lru_cache(maxsize=64)
def _comes_back(value: Any) -> bool:
    """Return whether torch reads a value; version 2.0 reads no bytes, devices and some dtypes."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    try:
        return bool(torch.load(file, weights_only=True) == value)
    except (pickle.UnpicklingError, RuntimeError):
        return False


def _of_library(value: Any, where: str) -> Any:
    """Return the number of another library as a built-in one."""
    found = value.item()
    if type(found) in _BUILT_IN:
        return _leaf(found, where)
    try:
        number = float(found)
        exact = bool(number == found or (number != number and found != found))
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact or isinstance(found, complex):  # of more digits than a float, or no number
        _refuse(value, where)
    return number


def _tensor(value: torch.Tensor, where: str) -> torch.Tensor:
    """Return a tensor without attributes, which may be of any type."""
    own = type(value) in (torch.Tensor, torch.nn.Parameter)
    if own and not vars(value):
        return value
    if own or type(value) is getattr(torch.nn, "Buffer", None):
        return torch.Tensor.detach(value)
    _refuse(value, where)


def _refuse(value: Any, where: str) -> NoReturn:
    raise PluginError("a checkpoint cannot contain an object of type "
                      f"{type(value).__name__!r}" + (f" ({where})" if where else ""), _REMEDY)


_REMEDY = ("the state of optimizers and backends must be of built-in types and tensors; report it "
           "to the plugin's author")
