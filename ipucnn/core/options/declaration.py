"""Declares options as dataclass fields: the single source of flags, checks and reference.

Options are fields of frozen dataclasses created by `option`: the parts that commands are composed
of, and the classes that plugins declare. The command line, the YAML profiles, validation, the
options saved with a result and the reference page are derived from these declarations. Field
annotations are evaluated at run time, so they use Python 3.8 syntax.
"""

import dataclasses
import functools
import types
import typing
from typing import Any, Callable, Mapping, Optional, Tuple, TypeVar, Union

from ipucnn.core.errors import PluginError
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.options.attributes import Option
from ipucnn.core.options.conversion import as_choices, canonical
from ipucnn.core.options.declared_option import Declared

ResultT = TypeVar("ResultT")


def once_per_class(function: Callable[[Any], ResultT]) -> Callable[[Any], ResultT]:
    """Cache the results of a function of a class: declarations are read once per process."""
    return functools.lru_cache(maxsize=None)(function)


_UNIONS = (Union, getattr(types, "UnionType", Union))
"""The origins of ``Optional[int]`` and, from Python 3.10, of ``int | None``."""


def option(default: Any, help: str, **details: Any) -> Any:
    """Declare an option as a field of a frozen dataclass.

    The field's annotation is its type: `bool`, `int`, `float`, `str`, `Optional` of these, or
    ``Tuple[T, ...]`` for several values. ::

        @dataclass(frozen=True)
        class LionOptions:
            beta2: float = ipucnn.option(0.99, "Decay of the momentum.", minimum=0.0, maximum=1.0)

    Args:
        default: the default value; a member of an enum stands for its value.
        help: one or two sentences.
        **details: the other attributes of `Option` (`names`, `choices`, `minimum` ...).

    Raises:
        PluginError: an unknown attribute, or one with a wrong value.
    """
    choices = as_choices(details.pop("choices", {}))
    if isinstance(details.get("idle"), str):
        details["idle"] = (details["idle"],)
    known = [field.name for field in dataclasses.fields(Option)]
    unknown = sorted(set(details) - set(known))
    if unknown:
        raise PluginError(f"an option has no attribute {unknown[0]!r}",
                          did_you_mean(unknown[0], known) or "attributes: " + ", ".join(known))
    declaration = Option(help=help, choices=choices, **details)
    return dataclasses.field(default=canonical(default, choices, declaration.path),
                             metadata={"option": declaration, "check": _check_field})


def _check_field(options_class: type, name: str) -> None:
    """Check the type and the default of a field that `option` created.

    The registry, which imports nothing of options, finds this function in the field's metadata.
    """
    next(item for item in declared(options_class) if item.name == name).check_default()


@once_per_class
def declared(options_class: type) -> Tuple[Declared, ...]:
    """Return the options that a dataclass declares, in order; read once per process.

    Raises:
        PluginError: a field has no default, was not created by `option`, or has an unsupported
            type.
    """
    hints = typing.get_type_hints(options_class)
    return tuple(_declared(options_class, field, hints[field.name])
                 for field in dataclasses.fields(options_class))


@once_per_class
def spellings(options_class: type) -> Mapping[str, Declared]:
    """Return the options of a dataclass by every spelling, normalised by `key`."""
    return {key(flag.lstrip("-")): item
            for item in reversed(declared(options_class)) for flag in reversed(item.flags)}


def lookup(options_class: type, spelling: str) -> Optional[Declared]:
    """Return an option by `spelling`, current or old, with or without dashes."""
    return spellings(options_class).get(key(spelling.lstrip("-")))


def _declared(owner: type, field: "dataclasses.Field[Any]", hint: Any) -> Declared:
    where = f"field {field.name!r} of {owner.__name__}"
    if "option" not in field.metadata:
        raise PluginError(f"{where} is not declared with 'ipucnn.option'")
    arguments = typing.get_args(hint)
    nullable = typing.get_origin(hint) in _UNIONS and type(None) in arguments
    if nullable and len(arguments) == 2:
        hint = next(a for a in arguments if a is not type(None))
    many = typing.get_origin(hint) is tuple
    items = typing.get_args(hint) if many else (hint, ...)
    item_type = items[0] if len(items) == 2 and items[1] is ... else hint
    if item_type not in (bool, int, float, str):
        raise PluginError(f"{where} is of type {item_type!r}, expected bool, int, float or str, "
                          "Optional of one, or Tuple[T, ...]")
    if None in field.metadata["option"].choices.values() and (many or not nullable):
        raise PluginError(f"{where} has a choice that means None, expected Optional of one value")
    return Declared(field.name, field.default, field.metadata["option"], item_type, many, nullable)
