"""Converts values from outside to the types of options; every number is bounded here."""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional, Union

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.files import native_path
from ipucnn.core.names import brief, did_you_mean, key

if TYPE_CHECKING:
    from ipucnn.core.options.declaration import Declared

LARGEST = 2 ** 31 - 1
"""Largest whole number of an option that declares no maximum."""

LARGEST_SIZE = 2 ** 63 - 1
"""Largest whole number of any option: the largest file offset and numpy integer."""

LARGEST_REAL = 3.4e38
"""Largest number with a fraction of an option that declares no maximum: devices compute in single
precision."""

_DIGITS = 40
"""Maximum number of digits of a whole number; parsing takes quadratic time in Python."""


class TooLargeError(ValueError):
    """A number that is valid but has more digits than any option allows."""


def coerced(item: Declared, value: Any, where: str) -> Any:
    """Return a value in the type of an option; see `Declared.coerce`.

    Args:
        item: the option.
        value: the value.
        where: its source in brackets, for messages; may be empty.

    Raises:
        UsageError: it is not of the type, not one of the choices or out of range.
    """
    value = builtin(value)
    if value is None:
        if item.nullable:
            return None
        raise UsageError(f"option '{item.flag}' needs a value{where}")
    if not item.many:
        return _single(item, value, where)
    if isinstance(value, str):
        value = value.split()
    value = [builtin(one) for one in value] if isinstance(value, Sequence) else [value]
    if item.type is not str:
        value = [number for one in value for number in _numbers(one)]
    return tuple(_single(item, one, where) for one in value)


def _single(item: Declared, value: Any, where: str) -> Any:
    """Return a single value, or one of a list, in the type of an option."""
    rule = item.option
    word = next((word for word in rule.words
                 if isinstance(value, str) and key(value) == key(word)), None)
    if word is not None:
        return word
    if rule.choices:
        meant = _meanings(item.type, rule.choices, value)
        if not meant:
            raise UsageError(
                f"option '{item.flag}': {brief(value)} is not one of its values{where}",
                " ".join(filter(None, (did_you_mean(brief(value).strip("'"), rule.choices),
                                       "values: " + ", ".join(rule.choices)))))
        return None if meant[-1] is None else _converted(item, meant[-1], where)
    result = _converted(item, value, where)
    if item.type is not str:
        _check_range(item, value, result, where)
        return result
    if not result.strip() and result != item.default:  # of an unset variable, for example
        raise UsageError(f"option '{item.flag}' is empty{where}",
                         "give it a value, or leave it out")
    if rule.path and "\0" in result:
        raise UsageError(f"option '{item.flag}': {brief(result)} contains the character NUL, which "
                         f"no path can have{where}", "correct the path")
    return os.path.expanduser(native_path(result)) if rule.path else result


def _check_range(item: Declared, value: Any, number: float, where: str) -> None:
    """Raise an error for a number that an option does not allow; `value` is what was given."""
    rule = item.option
    if item.type is float and not math.isfinite(number):
        raise UsageError(f"option '{item.flag}': {brief(value)} is not a finite number{where}")
    if rule.minimum is not None and number < rule.minimum:
        raise UsageError(f"option '{item.flag}': {brief(value)} is too small{where}",
                         f"the smallest value is {rule.minimum:g}")
    if rule.exclusive_minimum is not None and number <= rule.exclusive_minimum:
        raise UsageError(f"option '{item.flag}': {brief(value)} is too small{where}",
                         f"it must be more than {rule.exclusive_minimum:g}")
    largest = _largest(item)
    if number > largest:
        raise _too_large(item, value, where)
    if number < -max(largest, LARGEST):
        raise UsageError(f"option '{item.flag}': {brief(value)} is too small{where}")


def _converted(item: Declared, value: Any, where: str) -> Any:
    """Return a value in the option's type, whatever its size."""
    rule = item.option
    try:
        result = as_type(item.type, size_in_bytes(value) if rule.size else value)
    except TooLargeError:
        raise _too_large(item, value, where) from None
    if result is not None:
        return result
    if rule.size:
        raise UsageError(f"option '{item.flag}': {brief(value)} is not a number of bytes{where}",
                         "write it in whole bytes or with a suffix: 500M, 20G, 1.5T")
    wanted = {int: "a whole number", float: "a number", bool: "true or false",
              str: "text"}[item.type]
    wanted = " or ".join([wanted, *map(repr, rule.words)])
    raise UsageError(f"option '{item.flag}': {brief(value)} is not {wanted}{where}")


def _largest(item: Declared) -> float:
    """Return the largest allowed number of an option."""
    if item.option.maximum is not None:
        return item.option.maximum
    if item.type is float:
        return LARGEST_REAL
    return LARGEST_SIZE if item.option.size else LARGEST


def _too_large(item: Declared, value: Any, where: str) -> UsageError:
    most = _largest(item)
    return UsageError(f"option '{item.flag}': {brief(value)} is too large{where}",
                      "the largest value is "
                      + (str(most) if isinstance(most, int) else f"{most:g}"))


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
        TooLargeError: it is a number with too many digits.
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
    except TooLargeError:
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


def _meanings(wanted: type, choices: Mapping[str, Optional[str]],
              value: Any) -> List[Optional[str]]:
    """Return the meanings of the choices that `value` spells, or else of those that mean it."""
    if isinstance(value, str):  # before the conversion: a number may have a name
        spelt = [meaning for choice, meaning in choices.items() if key(choice) == key(value)]
        if spelt:
            return spelt
    try:
        result = as_type(wanted, value)
    except TooLargeError:
        result = None
    if result is None:
        return []
    return [meaning for choice, meaning in choices.items()
            if key(choice) == key(str(result)) or as_type(wanted, choice) == result] or [
                meaning for meaning in choices.values() if as_type(wanted, meaning) == result]


def _whole(value: Any) -> Optional[int]:
    """Return a whole number, exactly; None if there is a fraction."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?\d(_?\d)*", text, re.ASCII):
            if len(text) > _DIGITS:
                raise TooLargeError
            return int(text)
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return int(number) if number == int(number) else None


def _check_digits(value: int) -> None:
    if abs(value) >= 10 ** _DIGITS:
        raise TooLargeError


def size_in_bytes(value: Any) -> Any:
    """Return the number of bytes in `20G`, or `value` without a suffix.

    Raises:
        TooLargeError: it has too many digits.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", value, re.IGNORECASE)
    if not found:
        return value
    number, letter, binary = found.groups()
    if len(number) > _DIGITS:
        raise TooLargeError
    power = 1 + "KMGT".index(letter.upper())
    return int(Decimal(number) * (1024 if binary else 1000) ** power)


def _numbers(item: Any) -> List[Any]:
    """Return the numbers of a comma-separated text, or `item` itself."""
    return item.replace(",", " ").split() if isinstance(item, str) else [item]
