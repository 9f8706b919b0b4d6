"""Every error a user can cause, with the way out of it.

An `IpucnnError` is one line that names the offending value, a hint that says what to do, and the
exit code of the process. Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from typing import Any, Optional


class IpucnnError(Exception):
    """The work failed for a reason the user can act on.

    Args:
        message: one line, lower case, naming the offending value.
        hint: what to do about it; may be empty.
        exit_code: overrides the class's exit code.

    Attributes:
        partial: what had been done when the work failed, if anything worth showing.
    """

    exit_code = 1
    partial: Any = None

    def __init__(self, message: str, hint: str = "", exit_code: Optional[int] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(IpucnnError):
    """A wrong option, value or combination: nothing was started."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no loaded plugin provides."""


class UnavailableError(UsageError):
    """A known plugin or backend that cannot be used on this machine."""


class UnsupportedNetworkError(UsageError):
    """A network that a backend cannot execute, and another one perhaps can."""


class PluginError(UsageError):
    """A plugin broke its contract: a bad record, a clash, a failed import."""


class DataError(IpucnnError):
    """A dataset, image or label file that cannot be used."""


class NoSplitError(DataError):
    """A dataset that has no images of the split that was asked for (and perhaps of another)."""


class WeightsError(IpucnnError):
    """Weights that cannot be fetched, read or put into the model."""
