"""A declared option: a field with its type, to which values from outside are converted."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.files import native_path
from ipucnn.core.names import brief, did_you_mean, flag_of, key
from ipucnn.core.options.attributes import Option
from ipucnn.core.options.conversion import (
    LARGEST,
    LARGEST_REAL,
    LARGEST_SIZE,
    TooManyDigitsError,
    as_type,
    builtin,
    size_in_bytes,
)


@dataclass(frozen=True)
class Declared:
    """One declared option of one command: the field and its type.

    Attributes:
        name: of the field.
        default: its default.
        option: its other attributes.
        type: of a value: `bool`, `int`, `float` or `str`.
        many: whether its value is a tuple of such values.
        nullable: whether its value may be None.
    """

    name: str
    default: Any
    option: Option
    type: type
    many: bool
    nullable: bool

    @property
    def flag(self) -> str:
        """Its canonical command-line spelling."""
        return flag_of(self.name)

    @property
    def flags(self) -> Tuple[str, ...]:
        """Every command-line spelling, the canonical one first."""
        return (self.flag, *self.option.names)

    @property
    def boolean(self) -> bool:
        """Whether it is a `--flag/--no-flag` pair; a list of booleans has values."""
        return self.type is bool and not self.many

    def check_default(self) -> None:
        """Check the default.

        Raises:
            PluginError: it is not of the option's type.
            UsageError: it is not an allowed value.
        """
        value = self.coerce(self.default)
        if value != self.default and type(value) is not type(self.default):
            raise PluginError(f"the default of option '{self.flag}', {self.default!r}, is not of "
                              "its type")

    def coerce(self, value: Any, origin: str = "") -> Any:
        """Return `value` in the option's type.

        Args:
            value: a value from the command line, a profile, a saved result or Python, where it
                may be a path or a numpy number.
            origin: its source, for the message ("profile.yaml, line 3").

        Raises:
            UsageError: it is not of the type, not one of the choices or out of range.
        """
        where = f" ({origin})" if origin else ""
        value = builtin(value)
        if value is None:
            if self.nullable:
                return None
            raise UsageError(f"option '{self.flag}' needs a value{where}")
        if not self.many:
            return self._single(value, where)
        if isinstance(value, str):
            value = value.split()
        value = [builtin(one) for one in value] if isinstance(value, Sequence) else [value]
        if self.type is not str:
            value = [number for one in value for number in _numbers(one)]
        return tuple(self._single(one, where) for one in value)

    def _single(self, value: Any, where: str) -> Any:
        """Return a single value, or one of a list; `where` is its source, for messages."""
        rule = self.option
        word = next((word for word in rule.words
                     if isinstance(value, str) and key(value) == key(word)), None)
        if word is not None:
            return word
        if rule.choices:
            meant = self._meanings(value)
            if not meant:
                raise UsageError(
                    f"option '{self.flag}': {brief(value)} is not one of its values{where}",
                    " ".join(filter(None, (did_you_mean(brief(value).strip("'"), rule.choices),
                                           "values: " + ", ".join(rule.choices)))))
            return None if meant[-1] is None else self._converted(meant[-1], where)
        result = self._converted(value, where)
        if self.type is not str:
            self._check_range(value, result, where)
            return result
        if not result.strip() and result != self.default:  # of an unset variable, for example
            raise UsageError(f"option '{self.flag}' is empty{where}",
                             "give it a value, or leave it out")
        if rule.path and "\0" in result:
            raise UsageError(f"option '{self.flag}': {brief(result)} contains the character NUL, "
                             f"which no path can have{where}", "correct the path")
        return os.path.expanduser(native_path(result)) if rule.path else result

    def _meanings(self, value: Any) -> List[Optional[str]]:
        """Return the meanings of the choices that `value` spells, or else of those it means."""
        choices = self.option.choices
        if isinstance(value, str):  # before the conversion: a number may have a name
            spelt = [meaning for choice, meaning in choices.items() if key(choice) == key(value)]
            if spelt:
                return spelt
        try:
            result = as_type(self.type, value)
        except TooManyDigitsError:
            result = None
        if result is None:
            return []
        return [meaning for choice, meaning in choices.items()
                if key(choice) == key(str(result)) or as_type(self.type, choice) == result] or [
                    meaning for meaning in choices.values()
                    if as_type(self.type, meaning) == result]

    def _check_range(self, value: Any, number: float, where: str) -> None:
        """Raise an error for a number that is not allowed; `value` is what was given."""
        rule = self.option
        if self.type is float and not math.isfinite(number):
            raise UsageError(f"option '{self.flag}': {brief(value)} is not a finite number{where}")
        if rule.minimum is not None and number < rule.minimum:
            raise UsageError(f"option '{self.flag}': {brief(value)} is too small{where}",
                             f"the smallest value is {rule.minimum:g}")
        if rule.exclusive_minimum is not None and number <= rule.exclusive_minimum:
            raise UsageError(f"option '{self.flag}': {brief(value)} is too small{where}",
                             f"it must be more than {rule.exclusive_minimum:g}")
        largest = self._largest
        if number > largest:
            raise self._too_large(value, where)
        if number < -max(largest, LARGEST):
            raise UsageError(f"option '{self.flag}': {brief(value)} is too small{where}")

    def _converted(self, value: Any, where: str) -> Any:
        """Return a value in the option's type, whatever its size."""
        rule = self.option
        try:
            result = as_type(self.type, size_in_bytes(value) if rule.size else value)
        except TooManyDigitsError:
            raise self._too_large(value, where) from None
        if result is not None:
            return result
        if rule.size:
            raise UsageError(
                f"option '{self.flag}': {brief(value)} is not a number of bytes{where}",
                "write it in whole bytes or with a suffix: 500M, 20G, 1.5T")
        wanted = {int: "a whole number", float: "a number", bool: "true or false",
                  str: "text"}[self.type]
        wanted = " or ".join([wanted, *map(repr, rule.words)])
        raise UsageError(f"option '{self.flag}': {brief(value)} is not {wanted}{where}")

    @property
    def _largest(self) -> float:
        """The largest allowed number."""
        if self.option.maximum is not None:
            return self.option.maximum
        if self.type is float:
            return LARGEST_REAL
        return LARGEST_SIZE if self.option.size else LARGEST

    def _too_large(self, value: Any, where: str) -> UsageError:
        most = self._largest
        return UsageError(f"option '{self.flag}': {brief(value)} is too large{where}",
                          "the largest value is "
                          + (str(most) if isinstance(most, int) else f"{most:g}"))


def _numbers(item: Any) -> List[Any]:
    """Return the numbers of a comma-separated text, or `item` itself."""
    return item.replace(",", " ").split() if isinstance(item, str) else [item]
