"""Reads pixels that are stored as tensors (`npy` or `pth`)."""

from __future__ import annotations

import io
import re
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy

from ipucnn.core.errors import DataError, WeightsError
from ipucnn.data.images import MAX_PIXELS

if TYPE_CHECKING:
    import torch

# version 1.0, and the header written by numpy; source: the documentation of `numpy.lib.format`
_PIXELS = re.compile(rb"\x01\x00..\{'descr': '\|u1', 'fortran_order': False, "
                     rb"'shape': \((\d+), (\d+), (\d+)\), \}\s*", re.DOTALL)
_HEADERS = Lock()


def pixels_of(content: bytes, name: str) -> torch.Tensor:
    """Return the pixels in a `npy` or `pth` file, uint8 `(3, height, width)`.

    Args:
        content: of the file.
        name: of the file, for error messages.

    Raises:
        DataError: it is damaged, or holds something else.
    """
    import torch

    from ipucnn.models.weights_file import read_tensor

    try:
        if content.startswith(b"\x93NUMPY"):
            pixels: torch.Tensor = torch.from_numpy(_array(content))
        else:
            pixels = read_tensor(content, name)
        if pixels.dtype != torch.uint8 or pixels.dim() != 3 or pixels.shape[0] != 3:
            raise ValueError(f"it is {pixels.dtype} {tuple(pixels.shape)}, expected uint8 "
                             "(3, height, width)")
        if pixels.numel() > 3 * MAX_PIXELS:  # a tensor may repeat one number without end
            raise ValueError(f"{pixels.shape[2]}x{pixels.shape[1]} is more than {MAX_PIXELS:,} "
                             "pixels")
    except WeightsError as error:
        raise DataError(f"cannot read the pixels of {name!r}: {error.message}",
                        "'--skip-bad-samples' leaves such samples out; 'ipucnn data verify' checks "
                        "all shards") from error
    except Exception as error:  # torch raises almost any exception on a damaged file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"cannot read the pixels of {name!r}: {lines[0]}",
                        "'--skip-bad-samples' leaves such samples out; 'ipucnn data verify' checks "
                        "all shards") from error
    return pixels


def _array(content: bytes) -> numpy.ndarray[Any, Any]:
    """Return the array in a `npy` file.

    numpy parses the header as Python text, which is not thread-safe (CPython issue 106905):
    headers written by the converter are parsed here.
    """
    begin = 10 + int.from_bytes(content[8:10], "little")
    plain = _PIXELS.fullmatch(content[6:begin])
    if plain is None:
        with _HEADERS:
            other: numpy.ndarray[Any, Any] = numpy.load(io.BytesIO(content), allow_pickle=False)
            return other
    shape = tuple(map(int, plain.groups()))
    return numpy.frombuffer(content, numpy.uint8, offset=begin).reshape(shape).copy()
