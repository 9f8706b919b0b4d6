"""Creates command-line flags from declared options of a command and of plugins."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Collection, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.names import RESERVED, did_you_mean
from ipucnn.core.options.composition import (
    CommandOptions,
    common_option,
    common_options,
    in_options,
)
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import (
    Owner,
    builtin_owners,
    owners_of,
    selected_names,
    third_party_owners,
)
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry
from ipucnn.terminal.spellings import expanded, require_values


@dataclass(frozen=True)
class Flag:
    """An option as a command-line flag.

    Attributes:
        name: the key of its value: a flat name, or a qualified one (``optimizer.beta2``,
            ``logger.files.x``).
        spellings: with their dashes, the canonical one first.
        item: its declaration.
        owners: the plugins that declare it; empty for a command's own option.
        heading: the heading of the part that declares it.
    """

    name: str
    spellings: Tuple[str, ...]
    item: Declared
    owners: Tuple[Owner, ...] = ()
    heading: str = "Options"

    @property
    def qualified(self) -> bool:
        """Whether its spelling names the owner."""
        return "." in self.name

    @property
    def negatable(self) -> bool:
        """Whether `--no-` before its name sets it to false."""
        rule = self.item.option
        return self.item.boolean and rule.negatable and not rule.switch

    @property
    def identifier(self) -> str:
        """Its name as a Python identifier."""
        return re.sub(r"\W", "_", self.name.replace(".", "__"))


@dataclass(frozen=True)
class FlagTable:
    """All flags that a command accepts.

    Attributes:
        flags: in the order of declaration, a command's own before those of plugins.
        selected: the owners selected by the arguments.
        job: of the command; see `CommandOptions`.
        problem: why a selected plugin cannot be used, whose flags are missing; None without one.
    """

    flags: Tuple[Flag, ...]
    selected: Tuple[Owner, ...]
    job: str = ""
    problem: Optional[IpucnnError] = None

    def of_job(self) -> List[Flag]:
        """Return the flags without those of another job, which the command refuses."""
        return [flag for flag in self.flags if flag.item.option.applies_to(self.job)]

    def by_spelling(self) -> Dict[str, Flag]:
        """Return the flags by every spelling."""
        return {spelling: flag for flag in self.flags for spelling in flag.spellings}

    def require_values(self, arguments: Sequence[str]) -> None:
        """Raise an error if an option takes the place of another one's value.

        Args:
            arguments: with lists expanded.

        Raises:
            UsageError: names the option without a value.
        """
        flags = self.by_spelling()
        negated = [f"--no-{spelling[2:]}" for spelling, flag in flags.items() if flag.negatable]
        require_values(arguments, [spelling for spelling, flag in flags.items()
                                   if not flag.item.boolean], [*flags, *negated])

    def lists(self) -> List[str]:
        """Return the spellings of the flags that take several values."""
        return [spelling for flag in self.flags if flag.item.many for spelling in flag.spellings]


def flag_table(options_classes: Sequence[type], arguments: Sequence[str],
               registry: Registry) -> FlagTable:
    """Return the flags of a command.

    These are its own flags, those of all built-in plugins of its kinds, those of third-party
    plugins that the arguments select, and, for unknown arguments, those of other third-party
    plugins that declare them, because a checkpoint may select them. `build` refuses options that no
    selected plugin has.

    Args:
        options_classes: the options of the command.
        arguments: of the command line, which select plugins.
        registry: where plugins are looked up.
    """
    own = [flag for options_class in options_classes for flag in _common(options_class)]
    kinds = list(dict.fromkeys(kind for options_class in options_classes
                               for kind in getattr(options_class, "kinds", ())))
    problems: List[IpucnnError] = []
    selected = [owner for options_class in options_classes
                if issubclass(options_class, CommandOptions)
                for owner in _selected(options_class, arguments, registry, problems)]
    owners = list(dict.fromkeys([*selected, *builtin_owners(kinds, registry)]))
    taken = {*RESERVED, *(spelling for flag in own for spelling in flag.spellings)}
    several = {kind for kind in kinds for flag in own
               if flag.name == KINDS[kind].selector and flag.item.many}
    flags = (*own, *_of_plugins(owners, taken, several))
    names = _unknown_names(flags, arguments)
    if names:
        others = [owner for owner in third_party_owners(kinds, registry)
                  if any(owner.option(name) for name in names)]
        flags = (*own, *_of_plugins(list(dict.fromkeys([*owners, *others])), taken, several))
    jobs = [getattr(options_class, "job", "") for options_class in options_classes]
    return FlagTable(flags, tuple(selected), next(filter(None, jobs), ""),
                     next(iter(problems), None))


def _unknown_names(flags: Sequence[Flag], arguments: Sequence[str]) -> List[str]:
    """Return the names of options among the arguments that no flag has."""
    known = {spelling for flag in flags for spelling in flag.spellings}
    known |= {"--help", "--help-all"} | {f"--no-{spelling[2:]}" for spelling in known}
    words = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    names = [word[2:].rpartition(".")[2] for word in words if word not in known]
    return [*names, *(name[3:] for name in names if name.startswith("no-"))]


def _common(options_class: type) -> Iterator[Flag]:
    if not issubclass(options_class, CommandOptions):
        for item in declared(options_class):
            yield Flag(item.name, item.flags, item, heading=item.option.group or "Options")
        return
    from ipucnn.core.options.composition import parts

    for kind in parts(options_class).values():
        for item in declared(kind):
            yield Flag(item.name, item.flags, item,
                       heading=item.option.group or getattr(kind, "heading", "Options"))


def _of_plugins(owners: Sequence[Owner], taken: set[str],
                several: Collection[str]) -> Iterator[Flag]:
    """Yield each plugin option by its flat name and by its qualified ones.

    These name the kind, and for kinds of which `several` plugins can be selected together also
    the plugin.
    """
    flat: Dict[str, List[Tuple[Owner, Declared]]] = {}
    qualified: Dict[Tuple[str, str, str], List[Tuple[Owner, Declared]]] = {}
    for owner in owners:
        plugins = ["", f"{in_options(owner.spec.name)}."] if owner.kind.name in several else [""]
        for item in declared(owner.options):
            flat.setdefault(item.name, []).append((owner, item))
            for plugin in plugins:
                qualified.setdefault((owner.kind.name, plugin, item.name), []).append(
                    (owner, item))
    taken = set(taken)
    for name, having in flat.items():
        spellings = list(dict.fromkeys(flag for _, item in having for flag in item.flags
                                       if flag not in taken))
        if spellings:
            taken.update(spellings)
            yield Flag(name, tuple(spellings), having[0][1],
                       tuple(owner for owner, _ in having), "Plugins")
    for (kind, plugin, name), having in qualified.items():
        prefixes = dict.fromkeys((KINDS[kind].selector.replace("_", "-"), kind))
        yield Flag(f"{KINDS[kind].selector}.{plugin}{name}",
                   tuple(f"--{prefix}.{plugin}{name.replace('_', '-')}" for prefix in prefixes),
                   having[0][1], tuple(owner for owner, _ in having), "Plugins")


def _selected(options_class: type[CommandOptions], arguments: Sequence[str],
              registry: Registry, problems: List[IpucnnError]) -> Iterator[Owner]:
    """Yield the owners of the plugins selected by arguments, a profile or defaults.

    Args:
        options_class: the options of the command.
        arguments: of the command line.
        registry: where plugins are looked up.
        problems: receives the errors of those that cannot be used.
    """
    values = _selecting_values(options_class, arguments)
    for kind in (KINDS[name] for name in options_class.kinds):
        for name in selected_names(kind, values.get(kind.selector)):
            try:
                yield from owners_of(kind, registry.get(kind.name, name), registry)
            except IpucnnError as error:  # the command itself reports it
                problems.append(error)


def _selecting_values(options_class: type[CommandOptions],
                      arguments: Sequence[str]) -> Mapping[str, Any]:
    """Return the values of the options that select plugins, without checking them."""
    selectors = {KINDS[kind].selector: kind for kind in options_class.kinds}
    items = {item.name: item for item in common_options(options_class)}
    spellings = {flag: item for name, item in items.items() if name in selectors
                 or name == "config" for flag in item.flags}
    values: Dict[str, Any] = {name: items[name].default for name in selectors}
    given: Dict[str, Any] = {}
    words = iter(arguments)
    current = ""
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("-"):
            item = spellings.get(flag)
            current = item.name if item is not None else ""
            if item is not None:
                found = given.setdefault(current, []) if item.many else []
                given[current] = [*found, value] if equals else found
                current = "" if equals and not item.many else current
        elif current:
            given[current].append(word)
            current = current if items[current].many else ""
    profile = given.pop("config", None)
    if profile:
        values.update(_selecting(options_class, profile[-1], selectors))
    values.update((name, tuple(words) if items[name].many else words[-1])
                  for name, words in given.items() if words)
    return values


def parsed(options_class: type, arguments: Sequence[str], registry: Registry) -> Dict[str, Any]:
    """Return the options in a list of arguments, by name; for commands within commands.

    Lists may be space-separated, as in `OptionsCommand`.

    Raises:
        UsageError: an unknown option, one without its value, or a switch with one.
    """
    table = flag_table([options_class], arguments, registry)
    known = table.by_spelling()
    arguments = expanded(arguments, table.lists())
    table.require_values(arguments)
    given: Dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        positive = known.get(name.replace("--no-", "--", 1))
        negated = name not in known and positive is not None and positive.negatable
        flag = positive if negated else known.get(name)
        if flag is None:
            raise UsageError(f"unknown option {argument!r}",
                             did_you_mean(name, known) or "'--help' lists the options")
        if flag.item.boolean:
            if equals:
                raise UsageError(f"option {name!r} does not take a value")
            given[flag.name] = not negated
            continue
        text = value if equals else next(rest, None)
        if text is None:
            raise UsageError(f"option {name!r} needs a value")
        given[flag.name] = [*given.get(flag.name, []), text] if flag.item.many else text
    return given


def _selecting(options_class: Any, name: str, selectors: Collection[str]) -> Dict[str, Any]:
    """Return a profile's values of the options that select plugins, unchecked.

    Args:
        options_class: the options of the command.
        name: the profile's name or file.
        selectors: the names of these options.
    """
    from ipucnn.core.options.profiles import load

    with suppress(IpucnnError):  # the command itself reports the problem
        profile = load(name, options_class.command)
        found = {item.name: value for spelling, value in profile.values.items()
                 for item in [common_option(options_class, spelling)] if item is not None}
        return {item: tuple(value) if isinstance(value, list) else value
                for item, value in found.items() if item in selectors}
    return {}
