"""Checks of arguments that are no options of a command: paths and numbers."""

from __future__ import annotations

import os
from typing import Any, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.names import brief
from ipucnn.core.options.conversion import LARGEST, TooManyDigitsError, as_type, builtin


def path_of(name: str, value: Any) -> str:
    """Return a path as text, with `~` at its beginning expanded.

    Args:
        name: of the argument, for the error.
        value: the argument.

    Raises:
        UsageError: it is neither text nor a `pathlib.Path`, or empty.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise UsageError(f"option {name!r}: {brief(value)} is no path",
                         "it is text, or an object of 'pathlib'")
    if not path:
        raise UsageError(f"option {name!r} is empty", "name a file or folder")
    return os.path.expanduser(path)  # a Path would change URLs


def whole_number(name: str, value: Any, least: int) -> int:
    """Return a whole number, also of one of numpy.

    Args:
        name: of the argument, for the error.
        value: the argument.
        least: the smallest value.

    Raises:
        UsageError: it is no whole number, or not in the range.
    """
    number: Optional[int]
    try:
        number = as_type(int, builtin(value))
    except TooManyDigitsError:
        number = LARGEST + 1
    if number is None:
        raise UsageError(f"option {name!r}: {brief(value)} is not a whole number")
    if not least <= number <= LARGEST:
        raise UsageError(
            f"option {name!r}: {brief(value)} is too {'small' if number < least else 'large'}",
            f"the {'smallest' if number < least else 'largest'} value is "
            f"{least if number < least else LARGEST}")
    return number
