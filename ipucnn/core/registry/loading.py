"""Loads plugins, and attributes failures to an entry point, hook or record.

Besides `hookspecs` this is the only module that uses pluggy. pluggy's own entry-point loader
imports all entry points at once and does not catch exceptions, so this module imports them; pluggy
registers the hook implementations and checks their signatures.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Set,
    Tuple,
)

import pluggy

from ipucnn.core.collection import end_as_usual
from ipucnn.core.errors import IpucnnError, PluginError
from ipucnn.core.names import brief, did_you_mean, printable
from ipucnn.core.registry import hookspecs
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.deprecations import announce
from ipucnn.core.registry.discovery import GROUP, LOCAL, Found, PluginSettings, Provider
from ipucnn.core.registry.isolation import isolated
from ipucnn.core.registry.kinds import KINDS, Kind
from ipucnn.core.registry.plugin_files import advice, file_suffix, import_plugin, place_of

log = logging.getLogger("ipucnn.plugins")

_LOGGED = 10
"""Records of a plugin whose names are logged."""

GUARDED = (Exception, SystemExit)
"""Exceptions that plugin code may raise; a script without a main guard may call `sys.exit`."""


class State(str, enum.Enum):
    """The state of a record, or of a plugin without records."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    INCOMPATIBLE = "incompatible"
    DISABLED = "disabled"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Problem:
    """The reason why a plugin, one of its hooks or one of its records cannot be used.

    Attributes:
        state: `failed` or `disabled`.
        cause: one printable line.
        remedy: how to fix it.
        kind: the kind of plugin concerned; empty when it is not known.
        name: the record's name; empty when more than one record is concerned, or it has no name.
    """

    state: State
    cause: str
    remedy: str
    kind: str = ""
    name: str = ""


@dataclass
class Loaded:
    """The result of loading one entry point.

    Attributes:
        provider: the entry point.
        records: its usable records with their kinds.
        problems: the failures of the others.
        seconds: how long importing it and calling its hooks took.
    """

    provider: Provider
    records: List[Tuple[Kind, PluginSpec]] = field(default_factory=list)
    problems: List[Problem] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def broken(self) -> bool:
        """Whether it has problems and no record."""
        return bool(self.problems) and not self.records


class Loader:
    """Imports plugins and collects their records; each entry point is loaded at most once.

    Args:
        settings: which plugins the user allows; the others are never imported.

    Attributes:
        loaded: the results so far, by provider, in order.
    """

    def __init__(self, settings: PluginSettings) -> None:
        self.settings = settings
        self.loaded: Dict[Provider, Loaded] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def load(self, found: Found) -> Loaded:
        """Load an installed entry point.

        Raises:
            PluginError: part of it is broken and the settings are strict.
        """
        provider = found.provider
        if provider not in self.loaded:
            refusal = self.settings.refusal(provider)
            if not refusal:
                return self._load(provider, found.entry_point.load)
            self.loaded[provider] = Loaded(provider, problems=[
                Problem(State.DISABLED, printable(refusal), "remove that setting to use it")])
        return self.loaded[provider]

    def load_local(self, extra: str) -> Loaded:
        """Load a file or module that was named for this run; raises as `load` does."""
        name = Path(extra).stem if extra.endswith(".py") else extra
        suffix = file_suffix(extra, self.settings.extra)
        provider = Provider(name + suffix.replace("_", "-"), "", LOCAL, extra)
        if provider not in self.loaded:
            return self._load(provider, lambda: import_plugin(extra, True, suffix))
        return self.loaded[provider]

    def _load(self, provider: Provider, importer: Callable[[], Any]) -> Loaded:
        start = time.perf_counter()
        if not provider.builtin:
            end_as_usual()
        guard: ContextManager[None] = (
            contextlib.nullcontext() if provider.builtin else isolated(describe(provider)))
        collected = _Collected(describe(provider))
        with guard:
            try:
                plugin = importer()
                if not self._manager.is_registered(plugin):  # else another entry point's
                    self._collect(provider, plugin, collected)
            except GUARDED as error:
                collected.fail(error)
        loaded = Loaded(provider, collected.records, [
            Problem(State.FAILED, cause_of(error), remedy_for(provider, error), kind,
                    printable(name))
            for error, kind, name in collected.failures], time.perf_counter() - start)
        if loaded.problems:
            message = _failure_message(loaded)
            if self.settings.strict:
                raise PluginError(message, remedy_for(provider)) from collected.failures[0][0]
            if provider.entry_point != LOCAL or loaded.records:  # else the run itself fails
                log.warning("%s; %s", message, remedy_for(provider))
        names = [printable(spec.name) for _, spec in loaded.records[:_LOGGED]]
        if len(loaded.records) > _LOGGED:
            names.append(f"{len(loaded.records) - _LOGGED} more")
        log.debug("%s: loaded in %.0f ms, provides %s", describe(provider), 1000 * loaded.seconds,
                  ", ".join(names) or "nothing")
        self.loaded[provider] = loaded
        return loaded

    def _collect(self, provider: Provider, plugin: Any, collected: _Collected) -> None:
        """Register a plugin and call its hooks; without a usable record it is unregistered."""
        try:
            self._manager.register(
                plugin, name=f"{provider.distribution}:{provider.entry_point}:{provider.value}")
            hooks = self._hooks(plugin)
            for kind in KINDS.values():
                if kind.hook in hooks:
                    collected.call(kind, hooks[kind.hook])
        except GUARDED as error:
            collected.fail(error)
        finally:
            useless = collected.failures and (self.settings.strict or not collected.records)
            if useless and self._manager.is_registered(plugin):
                self._manager.unregister(plugin)

    def _hooks(self, plugin: Any) -> Dict[str, Callable[[], Any]]:
        """Return the hooks that a registered plugin implements, by name.

        Raises:
            PluginError: it implements an unknown hook or none, or the marker is missing.
        """
        known = [kind.hook for kind in KINDS.values()]
        implemented = {}
        for name in dir(plugin):
            marks = self._manager.parse_hookimpl_opts(plugin, name)
            if marks is not None:
                implemented[marks.get("specname") or name] = getattr(plugin, name)
        for name in sorted(set(implemented).difference(known)):
            raise PluginError(f"it implements the unknown hook {name!r}; "
                              + (did_you_mean(name, known) or "hooks: " + ", ".join(known)))
        unmarked = [name for name in known
                    if name not in implemented and callable(getattr(plugin, name, None))]
        if unmarked:
            raise PluginError(f"it defines {unmarked[0]!r} without '@ipucnn.hookimpl'")
        if not implemented:
            raise PluginError("it implements none of the hooks: " + ", ".join(known))
        return implemented


