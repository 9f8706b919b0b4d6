"""Checks the names in declarations of options: of other options, kinds, features and plugins.

A name that does not exist has no effect, and nothing reports it in a run.
"""

from __future__ import annotations

from typing import Iterator, List, Sequence, Type

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.names import did_you_mean
from ipucnn.core.options.attributes import STATES
from ipucnn.core.options.composition import CommandOptions, common_option, common_options
from ipucnn.core.options.declaration import declared, lookup
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import Owner
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry

_FOR_BACKENDS = ("role",)
"""Attributes that only options of backends have."""

_FOR_COMMANDS = ("feature", "switch", "in_profiles")
"""Attributes that only common options have; options of launchers act on the command line, too."""


def problems(owner: Owner, item: Declared, commands: Sequence[Type[CommandOptions]],
             registry: Registry) -> Iterator[str]:
    """Yield a line for each part of a declaration that has no effect.

    Args:
        owner: the plugin.
        item: its option.
        commands: options of the commands that accept it.
        registry: where names of plugins are looked up.
    """
    where = f"option '{item.flag}'"
    for name in _FOR_COMMANDS:
        if getattr(item.option, name) and (name == "feature" or owner.kind.name != "launcher"):
            yield f"{where} sets {name!r}, which only common options have"
    for name in _FOR_BACKENDS:
        if getattr(item.option, name) and owner.kind.name != "backend":
            yield f"{where} sets {name!r}, which only options of backends have"
    rule = item.option
    if item.type in (bool, str) and (rule.minimum, rule.exclusive_minimum, rule.maximum) != (
            None, None, None):
        yield f"{where} has a smallest or largest value, which only numbers have"
    if rule.size and item.type is not int:
        yield f"{where} sets 'size', which only options of type int have"
    wrong_default = _default(item, registry)
    if item.option.kind and item.option.kind not in KINDS:
        yield f"{where} has the unknown kind {item.option.kind!r}; kinds: " + ", ".join(KINDS)
    elif wrong_default:
        yield f"the default of {where}: {wrong_default}"
    needed = item.option.needs
    if needed and not any(common_option(command, needed) for command in commands):
        names = [one.name for command in commands for one in common_options(command)]
        yield f"{where} needs {needed!r}, which is no common option" + _close(needed, names)
    for condition in item.option.idle:
        if condition not in STATES:
            yield from (f"{where} has 'idle' {condition!r}: {why}"
                        for why in _condition(owner, condition, commands, registry))


def _condition(owner: Owner, condition: str, commands: Sequence[Type[CommandOptions]],
               registry: Registry) -> Iterator[str]:
    """Yield what is wrong with a condition on another option."""
    _, name, *values = condition.split()
    found: List[Declared] = [one for one in [lookup(owner.options, name)] if one is not None] or [
        one for command in commands for one in [common_option(command, name)] if one is not None]
    if not found:
        names = [one.name for one in declared(owner.options)]
        names += [one.name for command in commands for one in common_options(command)]
        yield f"there is no option {name!r}" + _close(name, names)
        return
    for value in values:
        problem = _value(found, value, registry)
        if problem:
            yield problem


def _value(found: Sequence[Declared], value: str, registry: Registry) -> str:
    """Return why a value is none of an option's, or an empty string."""
    refused = ""
    for item in found:
        try:
            item.coerce(value)
            if item.option.kind in KINDS:
                registry.get(item.option.kind, value)
            return ""
        except UsageError as error:
            refused = refused or error.message
    return refused


def _close(name: str, names: Sequence[str]) -> str:
    close = did_you_mean(name, names)
    return f" ({close})" if close else ""


def _default(item: Declared, registry: Registry) -> str:
    """Return why the default of an option with a kind is no plugin of it, or an empty string."""
    values = item.default if isinstance(item.default, tuple) else (item.default,)
    for value in values if item.option.kind in KINDS else ():
        try:
            if value:
                registry.get(item.option.kind, str(value))
        except IpucnnError as error:
            return error.message
    return ""
