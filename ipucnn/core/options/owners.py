"""Assigns options to the plugins that own them, and builds errors for options without owner."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.options.composition import (
    Given,
    PluginOptions,
    common_option,
    common_options,
)
from ipucnn.core.options.declaration import Declared, declared, lookup
from ipucnn.core.registry.loading import GUARDED, cause_of, describe, remedy_for
from ipucnn.core.registry.records import KINDS, DatasetSpec, Kind, PluginSpec
from ipucnn.core.registry.registry import Registry

AUTO = "auto"


@dataclass(frozen=True)
class Owner:
    """A plugin that declares options.

    Attributes:
        kind: the plugin's kind.
        spec: its record.
        options: the class that declares them.
    """

    kind: Kind
    spec: PluginSpec
    options: type

    def option(self, spelling: str, job: str = "") -> Optional[Declared]:
        """Return its option called `spelling`, if it applies to the job."""
        item = lookup(self.options, spelling)
        if item is None or (job and item.option.only not in ("", job)):
            return None
        return item


class UnselectedError(UsageError):
    """Options are given whose owners are not selected.

    Attributes:
        kinds: of the owners.
    """

    def __init__(self, message: str, hint: str, kinds: Sequence[Kind]) -> None:
        super().__init__(message, hint)
        self.kinds = tuple(dict.fromkeys(kinds))


Having = List[Tuple[Owner, Declared]]
"""Owners of an option, and their declarations of it."""


def owner_of(kind: Kind, spec: PluginSpec, registry: Registry) -> Optional[Owner]:
    """Return the record as an owner of options, or None if it declares none.

    Raises:
        PluginError: its options class cannot be imported or is not valid.
    """
    options = registry.options_class(spec)
    if options is None:
        return None
    try:
        declared(options)  # rejects unsupported types
    except GUARDED as error:
        provider = registry.provider_of(spec)
        raise PluginError(f"the options of {spec.name!r} of {describe(provider)} are broken: "
                          f"{cause_of(error)}", remedy_for(provider)) from error
    return Owner(kind, spec, options)


def builtin_owners(kinds: Iterable[str], registry: Registry) -> List[Owner]:
    """Return the built-in plugins of these kinds that declare options."""
    return [owner for kind in kinds for owner in _builtin_owners(kind, registry)]


def flags_in_role(role: str, kinds: Iterable[str], registry: Registry) -> List[str]:
    """Return the flags of built-in plugins' options with a role (`Option.role`), for hints."""
    return list(dict.fromkeys(item.flag for owner in builtin_owners(kinds, registry)
                              for item in declared(owner.options) if item.option.role == role))


