"""Builds the text of `--help` and `--help-all` for commands with declared options."""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from ipucnn.core.names import printable
from ipucnn.core.options.owners import Owner, in_words
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import BackendSpec
from ipucnn.terminal.flags import Flag, FlagTable

Section = Tuple[str, List[Tuple[str, str]], str]
"""A heading, rows of flags with help, and a text that names further flags."""


def sections(table: FlagTable, explained: bool) -> Iterator[Section]:
    """Yield the sections of a command's help.

    Args:
        table: the flags of the command.
        explained: explain every option, those of all built-in plugins too; otherwise only the
            basic ones and those of the selected plugins, and name the others.
    """
    shown = table.of_job()
    yield from _common([flag for flag in shown if not flag.owners], explained)
    yield from _of_plugins([flag for flag in shown if flag.owners and not flag.qualified],
                           table.selected, explained)


def _common(shown: Sequence[Flag], explained: bool) -> Iterator[Section]:
    """Yield a section per heading of common options, and one that names the remaining ones."""
    common: Dict[str, List[Flag]] = {}
    for flag in shown:
        common.setdefault(flag.heading, []).append(flag)
    elsewhere: List[str] = []
    for heading, flags in common.items():
        rows = [row(flag, explained) for flag in flags if explained or flag.item.option.basic]
        others = [flag.spellings[0] for flag in flags
                  if not explained and not flag.item.option.basic]
        if rows:
            yield heading, rows, "more: " + ", ".join(others) if others else ""
        else:
            elsewhere += others
    if elsewhere:
        yield "Further options", [], ", ".join(elsewhere)


def _of_plugins(plugins: Sequence[Flag], selected: Sequence[Owner],
                explained: bool) -> Iterator[Section]:
    """Yield a section per options class of plugins, and one that names those not selected."""
    for owners in _groups(plugins):
        chosen = [owner for owner in owners if owner in selected]
        if explained or chosen:
            flags = [flag for flag in plugins if set(flag.owners) & set(owners)]
            yield _heading(owners if explained else chosen), [
                row(flag, explained, owners[0]) for flag in flags], ""
    if not explained:
        hidden = [flag.spellings[0] for flag in plugins
                  if not set(flag.owners) & set(selected)]
        if hidden:
            yield "Options of other plugins", [], ", ".join(hidden)


def _groups(flags: Sequence[Flag]) -> List[List[Owner]]:
    """Return the owners of flags, grouped by kind and options class."""
    groups: Dict[Tuple[str, type], List[Owner]] = {}
    for flag in flags:
        for owner in flag.owners:
            group = groups.setdefault((owner.kind.name, owner.options), [])
            if owner not in group:
                group.append(owner)
    return [groups[place] for place in sorted(
        groups, key=lambda place: list(KINDS).index(place[0]))]


def _heading(owners: Sequence[Owner]) -> str:
    return f"Options of {in_words(owners)}"


def supporting(feature: str) -> List[str]:
    """Return the built-in backends that support a feature."""
    from ipucnn.core.registry.registry import registry

    known = registry()
    return [name for name in known.names("backend")
            if known.get_typed(BackendSpec, name).has(feature)]


def row(flag: Flag, explained: bool = True, owner: Optional[Owner] = None) -> Tuple[str, str]:
    """Return a flag with its value, and its help text with default and owners.

    Args:
        flag: the flag.
        explained: with all of its spellings and owners; otherwise the heading names an owner.
        owner: the plugin whose declaration is used, if several declare it.
    """
    item = flag.item
    if owner is not None:
        item = next(one for one in [owner.option(item.name)] if one is not None)
    rule = item.option
    text = rule.help
    if item.default not in (None, False, (), ""):
        default = " ".join(map(str, item.default)) if item.many else str(item.default)
        text += f" Default: {default}."
    if rule.feature:
        text += f" Backends: {', '.join(supporting(rule.feature))}."
    if rule.only and not rule.validation:
        text += f" For {rule.only} only."
    if flag.owners and explained:
        text += f" Plugins: {in_words(flag.owners)}."
    spellings = flag.spellings if explained else flag.spellings[:1]
    if item.boolean:
        negative = f" / --no-{spellings[0][2:]}" if flag.negatable and (
            explained or item.default) else ""
        return printable(", ".join(spellings) + negative), printable(text)
    metavar = rule.metavar or "|".join(rule.choices) or (
        "SIZE" if rule.size else "true|false" if item.type is bool else item.type.__name__.upper())
    return printable(f"{', '.join(spellings)} {metavar}"), printable(text)
