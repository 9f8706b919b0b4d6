"""The registry: all records, their states, and look-up by name."""

from __future__ import annotations

import fnmatch
import functools
import re
import threading
import traceback
from itertools import chain
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Type, TypeVar, cast

from ipucnn.core.errors import IpucnnError, PluginError, UnavailableError
from ipucnn.core.names import described, key
from ipucnn.core.registry import discovery
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.discovery import Found, PluginSettings, Provider, normal_name
from ipucnn.core.registry.kinds import KINDS, Kind, kind_named, kind_with
from ipucnn.core.registry.loaded_plugins import LoadedPlugins
from ipucnn.core.registry.loading import (
    GUARDED,
    State,
    cause_of,
    describe,
    has_code_in,
    remedy_for,
)
from ipucnn.core.registry.not_found import not_found
from ipucnn.core.registry.states import (
    Record,
    Row,
    install_commands,
    missing_modules,
    problem_row,
)
from ipucnn.core.registry.targets import check_options_class, import_target, missing_requirements

__all__ = ["Registry", "Row", "State", "registry", "use"]

SpecT = TypeVar("SpecT", bound=PluginSpec)
MadeT = TypeVar("MadeT")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _one_thread(method: MethodT) -> MethodT:
    """Let one thread at a time call a method of a registry that may load plugins."""
    @functools.wraps(method)
    def locked(self: Registry, *arguments: Any, **keywords: Any) -> Any:
        with self._lock:
            return method(self, *arguments, **keywords)

    return cast(MethodT, locked)