@functools.lru_cache(maxsize=64)
def _builtin_owners(kind: str, registry: Registry) -> Tuple[Owner, ...]:
    found = (owner_of(KINDS[kind], registry.get(kind, name), registry)
             for name in registry.names(kind))
    return tuple(owner for owner in found if owner is not None)


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
        IpucnnError: an unknown name, or a plugin whose options are broken.
    """
    chosen: List[Owner] = []
    candidates: List[Owner] = []
    for kind in (KINDS[name] for name in options_class.kinds):  # type: ignore[attr-defined]
        names = value_of(kind.selector)
        if names is None and options_class.defers:  # type: ignore[attr-defined]
            candidates += builtin_owners([kind.name], registry)
        for name in names if isinstance(names, (tuple, list)) else [names]:
            if name is None:
                continue
            if kind.name == "backend" and key(name) == AUTO:
                candidates += builtin_owners([kind.name], registry)
                continue
            spec = registry.get(kind.name, name)
            also = spec.also if isinstance(spec, DatasetSpec) else ()
            for record in (spec, *(registry.get(kind.name, other) for other in also)):
                owner = owner_of(kind, record, registry)
                if owner is not None:
                    check_names(owner, options_class, registry)
                    chosen.append(owner)
    return chosen, candidates


def check_names(owner: Owner, options_class: type, registry: Registry) -> None:
    """Reject a plugin with an option that has the name of one of the command's own.

    Raises:
        PluginError: there is a clash; the message names the plugin and both options.
    """
    for item in declared(owner.options):
        for flag in item.flags:
            common = common_option(options_class, flag)
            if common is not None:
                provider = registry.provider_of(owner.spec)
                raise PluginError(
                    f"{owner.kind.name} {owner.spec.name!r} of {provider.label} failed: its option "
                    f"'{flag}' is a common one ('{common.flag}')",
                    "its author must give the option another name")


def owned(options_class: type, value_of: Callable[[str], Any], sources: Sequence[Sequence[Given]],
          registry: Registry) -> PluginOptions:
    """Return the plugins' options from several sources; later sources override earlier ones.

    Values that equal a default are dropped where no selected plugin has the option: saved options
    and negated flags of profiles state such values.

    Raises:
        UsageError: an option that no selected plugin has or that two have, two spellings of one
            in one source, or a wrong value.
        PluginError: a plugin's options are broken.
    """
    chosen, candidates = selected_owners(options_class, value_of, registry)
    open_kinds = [kind for kind in options_class.kinds  # type: ignore[attr-defined]
                  if value_of(KINDS[kind].selector) is None]
    job = options_class.job  # type: ignore[attr-defined]
    defers = options_class.defers  # type: ignore[attr-defined]
    values: Dict[Tuple[str, str], Dict[str, Any]] = {}
    deferred: Dict[str, Any] = {}
    undecided: Dict[str, Declared] = {}
    missing: Dict[str, Tuple[Given, Having]] = {}
    for source in sources:
        spelt: Dict[Tuple[str, str], Given] = {}
        for given in source:
            having = _having(given, chosen + candidates, job)
            _refuse_several_kinds(given, having)
            if not having:
                having = _unselected(given, options_class, registry)
                name = having[0][1].name
                if defers and having[0][0].kind.name in open_kinds:  # a third party's
                    deferred[name] = having[0][1].coerce(given.value, given.origin)
                    undecided[name] = having[0][1]
                    continue
                missing.pop(name, None)
                if not any(_equal(item, given.value) for _, item in having):
                    missing[name] = given, having
                _refuse_second_spelling(given, ("", name), spelt)
                continue
            _refuse_second_spelling(given, (having[0][0].kind.name, having[0][1].name), spelt)
            for owner, item in having:
                value = item.coerce(given.value, given.origin)
                if owner in chosen and not defers:
                    values.setdefault((owner.kind.name, owner.spec.name), {})[item.name] = value
                elif value != item.default or defers:
                    deferred[item.name], undecided[item.name] = value, item
                else:
                    deferred.pop(item.name, None)
                    undecided.pop(item.name, None)
    if missing:
        raise _not_selected(list(missing.values()), job, value_of)
    if defers:  # options that are not given have the stored value, not the default
        return PluginOptions({}, deferred, undecided)
    return PluginOptions(
        {(owner.kind.name, owner.spec.name): owner.options(
            **values.get((owner.kind.name, owner.spec.name), {})) for owner in chosen},
        deferred, undecided)


def _having(given: Given, owners: List[Owner], job: str = "") -> Having:
    """Return the owners that have the option, and their declarations of it."""
    return [(owner, item) for owner in _qualified(given, owners)
            for item in [owner.option(given.bare, job)] if item is not None]


def _refuse_several_kinds(given: Given, having: Having) -> None:
    kinds = list(dict.fromkeys(owner.kind.name for owner, _ in having))
    if len(kinds) > 1:
        spellings = " and ".join(f"'--{KINDS[kind].selector.replace('_', '-')}."
                                 f"{given.bare.replace('_', '-')}'" for kind in kinds)
        raise UsageError(f"'{given.flag}' is an option of several plugins in use{given.where}",
                         f"say whose it is: {spellings}")


def _refuse_second_spelling(given: Given, meant: Tuple[str, str],
                            spelt: Dict[Tuple[str, str], Given]) -> None:
    """Reject a second spelling of an option in one source; record this one in `spelt`."""
    if meant in spelt:
        raise UsageError(f"{given.spelling!r} and {spelt[meant].spelling!r} are spellings of one "
                         f"option{given.where}", "keep one of them")
    spelt[meant] = given


def _qualified(given: Given, owners: List[Owner]) -> List[Owner]:
    """Return the owners that a qualified spelling (``optimizer.beta2``) allows."""
    if not given.qualifier:
        return owners
    return [owner for owner in owners
            if key(given.qualifier) in (owner.kind.name, key(owner.kind.selector))]


def by_name(source: Sequence[Given], kinds: Iterable[str],
            registry: Registry) -> Dict[str, Given]:
    """Return a source's values by the names of built-in plugins' options.

    Options that no built-in plugin of these kinds has keep their spelling.

    Raises:
        UsageError: two spellings of one option.
    """
    owners = builtin_owners(kinds, registry)
    spelt: Dict[Tuple[str, str], Given] = {}
    for given in source:
        having = _having(given, owners)
        _refuse_second_spelling(given, ("", having[0][1].name if having else given.spelling),
                                spelt)
    return {name: given for (_, name), given in spelt.items()}


def _unselected(given: Given, options_class: type, registry: Registry) -> Having:
    """Return the plugins that have the option: those where it applies to the job, or else all.

    Raises:
        UsageError: no plugin has it.
    """
    kinds: Sequence[str] = options_class.kinds  # type: ignore[attr-defined]
    job = options_class.job  # type: ignore[attr-defined]
    builtin = builtin_owners(KINDS, registry)
    having = _having(given, builtin, job) or _having(given, builtin)
    if not having:
        others = third_party_owners(kinds, registry)
        having = _having(given, others, job) or _having(given, others)
    if not having:
        raise unknown_option(given.spelling, options_class, registry, given.where)
    return having


def _not_selected(missing: Sequence[Tuple[Given, Having]], job: str,
                  value_of: Callable[[str], Any]) -> UsageError:
    """Return the error for options that no selected plugin has."""
    flags: Dict[str, List[str]] = {}
    for given, having in missing:
        flags.setdefault(_names(having), []).append(
            f"'{given.flag}'" + (given.where if len(missing) > 1 else ""))
    said = "; ".join(
        f"{', '.join(named)} {'is an option' if len(named) == 1 else 'are options'} of {owners}"
        for owners, named in flags.items())
    together = [row for _, having in missing for row in having]
    hint = "leave it out" if len(missing) == 1 else "leave them out"
    fitting = [(owner, item) for owner, item in together if item.option.only in ("", job)]
    if fitting and len(flags) == 1:
        hint += f", or choose {_choices(fitting)}"
    away = " ".join(f"'--no-{item.name.replace('_', '-')}'" for given, having in missing
                    for item in [having[0][1]] if given.origin and item.boolean)
    if away:
        hint += f"; to run the profile without, add {away}"
    where = missing[0][0].where if len(missing) == 1 else ""
    return UnselectedError(f"{said}; this run uses {_selection(together, value_of)}{where}", hint,
                           [owner.kind for owner, _ in together])


def unknown_option(spelling: str, options_class: type, registry: Registry,
                   where: str = "") -> UsageError:
    """Return the error for an option that neither the command nor any plugin has."""
    kinds: Sequence[str] = getattr(options_class, "kinds", ())
    foreign = [(owner, item) for owner in builtin_owners(KINDS, registry)
               for item in [owner.option(spelling)] if item is not None]
    if foreign:
        return UsageError(f"{spelling!r} is an option of {_names(foreign)}, which this command "
                          f"does not use{where}", "leave it out")
    flags = [flag for item in common_options(options_class) for flag in item.flags]
    flags += [flag for owner in (*builtin_owners(kinds, registry),
                                 *third_party_owners(kinds, registry))
              for item in declared(owner.options) for flag in item.flags]
    dashes = spelling.startswith("-")
    close = did_you_mean(spelling.lstrip("-"), [flag.lstrip("-") for flag in flags])
    return UsageError(f"unknown option {spelling!r}{where}",
                      (close.replace("'", "'--", 1).replace(", '", ", '--") if dashes else close)
                      or "the command's '--help' lists its options")


def third_party_owners(kinds: Iterable[str], registry: Registry) -> List[Owner]:
    """Return the third-party plugins that declare options; it loads all of them.

    Only for options that nobody else has.
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


