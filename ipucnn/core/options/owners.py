"""Finds the plugins that declare options."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.names import RESERVED, key
from ipucnn.core.options.composition import Given, common_option, in_options
from ipucnn.core.options.declaration import declared, lookup
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.kinds import KINDS, Kind
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry

AUTO = "auto"


@dataclass(frozen=True)
class Owner:
    """A plugin that declares options.

    Attributes:
        kind: the plugin's kind.
        spec: its record.
        options: the class that declares them.
        name: the name that selects it: ``distribution:name`` if its own name means another plugin
            or is ambiguous.
    """

    kind: Kind
    spec: PluginSpec
    options: type
    name: str

    def option(self, spelling: str, job: str = "") -> Optional[Declared]:
        """Return its option called `spelling`, if it applies to the job."""
        item = lookup(self.options, spelling)
        return item if item is not None and item.option.applies_to(job) else None

    def answers_to(self, qualifier: str) -> bool:
        """Return whether a qualifier (``optimizer``, ``logger.files``) names this plugin."""
        kind, _, name = qualifier.partition(".")
        return not qualifier or (
            key(kind) in (self.kind.name, key(self.kind.selector))
            and (not name or in_options(name) == in_options(self.spec.name)))

    def qualified(self, name: str, alone: bool = True) -> str:
        """Return the qualified name of an option (``optimizer.beta2``, ``logger.files.x``).

        Args:
            name: the option's name.
            alone: no other plugin of the kind is selected that has it.
        """
        plugin = "" if alone else f"{in_options(self.spec.name)}."
        return f"{self.kind.selector}.{plugin}{name}"


Having = List[Tuple[Owner, Declared]]
"""Owners of an option, and their declarations of it."""


def having(given: Given, owners: Iterable[Owner], job: str = "") -> Having:
    """Return the owners that have an option, and their declarations of it.

    Args:
        given: the option; its qualifier, a kind (``logger.x``) or a kind and a name
            (``logger.files.x``), excludes other owners.
        owners: the owners to choose from.
        job: where it must apply, if not everywhere.
    """
    return [(owner, item) for owner in owners if owner.answers_to(given.qualifier)
            for item in [owner.option(given.bare, job)] if item is not None]


def is_default(item: Declared, value: Any) -> bool:
    """Return whether a value given by any spelling equals an option's default, or a former one."""
    try:
        return item.coerce(value) in (item.default, *item.option.former)
    except UsageError:
        return False


def owner_of(kind: Kind, spec: PluginSpec, registry: Registry) -> Optional[Owner]:
    """Return the record as an owner of options, or None if it declares none.

    Raises:
        PluginError: its options class cannot be imported or is not valid.
    """
    options = registry.options_class(spec)
    return None if options is None else Owner(kind, spec, options, registry.name_of(spec))


def owners_of(kind: Kind, spec: PluginSpec, registry: Registry) -> List[Owner]:
    """Return the record as an owner of options, and those of datasets that are read in its place.

    Raises:
        PluginError: see `owner_of`.
        UnknownNameError: there is no such other dataset.
    """
    also = spec.also if isinstance(spec, DatasetSpec) else ()
    records = (spec, *(registry.get(kind.name, name) for name in also))
    return [owner for record in records for owner in [owner_of(kind, record, registry)]
            if owner is not None]


def builtin_owners(kinds: Iterable[str], registry: Registry) -> List[Owner]:
    """Return the built-in plugins of these kinds that declare options."""
    return [owner for kind in kinds for owner in _builtin_owners(kind, registry)]


def flags_in_role(role: str, registry: Registry) -> List[str]:
    """Return the flags of built-in backends' options with a role (`Option.role`), for hints."""
    return list(dict.fromkeys(item.flag for owner in builtin_owners(["backend"], registry)
                              for item in declared(owner.options) if item.option.role == role))


@functools.lru_cache(maxsize=64)
def _builtin_owners(kind: str, registry: Registry) -> Tuple[Owner, ...]:
    found = (owner_of(KINDS[kind], registry.get(kind, name), registry)
             for name in registry.names(kind))
    return tuple(owner for owner in found if owner is not None)


