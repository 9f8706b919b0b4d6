"""What an option is: declared once as a dataclass field, used everywhere.

A command's options are one frozen dataclass whose fields are made by `option`. From that single
declaration come the command line, the YAML profiles, validation, the options saved with a result
and the reference page. Field annotations are read at run time, so they stay Python 3.8 spellings.
"""

import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, TypeVar, Union

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean, key

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Option:
    """Everything about an option except its name, type and default.

    Attributes:
        help: one or two sentences for `--help` and the reference page.
        group: the heading it stands under.
        names: further command-line spellings, with their dashes.
        choices: allowed values; a mapping also translates a spelling into its canonical value.
        kind: the registry kind whose names are its values.
        minimum: smallest allowed number.
        exclusive_minimum: the number it must exceed.
        maximum: largest allowed number.
        backend_option: only backends whose record names it have it.
        model_option: only models whose record names it have it.
        size: a number of bytes; K, M, G and T are powers of 1000, Ki, Mi ... of 1024.
        metavar: how help shows its value.
        switch: it acts on the command line only (`--json`) and is no setting of the run.
        negatable: a flag that also has a `--no-` form.
    """

    help: str
    group: str = "Options"
    names: Tuple[str, ...] = ()
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kind: str = ""
    minimum: Optional[float] = None
    exclusive_minimum: Optional[float] = None
    maximum: Optional[float] = None
    backend_option: bool = False
    model_option: bool = False
    size: bool = False
    metavar: str = ""
    switch: bool = False
    negatable: bool = True


def option(default: Any, help: str, **details: Any) -> Any:
    """Declare an option; `details` are the other attributes of `Option`."""
    choices = details.pop("choices", {})
    if not isinstance(choices, Mapping):
        choices = {choice: choice for choice in choices}
    return dataclasses.field(
        default=default, metadata={"option": Option(help=help, choices=choices, **details)})


@dataclass(frozen=True)
class Declared:
    """One declared option of one command: the field and what its annotation says."""

    name: str
    default: Any
    option: Option
    type: type
    many: bool
    nullable: bool

    @property
    def flag(self) -> str:
        """Its canonical command-line spelling."""
        return "--" + self.name.replace("_", "-")

    @property
    def flags(self) -> Tuple[str, ...]:
        """Every command-line spelling, the canonical one first."""
        return (self.flag, *self.option.names)

    @property
    def boolean(self) -> bool:
        """Whether it is a `--flag/--no-flag`."""
        return self.type is bool

    def coerce(self, value: Any, origin: str = "") -> Any:
        """Return `value` in the option's type.

        Args:
            value: from the command line, a profile, a saved result or Python.
            origin: where it comes from, for the message ("profile.yaml, line 3").

        Raises:
            UsageError: it is not of the type, not one of the choices or out of range.
        """
        where = f" ({origin})" if origin else ""
        if value is None:
            if self.nullable:
                return None
            raise UsageError(f"option '{self.flag}' needs a value{where}")
        if not self.many:
            return self._coerce_one(value, where)
        if isinstance(value, str):
            value = value.split()
        if not isinstance(value, (list, tuple)):
            value = [value]
        if self.type is not str:
            value = [number for item in value for number in _numbers(item)]
        return tuple(self._coerce_one(item, where) for item in value)

    def _coerce_one(self, value: Any, where: str) -> Any:
        result = _as_type(self.type, _bytes(value) if self.option.size else value)
        if result is None and self.option.size:
            raise UsageError(f"option '{self.flag}': {value!r} is not a number of bytes{where}",
                             "write it in whole bytes or with a suffix: 500M, 20G, 1.5T")
        if result is None:
            wanted = {int: "a whole number", float: "a number", bool: "true or false",
                      str: "text"}[self.type]
            raise UsageError(f"option '{self.flag}': {value!r} is not {wanted}{where}")
        rule = self.option
        if rule.choices:
            spellings = {key(choice): meaning for choice, meaning in rule.choices.items()}
            if key(str(result)) not in spellings:
                raise UsageError(
                    f"option '{self.flag}': {value!r} is not one of its values{where}",
                    _hint(did_you_mean(str(result), rule.choices),
                          "values: " + ", ".join(rule.choices)))
            return _as_type(self.type, spellings[key(str(result))])
        if self.type in (int, float) and not math.isfinite(result):
            raise UsageError(f"option '{self.flag}': {value!r} is not a finite number{where}")
        if rule.minimum is not None and result < rule.minimum:
            raise UsageError(f"option '{self.flag}': {value!r} is too small{where}",
                             f"the smallest value is {rule.minimum:g}")
        if rule.exclusive_minimum is not None and result <= rule.exclusive_minimum:
            raise UsageError(f"option '{self.flag}': {value!r} is too small{where}",
                             f"it must be more than {rule.exclusive_minimum:g}")
        if rule.maximum is not None and result > rule.maximum:
            raise UsageError(f"option '{self.flag}': {value!r} is too large{where}",
                             f"the largest value is {rule.maximum:g}")
        return result


