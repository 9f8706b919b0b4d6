"""Converts values from outside to the types of options; the largest numbers of options."""

from __future__ import annotations

import enum
import os
import re
from decimal import Decimal
from typing import Any, Dict, Iterable, Mapping, Optional, Union

from ipucnn.core.errors import PluginError
from ipucnn.core.names import key

LARGEST = 2 ** 31 - 1
"""Largest whole number of an option that declares no maximum."""

LARGEST_SIZE = 2 ** 63 - 1
"""Largest whole number of any option: the largest file offset and numpy integer."""

LARGEST_REAL = 3.4e38
"""Largest number with a fraction of an option that declares no maximum: devices compute in single
precision."""

_DIGITS = 40
"""Maximum number of digits of a whole number; parsing takes quadratic time in Python."""


class TooManyDigitsError(ValueError):
    """A number that is valid but has more digits than any option allows."""


def builtin(value: Any) -> Any:
    """Convert a path to text, and numpy numbers and enum members to their values.

    Other values are returned unchanged.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist") and getattr(value, "ndim", 2) < 2:  # a number, or a list of them
        return value.tolist()
    return value


def as_type(wanted: type, value: Any) -> Any:
    """Return `value` converted to bool, int, float or str, or None if that is impossible.

    Raises:
        TooManyDigitsError: it is a number with too many digits.
    """
    if wanted is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        return words.get(value.strip().lower()) if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        _check_digits(value)
    if wanted is str:
        # `precision: 16.16` is a number to YAML and a string here; a subclass of `str`, which
        # files of options cannot contain, becomes one, too
        return str.__str__(value) if isinstance(value, str) else str(value) if isinstance(
            value, (int, float)) else None
    try:
        return _whole(value) if wanted is int else float(value)
    except (TypeError, OverflowError):
        return None
    except TooManyDigitsError:
        raise
    except ValueError:
        return None


def as_choices(choices: Union[Iterable[Any], Mapping[Any, Any]]) -> Dict[str, Optional[str]]:
    """Return the choices of an option, as text: the meanings by their spellings.

    Raises:
        PluginError: they are one text.
    """
    if isinstance(choices, str):
        raise PluginError(f"an option's 'choices' is {choices!r}, expected a tuple such as "
                          f"({choices!r},)")
    if not isinstance(choices, Mapping):
        choices = {choice: choice for choice in choices}
    pairs = [(builtin(choice), builtin(meaning)) for choice, meaning in choices.items()]
    return {str(choice): None if meaning is None else str(meaning) for choice, meaning in pairs}


def canonical(default: Any, choices: Mapping[str, Optional[str]], path: bool) -> Any:
    """Return a default as the same value would be converted if it was given.

    It is of a built-in type; the spelling of a choice is its meaning, and `~` the home folder.

    Args:
        default: the default.
        choices: the meanings of the option's choices by their spellings.
        path: whether the option's value may be a path.
    """
    if isinstance(default, tuple):
        return tuple(canonical(item, choices, path) for item in default)
    default = builtin(default)
    if not isinstance(default, str):
        return default
    spelt = [meaning for choice, meaning in choices.items() if key(choice) == key(default)]
    return spelt[-1] if spelt else os.path.expanduser(default) if path else default


def _whole(value: Any) -> Optional[int]:
    """Return a whole number, exactly; None if there is a fraction."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?\d(_?\d)*", text, re.ASCII):
            if len(text) > _DIGITS:
                raise TooManyDigitsError
            return int(text)
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return int(number) if number == int(number) else None


def _check_digits(value: int) -> None:
    if abs(value) >= 10 ** _DIGITS:
        raise TooManyDigitsError


def size_in_bytes(value: Any) -> Any:
    """Return the number of bytes in `20G`, or `value` without a suffix.

    Raises:
        TooManyDigitsError: it has too many digits.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", value, re.IGNORECASE)
    if not found:
        return value
    number, letter, binary = found.groups()
    if len(number) > _DIGITS:
        raise TooManyDigitsError
    power = 1 + "KMGT".index(letter.upper())
    return int(Decimal(number) * (1024 if binary else 1000) ** power)
