"""Exceptions that a user can act on, each with a hint and an exit code.

An `IpucnnError` has a message of one line that names the offending value, a hint with a fix, and
the exit code of the process. Any other exception is a bug in ipucnn and keeps its traceback.
"""

from __future__ import annotations

from typing import Any, Iterable, Optional, Union

from ipucnn.core.names import printable, without_secrets

_LONGEST = 2000
"""Maximum number of characters of a message; the middle of a longer one is left out."""


class IpucnnError(Exception):
    """The work failed for a reason the user can act on.

    Args:
        message: one line, lower case, naming the offending value; control characters are escaped,
            because names and texts can come from outside, and URLs have no password and query.
        hint: how to fix the problem, one line or several; may be empty.
        exit_code: overrides the class's exit code.

    Attributes:
        partial: the results obtained before the failure, if any are worth showing.
    """

    exit_code = 1
    partial: Any = None

    def __init__(self, message: str, hint: Union[str, Iterable[str]] = "",
                 exit_code: Optional[int] = None) -> None:
        shown = printable(without_secrets(message))
        # a value from outside may have any length
        self.message = shown if len(shown) <= _LONGEST else f"{shown[:1500]} ... {shown[-400:]}"
        lines = [hint] if isinstance(hint, str) else hint
        self.hint = "\n".join(printable(without_secrets(line)) for line in lines if line)
        super().__init__(self.message)
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(IpucnnError):
    """A wrong option, value or combination; raised before any work starts."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no loaded plugin provides."""


class UnavailableError(UsageError):
    """A known plugin or backend that cannot be used on this machine."""


class UnsupportedNetworkError(UsageError):
    """A network that a backend cannot execute; another backend may support it."""


class BatchTooSmallError(UsageError):
    """A micro-batch that has too few samples for a layer of the network; a larger one may do."""


class PluginError(UsageError):
    """A plugin violates its contract: a bad record, a name clash, a failed import."""


CHECK_PLUGIN = "'ipucnn check-plugin' checks the plugin; report the error to its author"
"""Hint for a plugin whose code returns something else than documented."""


class OutOfMemoryError(IpucnnError):
    """Memory that a job needs and cannot get; a smaller micro-batch may fit."""


class TooLargeError(OutOfMemoryError, UsageError):
    """A job that needs more memory than there is; raised before any work starts."""


class DataError(IpucnnError):
    """A dataset, image or label file that cannot be used."""


class NoSplitError(DataError):
    """A dataset without images of the requested split; it may have other splits."""


class WeightsError(IpucnnError):
    """Weights that cannot be downloaded, read or loaded into the model."""