def declared(options_class: type) -> List[Declared]:
    """Return the options that a dataclass declares, in order."""
    hints = typing.get_type_hints(options_class)
    return [_declared(field, hints[field.name]) for field in dataclasses.fields(options_class)
            if "option" in field.metadata]


def lookup(options_class: type, spelling: str) -> Optional[Declared]:
    """Return the option that `spelling` (with or without dashes, either era) means."""
    wanted = key(spelling.lstrip("-"))
    for candidate in declared(options_class):
        if any(wanted == key(flag.lstrip("-")) for flag in candidate.flags):
            return candidate
    return None


def coerced(options_class: type, source: Mapping[str, Any],
            origins: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
    """Return validated values by the options' own names.

    Args:
        options_class: the dataclass of the command.
        source: values by any spelling of the option.
        origins: where a spelling's value comes from, for messages.

    Raises:
        UsageError: an unknown name, or a value that is not allowed.
    """
    values: Dict[str, Any] = {}
    for spelling, value in source.items():
        found = lookup(options_class, spelling)
        origin = (origins or {}).get(spelling, "")
        if found is None:
            flags = [flag.lstrip("-") for item in declared(options_class) for flag in item.flags]
            where = f" ({origin})" if origin else ""
            raise UsageError(f"unknown option {spelling!r}{where}",
                             did_you_mean(spelling, flags)
                             or "the command's '--help' lists its options")
        values[found.name] = found.coerce(value, origin)
    return values


def build(options_class: Type[OptionsT], *sources: Mapping[str, Any]) -> OptionsT:
    """Build validated options; later sources win over earlier ones, all win over the defaults.

    A class some of whose options stand for others says what the sources are together: its
    `combined` returns the values to build from.

    Raises:
        UsageError: an unknown name, a value that is not allowed, or options that contradict.
    """
    combine = getattr(options_class, "combined", _overlaid)
    return options_class(**combine([coerced(options_class, source) for source in sources]))


def _overlaid(sources: List[Dict[str, Any]]) -> Dict[str, Any]:
    return {name: value for source in sources for name, value in source.items()}


def as_dict(options: Any) -> Dict[str, Any]:
    """Return the settings of a run as plain types, ready to be saved and given to `build`."""
    result = {}
    for item in declared(type(options)):
        if item.option.switch:
            continue
        value = getattr(options, item.name)
        result[item.name] = list(value) if isinstance(value, tuple) else value
    return result


def changed(options: Any) -> List[Declared]:
    """Return the options whose value differs from their default."""
    return [item for item in declared(type(options))
            if getattr(options, item.name) != item.default]


def _declared(field: "dataclasses.Field[Any]", hint: Any) -> Declared:
    arguments = typing.get_args(hint)
    nullable = typing.get_origin(hint) is Union and type(None) in arguments
    if nullable:
        hint = next(a for a in arguments if a is not type(None))
    many = typing.get_origin(hint) is tuple
    item_type = typing.get_args(hint)[0] if many else hint
    return Declared(field.name, field.default, field.metadata["option"], item_type, many, nullable)


def _as_type(wanted: type, value: Any) -> Any:
    """Return `value` as `wanted`, or None when it is not one."""
    if wanted is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        return words.get(value.strip().lower()) if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    if wanted is str:
        # `precision: 16.16` is a number to YAML and a word to us
        return value if isinstance(value, str) else str(value) if isinstance(
            value, (int, float)) else None
    try:
        if wanted is int:
            number = value if isinstance(value, int) else float(value)
            return int(number) if number == int(number) else None
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _bytes(value: Any) -> Any:
    """Return how many bytes `20G` is, or `value` where it has no suffix."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", str(value), re.IGNORECASE)
    if not found:
        return value
    number, letter, binary = found.groups()
    power = 1 + "KMGT".index(letter.upper())
    return int(float(number) * (1024 if binary else 1000) ** power)


def _numbers(item: Any) -> List[Any]:
    """Return the numbers that stand in text with commas between them, or `item` itself."""
    return item.replace(",", " ").split() if isinstance(item, str) else [item]


def _hint(*parts: str) -> str:
    return " ".join(part for part in parts if part)
