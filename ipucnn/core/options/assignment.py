"""Assigns option values to the selected plugins that declare them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean, flag_of
from ipucnn.core.options.composition import Given, PluginOptions, common_option
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import (
    Having,
    Owner,
    builtin_owners,
    having,
    is_default,
    owner_of,
    owners_of,
    selected_owners,
    third_party_owners,
)
from ipucnn.core.options.refusals import (
    names_of,
    no_effect,
    not_selected,
    second_spelling,
    several_owners,
    unknown_option,
)
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry


def owned(options_class: type, value_of: Callable[[str], Any], sources: Sequence[Sequence[Given]],
          registry: Registry, kept: Collection[str] = ()) -> PluginOptions:
    """Return the plugins' options from several sources; later sources override earlier ones.

    Values that equal a default are dropped where no selected plugin has the option: saved options
    and negated flags of profiles state such values.

    Args:
        options_class: the options of the command.
        value_of: returns the value of a common option by name.
        sources: the given values.
        registry: where names are looked up.
        kept: options that select plugins and that the command keeps as they are; an error does
            not suggest to choose another plugin with them.

    Raises:
        UsageError: an option that no selected plugin has or that two have, two spellings of one
            in one source, a wrong value, or an option without the one that it needs.
        PluginError: a plugin's options are broken.
    """
    assigned = _Assigned(options_class, value_of, registry)
    for source in sources:
        assigned.add(source)
    if assigned.missing:
        raise not_selected(list(assigned.missing.values()), assigned.job, value_of, [
            item for name in kept for item in [common_option(options_class, name)]
            if item is not None])
    return assigned.options()


@dataclass
class _Assigned:
    """Values by the plugins that own them.

    Attributes:
        options_class: the options of the command.
        value_of: returns the value of a common option by name.
        registry: where names are looked up.
        chosen: the selected owners.
        candidates: owners one of which will be selected later.
        values: values by kind, plugin and name.
        deferred: values of the candidates by name.
        undecided: their declarations.
        missing: options that no selected plugin has.
        shipped: deferred options whose value is that of a shipped profile.
        left_out: options of a shipped profile that the selected backend lacks.
    """

    options_class: Any
    value_of: Callable[[str], Any]
    registry: Registry
    chosen: List[Owner] = field(init=False)
    candidates: List[Owner] = field(init=False)
    values: Dict[Tuple[str, str], Dict[str, Any]] = field(default_factory=dict)
    deferred: Dict[str, Any] = field(default_factory=dict)
    undecided: Dict[str, Declared] = field(default_factory=dict)
    missing: Dict[str, Tuple[Given, Having]] = field(default_factory=dict)
    shipped: Set[str] = field(default_factory=set)
    left_out: List[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chosen, self.candidates = selected_owners(self.options_class, self.value_of,
                                                       self.registry)

    @property
    def job(self) -> str:
        job: str = self.options_class.job
        return job

    @property
    def defers(self) -> bool:
        return bool(self.options_class.defers)

    def add(self, source: Sequence[Given]) -> None:
        """Assign the values of one source."""
        spelt: Dict[Tuple[str, str], Given] = {}
        for given in source:
            found = having(given, self.chosen + self.candidates, self.job)
            self._check_one_owner(given, found)
            if not found:
                self._add_unowned(given, spelt)
                continue
            owner, item = found[0]
            plugin = owner.spec.name if self._several(owner) else ""
            second_spelling(given, (f"{owner.kind.name}.{plugin}", item.name), spelt)
            for owner, item in found:
                value = item.coerce(given.value, given.origin)
                _check_names(item, value, self.registry)
                self._assign(owner, item, value)
                (self.shipped.add if given.shipped else self.shipped.discard)(item.name)

    def _assign(self, owner: Owner, item: Declared, value: Any) -> None:
        if owner in self.chosen and not self.defers:
            self.values.setdefault((owner.kind.name, owner.spec.name), {})[item.name] = value
        elif value != item.default or self.defers:
            self.deferred[item.name], self.undecided[item.name] = value, item
        else:
            self.deferred.pop(item.name, None)
            self.undecided.pop(item.name, None)

    def _add_unowned(self, given: Given, spelt: Dict[Tuple[str, str], Given]) -> None:
        """Keep a value that no selected plugin has, for later or for an error."""
        found = _unselected(given, self.options_class, self.registry)
        owner, item = found[0]
        if self.defers and owner.kind.name in self.options_class.kinds \
                and self.value_of(owner.kind.selector) is None:  # a third party's
            self.deferred[item.name] = item.coerce(given.value, given.origin)
            self.undecided[item.name] = item
            return
        self.missing.pop(item.name, None)
        self.left_out = [name for name in self.left_out if name != item.name]
        if any(is_default(other, given.value) for _, other in found):
            pass
        elif given.shipped:
            # another plugin is selected than the profile's; for backends, a note reports it
            if owner.kind.name == "backend":
                self.left_out.append(item.name)
        else:
            self.missing[item.name] = given, found
        second_spelling(given, ("", item.name), spelt)

    def _several(self, owner: Owner) -> bool:
        """Return whether several plugins of the owner's kind can be selected together."""
        selector = common_option(self.options_class, owner.kind.selector)
        return selector is not None and selector.many

    def _check_one_owner(self, given: Given, found: Having) -> None:
        """Raise an error for an option of several selected plugins."""
        owners = {(owner.kind.name, owner.spec.name if self._several(owner) else ""): owner
                  for owner, _ in found}
        kinds = [kind for kind, _ in owners]
        if len(owners) > 1:
            raise several_owners(given, [
                owner.qualified(given.bare, alone=kinds.count(owner.kind.name) == 1)
                for owner in owners.values()])

    def options(self) -> PluginOptions:
        """Return the options of the selected plugins.

        Raises:
            UsageError: an option is given without the one that it needs.
        """
        if self.defers:  # options that are not given have the stored value, not the default
            return PluginOptions({}, self.deferred, self.undecided)
        self._check_needs()
        return PluginOptions({(owner.kind.name, owner.spec.name): owner.options(
            **self.values.get((owner.kind.name, owner.spec.name), {})) for owner in self.chosen},
            self.deferred, self.undecided, frozenset(self.shipped & self.deferred.keys()),
            tuple(self.left_out))

    def _check_needs(self) -> None:
        """Raise an error for an option that is given without the one that it needs."""
        for owner in self.chosen:
            given = self.values.get((owner.kind.name, owner.spec.name), {})
            for item in declared(owner.options):
                if not item.option.needs or given.get(item.name, item.default) == item.default:
                    continue
                needed = common_option(self.options_class, item.option.needs)
                if needed is not None and self.value_of(needed.name) == needed.default:
                    raise no_effect(item, needed)


