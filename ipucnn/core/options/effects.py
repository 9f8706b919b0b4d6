"""Finds given options without effect in a job, for notes to the user.

An option declares the conditions in which it has no effect (`Option.idle`). Contradictory options
are errors, raised where options are checked. Options without effect are only noted, because
profiles, old scripts and saved options contain them.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Dict, Iterator, List, Mapping, Optional, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.options.attributes import WITH, WITHOUT
from ipucnn.core.options.composition import CommandOptions, common_option, common_options
from ipucnn.core.options.declaration import declared, lookup
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry

Value = Callable[[str], Optional[Tuple[Declared, Any]]]
"""Returns the declaration and value of an option by name; None where there is no such option."""


def idle_notes(options: Any, states: Mapping[str, str], registry: Registry,
               among: Optional[Collection[str]] = None) -> List[str]:
    """Return a note for each reason why given options have no effect.

    Args:
        options: of a command, composed or one plain dataclass.
        states: those of `STATES` that the job is in, with the words that end the note: ``in full
            precision``.
        registry: where names of plugins are looked up.
        among: names of the options to consider; all when None.
    """
    reasons: Dict[str, List[str]] = {}
    for item, value, value_of in _given(options):
        if not item.option.idle or (among is not None and item.name not in among):
            continue
        reason = next(filter(None, (_reason(condition, states, value_of, registry)
                                    for condition in item.option.idle)), "")
        if reason:
            reasons.setdefault(reason, []).append(f"'{spelt(item, value)}'")
    return [f"{', '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect {reason}"
            for reason, flags in reasons.items()]


def spelt(item: Declared, value: Any) -> str:
    """Return the flag that gives an option its value: that with `--no-` for False."""
    return f"--no-{item.flag[2:]}" if item.boolean and value is False else item.flag


def _given(options: Any) -> Iterator[Tuple[Declared, Any, Value]]:
    """Yield the options that are not at their default, with the values that they may depend on."""
    composed = isinstance(options, CommandOptions)

    def common(name: str) -> Optional[Tuple[Declared, Any]]:
        item = common_option(type(options), name)
        if item is None:
            return None
        return item, options.get(item.name) if composed else getattr(options, item.name)

    rows: List[Tuple[Declared, Any, Value]] = [
        (item, found[1], common)
        for item in common_options(type(options))
        # a shipped profile states defaults, for those who change what they depend on
        if not (composed and item.name in options.shipped)
        for found in [common(item.name)] if found is not None]
    if composed:
        for own in options.plugins.owned.values():
            rows += [(item, getattr(own, item.name), _within(own, common))
                     for item in declared(type(own))]
        rows += [(item, options.plugins.deferred[name], common)
                 for name, item in options.plugins.undecided.items()]
    yield from (row for row in rows
                if row[1] != row[0].default and row[1] not in row[0].option.former)


def _within(own: Any, common: Value) -> Value:
    """Return a function that looks among a plugin's options first."""
    def value_of(name: str) -> Optional[Tuple[Declared, Any]]:
        item = lookup(type(own), name)
        return common(name) if item is None else (item, getattr(own, item.name))

    return value_of


def _reason(condition: str, states: Mapping[str, str], value_of: Value,
            registry: Registry) -> str:
    """Return why an option has no effect under a condition of `Option.idle`; empty if it has."""
    if not condition.startswith((WITHOUT, WITH)):
        return states.get(condition, "")
    _, name, *values = condition.split()
    found = value_of(name)
    if found is None:  # the command does not have the other option
        return ""
    item, value = found
    if not values:
        return "" if value != item.default else f"without '{item.flag}'"
    chosen = _name(item, value, registry)
    among = any(_means(item, chosen, word) for word in values)
    if condition.startswith(WITH):
        return f"with '{item.flag} {chosen}'" if among else ""
    return "" if among else f"without '{item.flag} {values[0]}'"


def _means(item: Declared, value: Any, word: str) -> bool:
    """Return whether a word of a condition is a value of an option."""
    try:
        return bool(value == word or item.coerce(word) == value)
    except UsageError:
        return False


def _name(item: Declared, value: Any, registry: Registry) -> Any:
    """Return an option's value; of one that selects a plugin, the plugin's canonical name."""
    if item.option.kind not in KINDS or not isinstance(value, str):
        return value
    try:
        return registry.get(item.option.kind, value).name
    except IpucnnError:
        return value
