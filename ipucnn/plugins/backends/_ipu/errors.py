"""Translates errors of the IPU engines into one line with a remedy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, Tuple, Type

from ipucnn.core.errors import IpucnnError
from ipucnn.plugins.backends._ipu.sdk import first_line

HARDWARE_FAILED = "the IPU hardware failed: 'gc-monitor' and the system's log have details"


@contextmanager
def translated(doing: str, raised: Tuple[Type[BaseException], ...],
               remedy: Callable[[BaseException], str], callers: str = "") -> Iterator[None]:
    """Turn errors of an engine into an `IpucnnError`.

    Args:
        doing: the failed operation on the model: "be compiled", "run" ...
        raised: the engine's exceptions.
        remedy: returns the hint for one of them.
        callers: package whose modules call compiled functions of the engine, which raise
            `RuntimeError` and leave no frame; empty for none.
    """
    kinds: Tuple[Type[BaseException], ...] = (*raised, *_CHECKS)
    try:
        yield
    except IpucnnError:
        raise
    except kinds as error:
        if not isinstance(error, raised) and not _of_the_sdk(error, callers):
            raise
        raise IpucnnError(f"the model cannot {doing} on the IPU: {first_line(error)}",
                          remedy(error)) from error


_CHECKS = (AssertionError, TypeError, ValueError, AttributeError, RuntimeError)
"""Exceptions of the SDK's Python layer for arguments that it does not accept, and of libraries that
its compiled part uses: ONNX's checker, files."""

_SDK = ("poptorch", "popart", "popdist")

_BINDING = ("incompatible function arguments", "incompatible constructor arguments")
"""Text of the errors of compiled functions, which leave no frame of the SDK."""


def _of_the_sdk(error: BaseException, callers: str) -> bool:
    """Return whether the SDK raised an error, and not code of ipucnn or torch."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    if callers and type(error) is RuntimeError and module.startswith(callers + "."):
        return True
    return module.split(".")[0] in _SDK or any(text in str(error) for text in _BINDING)


def reset_needed(action: str) -> str:
    """Return the hint for IPUs that need a reset.

    Args:
        action: the recovery action that the error names.
    """
    return f"the IPUs need a reset ({action}): see 'gc-reset', then run again"