class _Collected:
    """The records of one plugin, and its failures with the kind and name concerned."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.records: List[Tuple[Kind, PluginSpec]] = []
        self.failures: List[Tuple[BaseException, str, str]] = []

    def fail(self, error: BaseException, kind: str = "", name: str = "") -> None:
        """Add a failure."""
        self.failures.append((error, kind, name))

    def call(self, kind: Kind, hook: Callable[[], Any]) -> None:
        """Add the records that a hook returns, up to the one at which it raises."""
        spellings: Set[str] = set()
        try:
            for record in _items(kind, hook()):
                try:
                    _check_record(kind, record, spellings)
                    announce(self.who, f"{kind.name} {record.name!r}", record.deprecated)
                except GUARDED as error:
                    self.fail(error, *_kind_and_name(kind, record))
                else:
                    spellings.update(record.keys)
                    self.records.append((kind, record))
        except GUARDED as error:
            self.fail(error, kind.name)


def _items(kind: Kind, returned: Any) -> Iterator[Any]:
    if isinstance(returned, (PluginSpec, str)) or not isinstance(returned, Iterable):
        raise PluginError(f"{kind.hook!r} returned {brief(returned)}, expected an iterable of "
                          f"{kind.record.__name__}")
    return iter(returned)


def _check_record(kind: Kind, record: Any, spellings: Set[str]) -> None:
    """Raise an error for an object that is not a record of the kind, or a repeated name."""
    if not isinstance(record, kind.record):
        raise PluginError(f"{kind.hook!r} returned {brief(record)}, expected "
                          f"{kind.record.__name__}")
    PluginSpec.__post_init__(record)  # a subclass may have left it out
    taken = [spelling for spelling in record.keys if spelling in spellings]
    if taken:
        raise PluginError(f"{kind.hook!r} returned two records with the name {taken[0]!r}")


def _kind_and_name(kind: Kind, record: Any) -> Tuple[str, str]:
    """Return the kind and name of a bad record, as far as it has them."""
    if not isinstance(record, PluginSpec):
        return kind.name, ""
    own = next((k.name for k in KINDS.values() if isinstance(record, k.record)), kind.name)
    return own, record.name if isinstance(record.name, str) else ""


def _failure_message(loaded: Loaded) -> str:
    """Return one line on the problems of a plugin, whose first one stands for all."""
    first = loaded.problems[0]
    if loaded.broken:
        return f"{describe(loaded.provider)} failed to load: {first.cause}"
    named = f"{first.kind} {first.name!r}" if first.name else f"its {first.kind} plugins"
    more = len(loaded.problems) - 1
    return (f"{describe(loaded.provider)} failed partly: {named}: {first.cause}"
            + (f" (and {more} more)" if more else ""))


def describe(provider: Provider) -> str:
    """Return a description of an entry point and its distribution, for messages."""
    if provider.entry_point == LOCAL:
        return f"plugin {provider.value!r}"
    return printable(f"plugin '{provider.entry_point}' ({GROUP} entry point to "
                     f"'{provider.value}') of {provider.label}")


def has_code_in(provider: Provider, module: str, file: str) -> bool:
    """Return whether a module is that of an entry point, or of the package around it.

    Args:
        provider: the entry point.
        module: name of the module.
        file: its file.
    """
    if provider.value.endswith(".py"):
        return place_of(provider.value) == place_of(file)
    own = provider.value.partition(":")[0]
    package = own.rpartition(".")[0] or own
    return f"{module}.".startswith(f"{package}.")


def cause_of(error: BaseException) -> str:
    """Return an exception as one printable line."""
    text = (error.message if isinstance(error, IpucnnError) else str(error)).strip()
    if isinstance(error, PluginError):
        return printable(text)
    return printable(": ".join([type(error).__name__, *text.splitlines()[:1]]))


def remedy_for(provider: Provider, error: Optional[BaseException] = None) -> str:
    """Return how to fix a broken plugin, in which an error was raised."""
    if provider.builtin:
        return "'ipucnn doctor' checks the installation"
    if provider.entry_point == LOCAL:
        way = advice(provider.value, error) or "fix it"
        return printable(f"{way}, or leave out '{LOCAL} {provider.value}'")
    return printable(
        f"upgrade it, run with '--no-plugins={provider.distribution}', or remove it with "
        f"'pip uninstall {provider.distribution}'")
