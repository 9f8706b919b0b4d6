"""Translates errors of the IPU engines into one line with a remedy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, Tuple, Type

from ipucnn.core.errors import IpucnnError
from ipucnn.plugins.backends._ipu.sdk import first_line

HARDWARE_FAILED = "the IPU hardware failed: 'gc-monitor' and the system's log say more"


@contextmanager
def translated(doing: str, raised: Tuple[Type[BaseException], ...],
               remedy: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn errors of an engine into an `IpucnnError`.

    Args:
        doing: the failed operation on the model: "be compiled", "run" ...
        raised: the engine's exceptions.
        remedy: returns the hint for one of them.
    """
    try:
        yield
    except raised as error:
        raise IpucnnError(f"the model cannot {doing} on the IPU: {first_line(error)}",
                          remedy(error)) from error


def reset_needed(action: str) -> str:
    """Return the hint for IPUs that need a reset.

    Args:
        action: the recovery action that the error names.
    """
    return f"the IPUs need a reset ({action}): see 'gc-reset', then run again"