class Registry:
    """The records of every kind, loaded on demand.

    Built-in plugins of a kind are loaded when the kind is first used; third-party plugins only
    if a name is not built in, or for a listing.

    Args:
        settings: which plugins the user allows; from the environment when not given.
        entry_points: the entry points to use; the installed ones when not given.

    Raises:
        PluginError: ipucnn itself is not installed, so that it has no entry points.

    Attributes:
        settings: which plugins the user allows.
        given: the entry points that were given; None where the installed ones are used.
    """

    def __init__(self, settings: Optional[PluginSettings] = None,
                 entry_points: Optional[Sequence[Found]] = None) -> None:
        self._lock = threading.RLock()
        self.settings = PluginSettings.from_environment() if settings is None else settings
        self.given = entry_points
        self._plugins = LoadedPlugins(self.settings, entry_points)
        self._records = self._plugins.records
        self._sound_options: Set[type] = set()
        self._broken_options: Dict[Any, BaseException] = {}

    # -- look-up -----------------------------------------------------------------------------

    def get(self, kind_name: str, name: str) -> PluginSpec:
        """Return the record called `name`; ``distribution:name`` is never ambiguous.

        Raises:
            UnknownNameError: no plugin provides the name.
            PluginError: the name is ambiguous, its record is broken or incompatible, or a plugin
                that was named for this run is broken.
        """
        return self._record(kind_named(kind_name), name).spec

    def get_typed(self, record: Type[SpecT], name: str) -> SpecT:
        """Return the record called `name`, of type `record`; raises as `get` does."""
        spec = self.get(kind_with(record).name, name)
        if not isinstance(spec, record):  # pragma: no cover - the loader checks record types
            raise PluginError(f"{name!r} is not a {record.__name__}")
        return spec

    def provider_of(self, spec: PluginSpec) -> Provider:
        """Return the entry point that `spec` comes from.

        Raises:
            PluginError: it does not come from this registry.
        """
        return self._plugins.provider_of(spec)

    def in_words(self, spec: PluginSpec) -> str:
        """Return the kind, name and distribution of a record of this registry, for messages."""
        kind = kind_with(type(spec)).name
        return f"{kind} {spec.name!r} of {self.provider_of(spec).label}"

    @_one_thread
    def name_of(self, spec: PluginSpec) -> str:
        """Return the name of a record of this registry, or ``distribution:name`` where needed.

        It is needed where the name alone means another record or is ambiguous.

        Raises:
            PluginError: it does not come from this registry.
        """
        self.provider_of(spec)
        kind = kind_with(type(spec))
        meant = self._meant_by(kind, spec.name)
        if len(meant) == 1 and meant[0].spec is spec:
            return spec.name
        records = self._records[kind.name]
        return records.qualified(next(one for one in records.all if one.spec is spec))

    def resolve(self, spec: PluginSpec) -> Callable[..., Any]:
        """Import and return the record's target.

        Raises:
            UnavailableError: a module it requires is missing.
            PluginError: the target cannot be imported or is not callable.
        """
        provider = self.provider_of(spec)
        if missing_requirements(spec):
            discovery.forget_modules()  # one may have been installed since
        if missing_requirements(spec):
            raise UnavailableError(
                f"{spec.name!r} of {provider.label} needs {missing_modules(spec)}, which cannot "
                "be imported here", install_commands(spec))
        if not isinstance(spec.target, str):
            return spec.target
        try:
            target = import_target(spec.target, describe(provider), provider.builtin)
        except IpucnnError:
            raise
        except GUARDED as error:
            raise PluginError(f"cannot import {spec.target!r} for {spec.name!r} of "
                              f"{describe(provider)}: {cause_of(error)}",
                              remedy_for(provider, error)) from error
        if not callable(target):
            raise PluginError(f"{spec.target!r} for {spec.name!r} of {describe(provider)} is not "
                              "callable", remedy_for(provider))
        return target  # type: ignore[no-any-return]

    @_one_thread
    def options_class(self, spec: PluginSpec) -> Optional[type]:
        """Import and return the dataclass of the record's options, or None if it has none.

        Raises:
            PluginError: it cannot be imported, or is not a frozen dataclass of options with
                acceptable defaults.
        """
        if spec.options is None:
            return None
        provider = self.provider_of(spec)
        try:
            return self._checked_options(spec.options, provider)
        except GUARDED as error:
            raise PluginError(f"the options of {spec.name!r} of {describe(provider)} are broken: "
                              f"{cause_of(error)}", remedy_for(provider, error)) from error

    def make(self, spec: PluginSpec, *arguments: Any, options: Any = None, **keywords: Any) -> Any:
        """Call the record's target, with options if it declares any, and return the result.

        Args:
            spec: the record.
            *arguments: of the target.
            options: an instance of the record's options class; its defaults when None.
            **keywords: of the target.

        Raises:
            PluginError: the target of a third party does not take these arguments.
        """
        declared = self.options_class(spec)
        if declared is not None:
            keywords["options"] = declared() if options is None else options
        target = self.resolve(spec)
        try:
            return target(*arguments, **keywords)
        except TypeError as error:
            provider = self.provider_of(spec)
            inside = error.__traceback__ and error.__traceback__.tb_next
            if provider.builtin or inside:  # raised in the target
                raise
            raise PluginError(f"the target of {spec.name!r} of {describe(provider)} cannot be "
                              f"called: {error}", remedy_for(provider)) from error

    def make_typed(self, returned: Type[MadeT], spec: PluginSpec, *arguments: Any,
                   **keywords: Any) -> MadeT:
        """Return what the record's target returns, of type `returned`; see `make`.

        Raises:
            PluginError: the target returned something else.
        """
        made = self.make(spec, *arguments, **keywords)
        if isinstance(made, returned):
            return made
        raise PluginError(
            f"the target of {self.in_words(spec)} returned {described(made)}, expected an object "
            f"of type {returned.__name__!r}", remedy_for(self.provider_of(spec)))

    @_one_thread
    def raised_by(self, error: BaseException) -> Optional[Provider]:
        """Return the third-party plugin in whose code an exception was raised or passed, or None.

        If there are several, the innermost one is returned. The exception may be the cause of the
        given one: Python raises a `RuntimeError` for a `StopIteration` that ends a generator.
        """
        found = None
        cause = error.__cause__.__traceback__ if error.__cause__ else None
        for frame, _ in chain(traceback.walk_tb(error.__traceback__), traceback.walk_tb(cause)):
            name = frame.f_globals.get("__name__", "")
            found = next((loaded.provider for loaded in self._plugins.loaded()
                          if not loaded.provider.builtin
                          and has_code_in(loaded.provider, name, frame.f_code.co_filename)), found)
        return found

    # -- listings ----------------------------------------------------------------------------

    @_one_thread
    def rows(self, kind_name: Optional[str] = None, pattern: str = "*") -> List[Row]:
        """Return a row for every record and for every unusable plugin; built-ins first.

        Third-party plugins are loaded, except entry points that are named for another kind.

        Args:
            kind_name: only this kind, and broken plugins that may be of the kind.
            pattern: shell wildcard on names and aliases, for example ``"timm/*"``.
        """
        kinds = [kind_named(kind_name)] if kind_name else list(KINDS.values())
        discovery.forget_modules()
        self._plugins.load_locals()
        matches = re.compile(fnmatch.translate(key(pattern))).match
        result: List[Row] = []
        for kind in kinds:
            self._plugins.load_builtins(kind)
            self._plugins.load_others(kind if kind_name else None)
            records = self._records[kind.name]
            found = [record for record in records.all if any(map(matches, record.keys))]
            found.sort(key=lambda record: not record.provider.builtin)
            result += [records.row(record, self._options_problem) for record in found]
        problems = [problem_row(*found) for found in self._plugins.problems(kinds)]
        return result + [row for row in problems if matches(key(row.name))]

    @_one_thread
    def row(self, kind_name: str, name: str) -> Row:
        """Return the row of the record called `name`; raises as `get` does."""
        kind = kind_named(kind_name)
        record = self._record(kind, name)
        if not record.provider.builtin:
            self._plugins.load_others(kind)  # another one may have the same name
        return self._records[kind.name].row(record, self._options_problem)

    @_one_thread
    def names(self, kind_name: str) -> List[str]:
        """Return the built-in names of a kind; no third-party plugin is loaded."""
        kind = kind_named(kind_name)
        self._plugins.load_builtins(kind)
        return [record.spec.name for record in self._records[kind.name].all
                if record.provider.builtin]

    @_one_thread
    def is_builtin(self, kind_name: str, name: str) -> bool:
        """Return whether a built-in plugin of a kind has this name or alias."""
        kind = kind_named(kind_name)
        self._plugins.load_builtins(kind)
        records = self._records[kind.name]
        return bool(records.meant_by(name, lambda provider: provider.builtin))

    @_one_thread
    def spellings(self, kind_name: str) -> List[str]:
        """Return the names of a kind, each with and without its distribution.

        Third-party plugins are loaded, except entry points that are named for another kind.
        """
        kind = kind_named(kind_name)
        self._plugins.load_builtins(kind)
        self._plugins.load_locals()
        self._plugins.load_others(kind)
        return list(dict.fromkeys(
            spelling for record in self._records[kind.name].all
            for spelling in (record.spec.name,
                             f"{record.provider.distribution}:{record.spec.name}")))

    @_one_thread
    def load_seconds(self) -> Dict[Provider, float]:
        """Return the load time of each plugin loaded so far, in seconds."""
        return {loaded.provider: loaded.seconds for loaded in self._plugins.loaded()}

    # -- answers -----------------------------------------------------------------------------

    @_one_thread
    def _record(self, kind: Kind, name: str) -> Record:
        """Return the one usable record called `name`; raises as `get` does."""
        for loaded in self._plugins.load_locals():
            if loaded.broken:
                problem = loaded.problems[0]
                raise PluginError(f"{describe(loaded.provider)}: {problem.cause}", problem.remedy)
        records = self._records[kind.name]
        meant = self._meant_by(kind, name)
        if len(meant) > 1:
            providers = " and ".join(repr(records.qualified(record)) for record in meant)
            raise PluginError(f"{kind.name} {name!r} is ambiguous: {providers} both provide it",
                              "use one of these qualified names, or "
                              + records.without(meant[-1]))
        if not meant:
            self._plugins.load_others(kind)
            raise not_found(name, records, self._plugins.problems([kind]))
        if not meant[0].supported:
            row = records.row(meant[0], self._options_problem)
            raise PluginError(f"{kind.name} {row.name!r} of {row.provider.label} is {row.cause}",
                              row.remedy)
        return meant[0]

    def _meant_by(self, kind: Kind, name: str) -> List[Record]:
        """Return the records called `name`, loading no more plugins than needed."""
        records = self._records[kind.name]
        distribution, _, bare = name.rpartition(":")
        self._plugins.load_builtins(kind)
        if distribution:
            own = normal_name(distribution) == discovery.OWN_DISTRIBUTION
            if not (own and records.of_distribution(distribution, bare)):
                self._plugins.load_named(distribution)
            return records.of_distribution(distribution, bare)
        meant = records.meant_by(name, lambda provider: provider.builtin)
        for narrowed in (kind, None):  # an entry point may be named for another kind
            if not meant:
                self._plugins.load_others(narrowed)
                meant = records.meant_by(name)
        return meant

    def _checked_options(self, options: Any, provider: Provider) -> type:
        """Return a checked options class; every call repeats the error of its import or check."""
        if options in self._broken_options:
            raise self._broken_options[options].with_traceback(None)
        try:
            found = (import_target(options, describe(provider)) if isinstance(options, str)
                     else options)
            if found not in self._sound_options:
                check_options_class(found)
                self._sound_options.add(found)
        except GUARDED as error:
            self._broken_options[options] = error
            raise
        return found  # type: ignore[no-any-return]

    def _options_problem(self, record: Record) -> str:
        """Return why a third-party record's options class cannot be used; empty if it can."""
        if record.spec.options is None or record.provider.builtin:
            return ""
        try:
            self._checked_options(record.spec.options, record.provider)
        except GUARDED as error:
            return f"its options are broken: {cause_of(error)}"
        return ""


_current: Optional[Registry] = None
_creation = threading.Lock()


def registry() -> Registry:
    """Return the registry of this process."""
    global _current
    with _creation:
        if _current is None:
            _current = Registry()
        return _current


def use(new: Optional[Registry]) -> None:
    """Set the registry of this process; with None, the next use creates a new one."""
    global _current
    _current = new