def _check_names(item: Declared, value: Any, registry: Registry) -> None:
    """Raise an error for a value of an option of plugins (`Option.kind`) that is the name of none.

    Raises:
        UsageError: no plugin has the name, or it is ambiguous.
    """
    rule = item.option
    for name in value if isinstance(value, tuple) else (value,):
        if rule.kind in KINDS and name not in (None, *rule.words):
            try:
                registry.get(rule.kind, name)
            except UsageError as error:
                raise UsageError(f"option '{item.flag}': {error.message}", error.hint) from error


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
        found = having(given, owners)
        second_spelling(given, ("", found[0][1].name if found else given.spelling), spelt)
    return {name: given for (_, name), given in spelt.items()}


def _unselected(given: Given, options_class: type, registry: Registry) -> Having:
    """Return the plugins that have the option: those where it applies to the job, or else all.

    Raises:
        UsageError: no plugin has it.
    """
    kinds: Sequence[str] = options_class.kinds  # type: ignore[attr-defined]
    job = options_class.job  # type: ignore[attr-defined]
    builtin = builtin_owners(KINDS, registry)
    found = having(given, builtin, job) or having(given, builtin)
    if not found:
        others = third_party_owners(kinds, registry)
        found = having(given, others, job) or having(given, others)
    if not found:
        raise unknown_option(given.spelling, options_class, registry, given.where)
    return found


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
            found = having(Given(name, None), builtin_owners([kind], registry))
            if any(is_default(item, plugins.deferred[name]) for _, item in found):
                continue
            raise UsageError(f"'{flag_of(name)}' is an option of {names_of(found)}; "
                             f"this is {kind} {spec.name}", "leave it out")
    return options_for(spec, kind, plugins.deferred, registry)


def owned_by(kind: str, spec: PluginSpec, values: Mapping[str, Any],
             registry: Registry) -> PluginOptions:
    """Return the options of one plugin, and of those read in its place.

    Raises:
        UsageError: a value for which none of them has an option, or an invalid one.
    """
    owners = owners_of(KINDS[kind], spec, registry)
    for name in values:
        if not any(owner.option(name) for owner in owners):
            flags = [item.name for owner in owners for item in declared(owner.options)]
            raise UsageError(f"{kind} {spec.name!r} has no option {name!r}",
                             did_you_mean(name, flags) or "options: " + (
                                 ", ".join(flags) or "none"))
    return PluginOptions({(kind, owner.spec.name): owner.options(**{
        item.name: item.coerce(value) for name, value in values.items()
        for item in [owner.option(name)] if item is not None}) for owner in owners})
