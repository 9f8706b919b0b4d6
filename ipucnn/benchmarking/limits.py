"""The limits of the machine with which `ipucnn bench` compares results, measured as contenders.

Convolutions are computed as matrix products, so no network is faster than a large product of the
same type, except with algorithms that need fewer operations (Winograd). The limit for JPEG files is
the speed of decoding.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, List, Tuple

from ipucnn.benchmarking.case import (
    INFERENCE,
    TRAIN,
    Case,
    Facts,
    Link,
    RefusedError,
    repeated,
    serve,
)
from ipucnn.core.machine import compute_threads, thread_count
from ipucnn.data.image_files import list_images

PRODUCT, DECODING = "product", "decoding"

SIZE = 2048
"""Rows and columns of the matrices."""

SUFFIXES = (".jpg", ".jpeg")

OPERATIONS = {INFERENCE: 2, TRAIN: 6}
"""Floating-point operations for each multiply-add of the forward pass; the backward pass of a
training has twice as many as the forward pass."""


def measured(name: str, case: Case, link: Link) -> Facts:
    """Measure the matrix product in a case's precision, or the decoding of its files.

    Raises:
        RefusedError: it does not apply here.
    """
    if name == DECODING:
        serve(link, _decoding(case))
        return {}
    product, unit = _product(case)
    product()

    def measure(wanted: float) -> Tuple[float, float]:
        count, seconds = repeated(product, wanted)
        return count * 2.0 * SIZE ** 3, seconds

    serve(link, measure)
    return {"arithmetic": unit}


def _product(case: Case) -> Tuple[Callable[[], Any], str]:
    """Return a function that computes one product, and the type of its numbers."""
    import torch

    cuda = torch.cuda.is_available()
    torch.set_num_threads(compute_threads())
    if case.precision == "int8":
        product, kind = _integers(cuda), torch.int8
    else:
        kind = torch.float32 if case.precision in ("", "32.32") else _half(cuda)
        product = _floats(kind, cuda)

    def finished() -> None:
        product()
        if cuda:
            torch.cuda.synchronize()

    return finished, str(kind).rpartition(".")[2]


def _integers(cuda: bool) -> Callable[[], Any]:
    import torch

    function = getattr(torch, "_int_mm", None)
    if function is None:
        raise RefusedError("this version of torch has no product of 8-bit integers")
    left = torch.ones(SIZE, SIZE, dtype=torch.int8, device="cuda" if cuda else "cpu")
    return partial(function, left, left.t() if cuda else left)


def _floats(kind: Any, cuda: bool) -> Callable[[], Any]:
    """Return the fastest product of square matrices: torch's, or on a CPU numpy's in float32.

    Their libraries are for processors of different manufacturers.
    """
    import torch

    matrix = torch.ones(SIZE, SIZE, dtype=kind, device="cuda" if cuda else "cpu")
    products: List[Callable[[], Any]] = [partial(torch.matmul, matrix, matrix)]
    if kind is torch.float32 and not cuda:
        array = matrix.numpy()
        products.append(partial(array.__matmul__, array))
    return min(products, key=_seconds) if products[1:] else products[0]


def _half(cuda: bool) -> Any:
    """Return the type of half precision; on a CPU that is float32 where bfloat16 is slower."""
    import torch

    if cuda:
        return torch.float16
    return min((torch.float32, torch.bfloat16),
               key=lambda kind: _seconds(_floats(kind, cuda)))


def _seconds(product: Callable[[], Any]) -> float:
    """Return the shortest of a few durations of a product; the first one is for warming up."""
    durations = []
    for _ in range(4):
        begin = time.perf_counter()
        product()
        durations.append(time.perf_counter() - begin)
    return min(durations[1:])


def jpeg_files(folder: str, most: int) -> List[Path]:
    """Return the first JPEG files in a folder and its subfolders, in the order of a run.

    Raises:
        DataError: the folder cannot be read.
    """
    return [Path(path) for path in list_images(folder)
            if path.lower().endswith(SUFFIXES)][:most]


class _Encoded:
    """Image files, as `host.bare_decoding` reads them."""

    def __init__(self, files: List[Path]) -> None:
        self._files = files

    def encoded(self, index: int) -> bytes:
        return self._files[index].read_bytes()

    def name(self, index: int) -> str:
        return str(self._files[index])


def _decoding(case: Case) -> Callable[[float], Tuple[float, float]]:
    from ipucnn.benchmarking import host

    files = jpeg_files(case.folder, case.samples)
    if not files:
        raise RefusedError("there are no JPEG files")
    encoded: Any = _Encoded(files)

    def measure(_: float) -> Tuple[float, float]:
        try:
            return len(files), host.bare_decoding(encoded, range(len(files)), thread_count(),
                                                  lambda _: None)
        except host.NoLimitError as reason:
            raise RefusedError(str(reason)) from reason

    return measure
