"""Saved options of plugins that cannot be used here, or have changed since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ipucnn.core.errors import IpucnnError, UnknownNameError, UsageError
from ipucnn.core.names import flag_of
from ipucnn.core.options.building import common_values
from ipucnn.core.options.composition import Given, common_option, default_of
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import (
    Owner,
    builtin_owners,
    having,
    is_default,
    owner_of,
    selected_names,
    selected_owners,
)
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.discovery import Provider
from ipucnn.core.registry.kinds import KINDS, Kind
from ipucnn.core.registry.registry import Registry
from ipucnn.models.weights_options import DETERMINED, adds_distribution
from ipucnn.training.options.train_options import TrainOptions

UNNEEDED = ("optimizer", "lr-schedule", "logger")
"""Kinds of plugins that take part in a training only, not in the use of its checkpoints."""


def without_unusable(saved: Mapping[str, Any], registry: Registry, chosen: Mapping[str, Any],
                     replaceable: Collection[str],
                     unneeded: Collection[str] = ()) -> Dict[str, Any]:
    """Return saved options in which plugins that cannot be used are replaced.

    The options of a replaced plugin are left out. Plugins that can be used are not replaced. A name
    that has become ambiguous may be given with its distribution, whatever its kind.

    Args:
        saved: the options in a checkpoint, by flat name.
        registry: where names are looked up.
        chosen: values of common options that replace the saved ones, by name.
        replaceable: the kinds of plugins that the command can replace.
        unneeded: the kinds of plugins that it does not need; their default is used.

    Raises:
        UsageError: a plugin cannot be used and is not replaced.
    """
    values = dict(saved)
    lost: Set[str] = set()
    for kind in (KINDS[name] for name in TrainOptions.kinds):
        unusable = _unusable(kind, values.get(kind.selector), registry)
        if unusable is None:
            continue
        given = chosen.get(kind.selector)
        if _completes(given, values[kind.selector]) and _unusable(kind, given, registry) is None:
            values[kind.selector] = given
            continue
        lost.add(kind.name)
        if kind.name in replaceable and kind.selector in chosen:
            values[kind.selector] = chosen[kind.selector]
        elif kind.name in unneeded:
            values[kind.selector] = default_of(TrainOptions, kind.selector)
        else:
            raise _refusal(kind, *unusable, kind.name in replaceable)
    if not lost:
        return values

    owners = [owner for owner in _owners(values, registry) if owner.kind.name not in lost]
    return {name: value for name, value in values.items()
            if common_option(TrainOptions, name) or having(Given(name, None), owners)}


@dataclass(frozen=True)
class Saved:
    """Where options were saved, for errors.

    Attributes:
        place: the file.
        versions: of the packages that wrote it, third-party plugins included.
        accepted: the kinds of plugins whose options the command that reads it has.
    """

    place: str
    versions: Mapping[str, str] = field(default_factory=dict)
    accepted: Collection[str] = ()

    def changed(self, provider: Provider) -> bool:
        """Return whether a plugin had another version when the file was written."""
        return self.versions.get(provider.distribution, provider.version) != provider.version


def plugin_versions(options: TrainOptions, registry: Registry) -> Dict[str, str]:
    """Return the versions of the third-party distributions whose plugins a training uses."""
    return {provider.distribution: provider.version
            for _, _, provider in _third_parties(options.as_dict(), registry) if provider.version}


def still_valid(values: Mapping[str, Any], registry: Registry, saved: Saved,
                given: Mapping[str, Any], replaceable: Collection[str],
                unneeded: Collection[str] = ()) -> Dict[str, Any]:
    """Return saved options that the selected plugins still have, which may have changed since.

    Values that are given again are left out if they are not allowed any more. So are options that
    no plugin has if only plugins that the command does not need can have had them.

    Args:
        values: the options in a checkpoint, by flat name.
        registry: where names are looked up.
        saved: where they were saved.
        given: the options that replace them, by any spelling.
        replaceable: the kinds of plugins that the command can replace.
        unneeded: the kinds of plugins that it does not need.

    Raises:
        UsageError: a plugin does not have an option any more, or does not allow its value.
    """
    owners = _owners(values, registry)
    common = common_values(TrainOptions, {
        name: value for name, value in given.items() if common_option(TrainOptions, name)})
    unneeded = [*unneeded, *(name for name in replaceable for selector in [KINDS[name].selector]
                             if selector in common and common[selector] != values.get(selector))]
    replaced = [item for spelling in given for _, item in having(Given(spelling, None), owners)]
    kept: Dict[str, Any] = {}
    removed: List[str] = []
    for name, value in values.items():
        if common_option(TrainOptions, name):
            kept[name] = value
            continue
        found = having(Given(name, None), owners)
        if not found:
            others = having(Given(name, None), builtin_owners(KINDS, registry))
            if any(is_default(item, value) for _, item in others):
                kept[name] = value
            else:
                removed.append(name)
            continue
        again = any(item in replaced for _, item in found)
        if again and len(found) > 1:
            continue
        try:
            for _, item in found:
                item.coerce(value)
        except UsageError as error:
            owner, item = found[0]
            if not again and owner.kind.name not in unneeded:
                raise _not_allowed(error, owner, item, saved, registry) from error
        else:
            kept[name] = value
    if removed:
        users = _third_parties(values, registry)
        users = [user for user in users if saved.changed(user[2])] or users
        needed = [user for user in users if user[0].name not in unneeded]
        if needed or not users:
            raise _removed(removed, needed, saved, replaceable)
    return kept


def _owners(values: Mapping[str, Any], registry: Registry) -> List[Owner]:
    """Return the plugins that saved options select, as owners of options."""
    def value_of(name: str) -> Any:
        return values[name] if name in values else default_of(TrainOptions, name)

    chosen, candidates = selected_owners(TrainOptions, value_of, registry)
    return chosen + candidates


User = Tuple[Kind, PluginSpec, Provider]
"""A third-party plugin in use."""


def _third_parties(values: Mapping[str, Any], registry: Registry) -> List[User]:
    """Return the third-party plugins that saved options select."""
    found: List[User] = []
    for kind in (KINDS[name] for name in TrainOptions.kinds):
        for name in selected_names(kind, values.get(kind.selector)):
            spec = registry.get(kind.name, name)
            provider = registry.provider_of(spec)
            if not provider.builtin:
                found.append((kind, spec, provider))
    return found


def _not_allowed(error: UsageError, owner: Owner, item: Declared, saved: Saved,
                 registry: Registry) -> UsageError:
    """Return the error for a saved value that a plugin does not allow any more."""
    provider = registry.provider_of(owner.spec)
    again = owner.kind.name in saved.accepted and not item.option.fixed
    hint = f"give another value with '{item.flag}', or " if again else ""
    return UsageError(
        f"{error.message}; it is saved in '{saved.place}', and {owner.kind.name} "
        f"{owner.spec.name!r} of {provider.label} does not allow it",
        hint + _version_of_training([provider], saved))


def _removed(names: Sequence[str], users: Sequence[User], saved: Saved,
             replaceable: Collection[str]) -> UsageError:
    """Return the error for saved options that no plugin has any more."""
    flags = ", ".join(f"'{flag_of(name)}'" for name in names)
    options = "option" if len(names) == 1 else "options"
    if not users:
        return UsageError(f"'{saved.place}' contains the {options} {flags}, which this version of "
                          "ipucnn does not have", "use the version that wrote it"
                          + _numbered(saved.versions.get("ipucnn")))
    plugins = " or ".join(f"{kind.name} {spec.name!r} of {provider.label}"
                          for kind, spec, provider in users)
    ways = [f"replace it with '{flag_of(kind.selector)} NAME'"
            for kind, _, _ in users if kind.name in replaceable]
    # a file of weights determines the options of its model and norm layer
    partial = " --weights-partial --model NAME" if any(
        kind.selector in DETERMINED for kind, _, _ in users) else ""
    ways.append(f"start from its weights with 'ipucnn train --weights FILE{partial}'")
    return UsageError(
        f"'{saved.place}' contains the {options} {flags}, which {plugins} does not have any more",
        ", or ".join([_version_of_training([provider for _, _, provider in users], saved),
                      *ways]))


def _version_of_training(providers: Sequence[Provider], saved: Saved) -> str:
    """Return how to get the plugins in the versions that wrote a file."""
    older = [f"{provider.distribution}=={saved.versions[provider.distribution]}"
             for provider in dict.fromkeys(providers) if saved.changed(provider)]
    if not older:
        return "use the version of the plugin with which it was written"
    return f"install the version with which it was written: 'pip install {' '.join(older)}'"


def _numbered(version: Optional[str]) -> str:
    return f", {version}" if version else ""


def _unusable(kind: Kind, value: Any, registry: Registry) -> Optional[Tuple[str, IpucnnError]]:
    """Return the name of a saved plugin that cannot be used, and the error; None if all can."""
    for name in selected_names(kind, value):
        try:
            owner_of(kind, registry.get(kind.name, name), registry)
        except IpucnnError as error:
            return name, error
    return None


def _completes(given: Any, saved: Any) -> bool:
    """Return whether given names are the saved ones, some of them with their distribution."""
    one, other = (list(value) if isinstance(value, (list, tuple)) else [value]
                  for value in (given, saved))
    return len(one) == len(other) and all(
        name == before or adds_distribution(name, before) for name, before in zip(one, other))


def _refusal(kind: Kind, name: str, error: IpucnnError, replaceable: bool) -> UsageError:
    ways = ["install its plugin", "name its file with '--plugin'"] if isinstance(
        error, UnknownNameError) else []
    if replaceable:
        ways.append(f"replace it with '{flag_of(kind.selector)} NAME'")
    hints = (", or ".join(ways), error.hint)
    return UsageError(f"the {kind.name} {name!r} that is saved in the checkpoint cannot be used: "
                      f"{error.message}", "; ".join(hint for hint in hints if hint))