def is_auto(kind: Kind, value: Any) -> bool:
    """Return whether a value leaves open which plugin of a kind is selected: `--backend auto`."""
    return kind.name == "backend" and isinstance(value, str) and key(value) == AUTO


def selected_names(kind: Kind, value: Any) -> List[str]:
    """Return the names of plugins in a value of the option that selects those of a kind."""
    names = value if isinstance(value, (tuple, list)) else [value]
    return [str(name) for name in names if name is not None and not is_auto(kind, name)]


def selected_owners(options_class: type, value_of: Callable[[str], Any], registry: Registry
                    ) -> Tuple[List[Owner], List[Owner]]:
    """Return the plugins selected by a command's values, as owners.

    Args:
        options_class: the options of the command.
        value_of: returns the value of a common option by name.
        registry: where names are looked up.

    Returns:
        The selected owners, and the backends among which `auto` chooses.

    Raises:
        IpucnnError: an unknown name, two plugins of one name, or one whose options are broken.
    """
    chosen: List[Owner] = []
    candidates: List[Owner] = []
    for kind in (KINDS[name] for name in options_class.kinds):  # type: ignore[attr-defined]
        value = value_of(kind.selector)
        deferred = value is None and options_class.defers  # type: ignore[attr-defined]
        if deferred or is_auto(kind, value):
            candidates += builtin_owners([kind.name], registry)
        for name in selected_names(kind, value):
            for owner in owners_of(kind, registry.get(kind.name, name), registry):
                check_names(owner, options_class, registry)
                _check_namesake(owner, chosen)
                chosen.append(owner)
    return chosen, candidates


def _check_namesake(owner: Owner, chosen: Sequence[Owner]) -> None:
    """Reject a plugin with the name of another one of its kind, whose options would be mixed up."""
    other = next((one for one in chosen if one.kind is owner.kind and one.spec is not owner.spec
                  and one.spec.name == owner.spec.name), None)
    if other is not None:
        names = " and ".join(repr(one.name) for one in (other, owner))
        raise UsageError(f"{owner.kind.plural} {names} have one name and cannot be selected "
                         "together", f"leave one of them out of '--{owner.kind.selector}'")


def spellings_of(item: Declared, flag: str) -> List[str]:
    """Return how a flag of an option is given: a switch also has a negated form."""
    return [flag, f"--no-{flag.lstrip('-')}"] if item.boolean else [flag]


def check_names(owner: Owner, options_class: type, registry: Registry) -> None:
    """Reject a plugin with an option that has the name of a common one or of a global switch.

    Raises:
        PluginError: there is a clash; the message names the plugin and both options.
    """
    for item in declared(owner.options):
        for flag in item.flags:
            spellings = spellings_of(item, flag)
            found = (common_option(options_class, one) for one in spellings)
            common = next((one for one in found if one is not None), None)
            reserved = RESERVED.intersection(spellings)
            if common is not None or reserved:
                taken = common.flag if common is not None else min(reserved)
                provider = registry.provider_of(owner.spec)
                raise PluginError(
                    f"{owner.kind.name} {owner.spec.name!r} of {provider.label} failed: its option "
                    f"'{flag}' is a common one ('{taken}')",
                    "its author must give the option another name")


def third_party_owners(kinds: Iterable[str], registry: Registry) -> List[Owner]:
    """Return the third-party plugins that declare options; it loads all of them.

    Only for options without another owner.
    """
    found: List[Owner] = []
    for kind in kinds:
        for row in registry.rows(kind):
            if row.spec is not None and not row.provider.builtin:
                try:
                    owner = owner_of(KINDS[kind], row.spec, registry)
                except PluginError:
                    continue
                if owner is not None:
                    found.append(owner)
    return found


def in_words(owners: Sequence[Owner], between: str = "; ", most: int = 5) -> str:
    """Return owners by kind: "backends poptorch, popart; model resnet50"."""
    by_kind: Dict[str, List[str]] = {}
    for owner in owners:
        names = by_kind.setdefault(owner.kind.name, [])
        if owner.name not in names:
            names.append(owner.name)
    return between.join(
        f"{KINDS[kind].plural if len(names) > 1 else kind} " + ", ".join(
            names if len(names) <= most else [*names[:most - 1], f"{len(names) - most + 1} more"])
        for kind, names in by_kind.items())
