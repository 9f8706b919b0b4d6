"""The modes of torch in which functions of this interface compute, whatever those of the caller."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import Iterator


@contextmanager
def ordinary_modes() -> Iterator[None]:
    """Return a context with gradients, without autocast, and with the CPU as default device.

    These modes belong to the thread. In those of the program that calls, a training would have no
    gradients, and a result another precision than it states.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # its modes are unchanged
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # only if needed: within any context of autocast, that of a backend uses the rounded weights
        # of an earlier update again
        for device in ("cpu", "cuda"):
            if _autocasts(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.empty(0).device.type != "cpu":  # a default device slows down all functions
            stack.enter_context(torch.device("cpu"))
        yield


def _autocasts(device: str) -> bool:
    """Return whether autocast is enabled in this thread, on devices of a type."""
    import torch

    try:
        return bool(torch.is_autocast_enabled(device))
    except TypeError:  # torch 2.3 and older
        return bool(torch.is_autocast_cpu_enabled() if device == "cpu"
                    else torch.is_autocast_enabled())