def _equal(item: Declared, value: Any) -> bool:
    try:
        return bool(item.coerce(value) == item.default)
    except UsageError:
        return False


def _names(having: Sequence[Tuple[Owner, Declared]]) -> str:
    """Return the owners of options in words: "backends poptorch, popart (training only)"."""
    job = {item.option.only for _, item in having}
    only = f" ({job.pop()} only)" if len(job) == 1 and "" not in job else ""
    return in_words([owner for owner, _ in having], " and ") + only


def in_words(owners: Sequence[Owner], between: str = "; ", most: int = 5) -> str:
    """Return owners by kind: "backends poptorch, popart; model resnet50"."""
    by_kind: Dict[str, List[str]] = {}
    for owner in owners:
        names = by_kind.setdefault(owner.kind.name, [])
        if owner.spec.name not in names:
            names.append(owner.spec.name)
    return between.join(
        f"{KINDS[kind].plural if len(names) > 1 else kind} " + ", ".join(
            names if len(names) <= most else [*names[:most - 1], f"{len(names) - most + 1} more"])
        for kind, names in by_kind.items())


def _selection(having: Sequence[Tuple[Owner, Declared]], value_of: Callable[[str], Any]) -> str:
    names = []
    for kind in dict.fromkeys(owner.kind for owner, _ in having):
        try:
            value = value_of(kind.selector)
        except KeyError:
            value = None
        names.append(f"no {kind.name}" if value is None else
                     " ".join(value) if isinstance(value, tuple) else
                     f"'--{kind.selector.replace('_', '-')} {value}'" if key(value) == AUTO
                     else str(value))
    return ", ".join(names)


