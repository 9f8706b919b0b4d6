"""Turns failures of the device into one line with a hint."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import Iterator

import torch

from ipucnn.core.errors import IpucnnError, OutOfMemoryError
from ipucnn.plugins.backends.torch.devices import Device

_FATAL = re.compile(r"(?:CUDA|HIP)(?: driver)? error|Triton error|CUBLAS_STATUS|CUDNN_STATUS|CUFFT"
                    r"|NCCL error|device-side assert|illegal memory access"
                    r"|unspecified launch failure", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out of memory|allocate memory|ALLOC_FAILED", re.IGNORECASE)
_NO_ALGORITHM = re.compile(r"unable to find an engine|find a valid cuDNN algorithm", re.IGNORECASE)
"""Errors of convolutions for which cuDNN has no algorithm, or too little memory for each."""


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch is an out-of-memory error."""
    return bool(_NO_MEMORY.search(str(error)))


@contextmanager
def device_errors(micro_batch: int) -> Iterator[None]:
    """Report missing memory, and failures of a GPU, as errors of the run.

    Args:
        micro_batch: samples that are computed at once.
    """
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise OutOfMemoryError(
                f"the device is out of memory at a micro-batch of {micro_batch}",
                "use a smaller '--batch-size', or '--precision half'") from error
        if _NO_ALGORITHM.search(str(error)):
            raise IpucnnError(
                f"cuDNN has no algorithm for a convolution at a micro-batch of {micro_batch}, or "
                "too little memory for it",
                "use a smaller '--batch-size', another '--precision', or '--device cpu'") from error
        if not _FATAL.search(str(error)):
            raise
        text = str(error).strip().splitlines()[0]
        raise IpucnnError(
            f"the GPU failed: {text}", "run it again with the environment variable "
            "CUDA_LAUNCH_BLOCKING=1 to see where; a training continues from its last checkpoint "
            "with 'ipucnn restore'") from error


def empty_cache(device: Device) -> None:
    """Free unused memory of a GPU, unless the GPU has failed, which would hide the cause."""
    if device.place.type == "cuda":
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
