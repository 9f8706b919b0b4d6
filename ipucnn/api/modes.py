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
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.is_autocast_enabled():  # on a CUDA device
            stack.enter_context(torch.autocast("cuda", enabled=False))
        if torch.empty(0).device.type != "cpu":  # a default device slows down all functions
            stack.enter_context(torch.device("cpu"))
        yield
