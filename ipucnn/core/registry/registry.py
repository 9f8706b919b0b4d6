"""The registry: which records there are, what can be said of them, and which one a name means."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Type, TypeVar

from ipucnn.core.errors import IpucnnError, PluginError, UnavailableError, UnknownNameError
from ipucnn.core.names import close_matches, did_you_mean, key
from ipucnn.core.registry.discovery import Found, PluginSettings, Provider, scan
from ipucnn.core.registry.loading import (
    GUARDED,
    LOCAL,
    Loaded,
    Loader,
    State,
    cause_of,
    describe,
    import_target,
    missing_requirements,
    remedy_for,
)
from ipucnn.core.registry.records import API_VERSION, KINDS, Kind, PluginSpec, kind_named

__all__ = ["Registry", "Row", "State", "registry", "use"]

SpecT = TypeVar("SpecT", bound=PluginSpec)


@dataclass(frozen=True)
class Row:
    """One line of a listing: a record, or a plugin that could not give its records.

    Attributes:
        kind: the kind's name, or an empty string when a broken plugin does not tell.
        name: the record's name, or the entry point's.
        provider: where it comes from.
        state: one of the six states.
        spec: the record; None when there is none.
        cause: why it is not `ok`; also set when an alias of it is taken by a built-in.
        remedy: what to do about it.
    """

    kind: str
    name: str
    provider: Provider
    state: State
    spec: Optional[PluginSpec] = None
    cause: str = ""
    remedy: str = ""


class Registry:
    """Every record of every kind, found on demand.

    Built-in plugins of a kind are loaded when that kind is first asked for; third-party plugins
    only when a name is not built in, or for a listing.

    Args:
        settings: what the user allows; from the environment when not given.
        entry_points: the entry points to use; the installed ones when not given.

    Raises:
        PluginError: ipucnn itself is not installed, so that it has no entry points.
    """

    def __init__(self, settings: Optional[PluginSettings] = None,
                 entry_points: Optional[Sequence[Found]] = None) -> None:
        self.settings = PluginSettings.from_environment() if settings is None else settings
        self._found = list(scan() if entry_points is None else entry_points)
        self._loader = Loader(self.settings)
        if not any(found.provider.builtin for found in self._found):
            raise PluginError("ipucnn's own plugins are not installed",
                              "install the package, for example with 'pip install -e .'")

    # -- look-up -----------------------------------------------------------------------------

    def get(self, kind_name: str, name: str) -> PluginSpec:
        """Return the record that `name` means; ``distribution:name`` always resolves.

        Raises:
            UnknownNameError: nothing provides the name.
            PluginError: the name is ambiguous, its record is incompatible, or a plugin that was
                named for this run is broken.
        """
        kind = kind_named(kind_name)
        for loaded in self._load_locals():
            if loaded.state is State.FAILED:
                raise PluginError(f"{describe(loaded.provider)}: {loaded.cause}", loaded.remedy)
        distribution, _, bare = name.rpartition(":")
        if distribution:
            rows = _claims(self._rows_of_distribution(kind, distribution), bare)
        else:
            self._load_builtins(kind)
            rows = _claims([r for r in self._record_rows(kind) if r.provider.builtin], name)
            if not rows:
                self._load_third_parties()
                rows = _claims(self._record_rows(kind), name)
        if len(rows) > 1:
            providers = " and ".join(repr(_qualified(row, rows)) for row in rows)
            raise PluginError(f"{kind.name} {name!r} is ambiguous: {providers} both provide it",
                              "use one of these qualified names, or uninstall one of them")
        if not rows:
            raise self._unknown(kind, name)
        return self._usable(kind, rows[0])

    def get_typed(self, record: Type[SpecT], name: str) -> SpecT:
        """Return the record of type `record` that `name` means; raises as `get` does."""
        kind = next(kind for kind in KINDS.values() if kind.record is record)
        spec = self.get(kind.name, name)
        if not isinstance(spec, record):  # pragma: no cover - the loader checks record types
            raise PluginError(f"{name!r} is not a {record.__name__}")
        return spec

    def provider_of(self, spec: PluginSpec) -> Provider:
        """Return where `spec` comes from.

        Raises:
            PluginError: it does not come from this registry.
        """
        for loaded in self._loader.loaded.values():
            if any(record is spec for _, record in loaded.records):
                return loaded.provider
        raise PluginError(f"{spec.name!r} is not in this registry")

    def resolve(self, spec: PluginSpec) -> Callable[..., Any]:
        """Import and return the record's target.

        Raises:
            UnavailableError: a module it requires is missing.
            PluginError: the target cannot be imported or is not callable.
        """
        provider = self.provider_of(spec)
        missing = missing_requirements(spec)
        if missing:
            raise UnavailableError(
                f"{spec.name!r} of {provider.label} needs {_modules(spec)}, which cannot be "
                "imported here", _installs(spec))
        if not isinstance(spec.target, str):
            return spec.target
        try:
            target = import_target(spec.target)
        except IpucnnError:
            raise
        except GUARDED as error:
            raise PluginError(f"cannot import {spec.target!r} for {spec.name!r} of "
                              f"{describe(provider)}: {cause_of(error)}",
                              remedy_for(provider)) from error
        if not callable(target):
            raise PluginError(f"{spec.target!r} for {spec.name!r} of {describe(provider)} is not "
                              "callable", remedy_for(provider))
        return target  # type: ignore[no-any-return]

    # -- listings ----------------------------------------------------------------------------

    def rows(self, kind_name: Optional[str] = None, pattern: str = "*") -> List[Row]:
        """Return a row for every record and every plugin that gave none; loads all plugins.

        Args:
            kind_name: only this kind (broken plugins that may be of the kind stay in).
            pattern: shell wildcard on names and aliases.
        """
        kinds = [kind_named(kind_name)] if kind_name else list(KINDS.values())
        self._load_locals()
        self._load_third_parties()
        result: List[Row] = []
        for kind in kinds:
            self._load_builtins(kind)
            result += self._record_rows(kind)
        names = {"", *(kind.name for kind in kinds)}
        troubles = [_trouble(loaded) for loaded in self._loader.loaded.values()
                    if loaded.state is not State.OK]
        result += [row for row in troubles if row.kind in names]
        wanted = key(pattern)
        return [row for row in result if any(
            fnmatch.fnmatchcase(spelling, wanted)
            for spelling in (row.spec.keys if row.spec else (key(row.name),)))]

    def names(self, kind_name: str) -> List[str]:
        """Return the built-in names of a kind; no third-party plugin is loaded."""
        kind = kind_named(kind_name)
        self._load_builtins(kind)
        return [row.name for row in self._record_rows(kind) if row.provider.builtin]

    def load_seconds(self) -> Dict[Provider, float]:
        """Return how long each plugin that was loaded so far took to load."""
        return {loaded.provider: loaded.seconds for loaded in self._loader.loaded.values()}

    # -- loading -----------------------------------------------------------------------------

    def _load_builtins(self, kind: Kind) -> None:
        for found in self._found:
            if found.provider.builtin and found.provider.entry_point.startswith(kind.prefix + "."):
                self._loader.load(found)

    def _load_third_parties(self) -> None:
        for found in self._found:
            if not found.provider.builtin:
                self._loader.load(found)

    def _load_locals(self) -> List[Loaded]:
        return [self._loader.load_local(extra) for extra in self.settings.extra]

    # -- states ------------------------------------------------------------------------------

    def _record_rows(self, kind: Kind) -> List[Row]:
        """Return the rows of the records loaded so far, with their states."""
        rows: List[Row] = []
        for loaded in self._loader.loaded.values():
            for record_kind, spec in loaded.records:
                # One distribution that gives a record twice unchanged (a module reached under two
                # names, a reload) has given it once.
                repeated = any(other.spec == spec and
                               other.provider.distribution == loaded.provider.distribution
                               for other in rows)
                if record_kind is kind and not repeated:
                    rows.append(Row(kind.name, spec.name, loaded.provider, State.OK, spec))
        return [_judged(row, rows) for row in rows]

    # -- answers -----------------------------------------------------------------------------

    def _rows_of_distribution(self, kind: Kind, distribution: str) -> List[Row]:
        self._load_builtins(kind)
        for found in self._found:
            if found.provider.answers_to(distribution) and not found.provider.builtin:
                self._loader.load(found)
        rows = [r for r in self._record_rows(kind) if r.provider.answers_to(distribution)]
        # A distribution's name outranks an entry point that somebody else called the same.
        return [r for r in rows if r.provider.is_distribution(distribution)] or rows

    def _usable(self, kind: Kind, row: Row) -> PluginSpec:
        if row.spec is None or row.state is State.INCOMPATIBLE:
            raise PluginError(f"{kind.name} {row.name!r} of {row.provider.label} is {row.cause}",
                              row.remedy)
        return row.spec

    def _unknown(self, kind: Kind, name: str) -> UnknownNameError:
        rows = self.rows(kind.name)
        records = [row for row in rows if row.spec]
        distribution, _, bare = name.rpartition(":")
        hints = []
        installed = {row.provider.distribution for row in rows}
        if distribution and not any(row.provider.answers_to(distribution) for row in rows):
            hints.append(f"no {kind.name} plugin is called {distribution!r}"
                         + _question(did_you_mean(distribution, installed)))
        spellings = [spelling for row in records if row.spec
                     for spelling in (row.name, *row.spec.aliases)]
        close = [_qualified(row, claims) if row.state is State.CONFLICT else row.name
                 for match in close_matches(bare, spellings)
                 for claims in [_claims(records, match)] for row in claims]
        if close:
            hints.append("did you mean " + ", ".join(
                repr(match) for match in list(dict.fromkeys(close))[:3]) + "?")
        broken = [row for row in rows if row.spec is None]
        for row in broken[:3]:
            verb = "failed to load" if row.state is State.FAILED else "is disabled"
            hints.append(f"{describe(row.provider)}, which may provide it, {verb}: {row.cause}")
        if len(broken) > 3:
            hints.append(f"{len(broken) - 3} more plugins could not give their records")
        hints.append(f"'ipucnn list-plugins {kind.plural}' lists all")
        return UnknownNameError(f"unknown {kind.name} {name!r}", "; ".join(hints))


def _judged(row: Row, rows: List[Row]) -> Row:
    """Return `row`, one of `rows`, with its state."""
    spec = row.spec
    if spec is None:  # pragma: no cover - only records are judged
        return row
    if spec.api_version != API_VERSION:
        return replace(row, state=State.INCOMPATIBLE,
                       cause=f"written for record contract {spec.api_version}, this ipucnn speaks "
                             f"{API_VERSION}",
                       remedy="upgrade ipucnn" if spec.api_version > API_VERSION
                       else f"upgrade {row.provider.distribution}")
    others = [other for other in rows if other is not row and _speaks_our_contract(other)]
    builtin = [other for other in others if other.provider.builtin]
    if not row.provider.builtin:
        if _claims(builtin, row.name):
            return replace(row, state=State.CONFLICT, cause=f"{row.name!r} is a built-in name",
                           remedy=f"use {_qualified(row, others)!r}")
        rivals = [other for other in others if key(other.name) == key(row.name)]
        if rivals:
            labels = ", ".join(other.provider.label for other in rivals)
            return replace(row, state=State.CONFLICT,
                           cause=f"{row.name!r} is also provided by {labels}",
                           remedy=f"use {_qualified(row, others)!r}")
    if missing_requirements(spec):
        return replace(row, state=State.UNAVAILABLE, cause=f"needs {_modules(spec)}",
                       remedy=_installs(spec))
    taken = [alias for alias in spec.aliases if _claims(builtin, alias)]
    if taken and not row.provider.builtin:
        return replace(row, cause=f"its alias {taken[0]!r} is a built-in name and is not used")
    return row


def _claims(rows: List[Row], name: str) -> List[Row]:
    """Return the rows that `name` means: names outrank aliases, usable records the others."""
    by_name = [row for row in rows if row.spec and key(row.name) == key(name)]
    claims = by_name or [row for row in rows if row.spec and key(name) in row.spec.keys]
    return [row for row in claims if _speaks_our_contract(row)] or claims[:1]


def _speaks_our_contract(row: Row) -> bool:
    return row.spec is not None and row.spec.api_version == API_VERSION


def _qualified(row: Row, others: List[Row]) -> str:
    """Return the shortest qualified name that means `row` alone."""
    same = [other for other in others if other is not row and key(other.name) == key(row.name)
            and other.provider.distribution == row.provider.distribution]
    provider = row.provider
    return f"{provider.entry_point if same else provider.distribution}:{row.name}"


def _trouble(loaded: Loaded) -> Row:
    prefix, _, name = loaded.provider.entry_point.partition(".")
    kind = next((k.name for k in KINDS.values() if k.prefix == prefix and name), "")
    shown = loaded.provider.value if loaded.provider.entry_point == LOCAL else (
        name if kind else loaded.provider.entry_point)
    return Row(kind, shown, loaded.provider, loaded.state, None, loaded.cause, loaded.remedy)


def _modules(spec: PluginSpec) -> str:
    return ", ".join(repr(r.module) for r in missing_requirements(spec))


def _installs(spec: PluginSpec) -> str:
    return "; ".join(dict.fromkeys(r.install for r in missing_requirements(spec)))


def _question(text: str) -> str:
    return f", {text}" if text else ""


_current: Optional[Registry] = None


def registry() -> Registry:
    """Return the registry of this process."""
    global _current
    if _current is None:
        _current = Registry()
    return _current


def use(new: Optional[Registry]) -> None:
    """Make `new` the registry of this process; None has the next call build one afresh."""
    global _current
    _current = new