def _choices(having: Sequence[Tuple[Owner, Declared]]) -> str:
    """Return how to select one of the owners."""
    owner = having[0][0]
    return f"'--{owner.kind.selector.replace('_', '-')} {owner.spec.name}'"


def options_for(spec: PluginSpec, kind: str, values: Mapping[str, Any], registry: Registry) -> Any:
    """Return an instance of a record's options class from values by name; None without one.

    Values that it does not declare are left out; the caller has checked that none is given.
    """
    owner = owner_of(KINDS[kind], spec, registry)
    if owner is None:
        return None
    known = {item.name: item for item in declared(owner.options)}
    return owner.options(**{name: known[name].coerce(value) for name, value in values.items()
                            if name in known})


def settled(plugins: PluginOptions, kind: str, spec: PluginSpec, registry: Registry) -> Any:
    """Return the deferred options of a plugin that is now selected; None if it has none.

    Raises:
        UsageError: it lacks one of them.
    """
    owner = owner_of(KINDS[kind], spec, registry)
    for name in plugins.deferred:
        if owner is None or owner.option(name) is None:
            having = [(other, item) for other in builtin_owners([kind], registry)
                      for item in [other.option(name)] if item is not None]
            if any(_equal(item, plugins.deferred[name]) for _, item in having):
                continue
            raise UsageError(f"'--{name.replace('_', '-')}' is an option of {_names(having)}; "
                             f"this is {kind} {spec.name}", "leave it out")
    return options_for(spec, kind, plugins.deferred, registry)


def owned_by(kind: str, spec: PluginSpec, values: Mapping[str, Any],
             registry: Registry) -> PluginOptions:
    """Return the options of one plugin, and of those read in its place.

    Raises:
        UsageError: a value for which none of them has an option, or an invalid one.
    """
    also = spec.also if isinstance(spec, DatasetSpec) else ()
    records = [spec, *(registry.get(kind, name) for name in also)]
    owners = [owner for record in records
              for owner in [owner_of(KINDS[kind], record, registry)] if owner is not None]
    for name in values:
        if not any(owner.option(name) for owner in owners):
            flags = [item.name for owner in owners for item in declared(owner.options)]
            raise UsageError(f"{kind} {spec.name!r} has no option {name!r}",
                             did_you_mean(name, flags) or "options: " + (
                                 ", ".join(flags) or "none"))
    return PluginOptions({(kind, owner.spec.name): owner.options(**{
        item.name: item.coerce(value) for name, value in values.items()
        for item in [owner.option(name)] if item is not None}) for owner in owners})
