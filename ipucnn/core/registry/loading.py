"""Loading plugins: one guarded entry point at a time, every failure attributed.

Besides `hookspecs` this is the only module that touches pluggy. pluggy's own entry-point loader
imports everything at once and lets any failure through, so importing is done here; pluggy
registers the hook implementations and checks their signatures.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.util
import logging
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterable, List, Sequence, Set, Tuple

import pluggy

from ipucnn.core.errors import IpucnnError, PluginError
from ipucnn.core.names import did_you_mean
from ipucnn.core.registry import hookspecs
from ipucnn.core.registry.discovery import GROUP, Found, PluginSettings, Provider
from ipucnn.core.registry.records import KINDS, Kind, PluginSpec, Requirement

log = logging.getLogger("ipucnn.plugins")

LOCAL = "--plugin"
"""Stands for the entry point of a plugin that was named for this run instead of installed."""

GUARDED = (Exception, SystemExit)
"""What a plugin may throw at us: a script without a main guard may even call `sys.exit`."""


class State(str, enum.Enum):
    """What can be said of a record or of a plugin that gave none."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    INCOMPATIBLE = "incompatible"
    DISABLED = "disabled"
    CONFLICT = "conflict"


@dataclass
class Loaded:
    """What one entry point gave.

    Attributes:
        provider: where it comes from.
        records: its records with their kinds; empty when it is not `ok`.
        state: `ok`, `failed` or `disabled`.
        cause: why it is not `ok`.
        remedy: what to do about it.
        seconds: how long importing it and calling its hooks took.
    """

    provider: Provider
    records: List[Tuple[Kind, PluginSpec]] = field(default_factory=list)
    state: State = State.OK
    cause: str = ""
    remedy: str = ""
    seconds: float = 0.0


class Loader:
    """Imports plugins and collects their records; each entry point is loaded at most once.

    Args:
        settings: what the user allows; a refused entry point is never imported.

    Attributes:
        loaded: what was loaded so far, by provider, in order.
    """

    def __init__(self, settings: PluginSettings) -> None:
        self.settings = settings
        self.loaded: Dict[Provider, Loaded] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def load(self, found: Found) -> Loaded:
        """Load an installed entry point.

        Raises:
            PluginError: it is broken and the settings are strict.
        """
        refusal = self.settings.refusal(found.provider)
        if refusal and found.provider not in self.loaded:
            self.loaded[found.provider] = Loaded(
                found.provider, state=State.DISABLED, cause=refusal,
                remedy="lift that setting to use it")
        return self._load(found.provider, found.entry_point.load)

    def load_local(self, extra: str) -> Loaded:
        """Load a file or module that was named for this run; raises as `load` does."""
        name = Path(extra).stem if extra.endswith(".py") else extra
        return self._load(Provider(name, "", LOCAL, extra), lambda: _import_local(extra))

    def _load(self, provider: Provider, importer: Callable[[], Any]) -> Loaded:
        if provider in self.loaded:
            return self.loaded[provider]
        loaded = Loaded(provider)
        start = time.perf_counter()
        try:
            # A plugin that prints when it is imported must not end up in the data on stdout.
            with contextlib.redirect_stdout(sys.stderr):
                loaded.records = self._records_of(provider, importer())
        except GUARDED as error:
            loaded.state, loaded.cause = State.FAILED, cause_of(error)
            loaded.remedy = remedy_for(provider)
            what = f"{describe(provider)} failed to load: {loaded.cause}"
            if self.settings.strict:
                raise PluginError(what, loaded.remedy) from error
            if provider.entry_point != LOCAL:  # the run itself fails on a local one
                log.warning("%s; %s", what, loaded.remedy)
        loaded.seconds = time.perf_counter() - start
        log.debug("%s took %.0f ms and gave %s", describe(provider), 1000 * loaded.seconds,
                  ", ".join(spec.name for _, spec in loaded.records) or "nothing")
        self.loaded[provider] = loaded
        return loaded

    def _records_of(self, provider: Provider, plugin: Any) -> List[Tuple[Kind, PluginSpec]]:
        if self._manager.is_registered(plugin):
            return []  # a second entry point to the same module adds nothing
        try:
            self._manager.register(
                plugin, name=f"{provider.distribution}:{provider.entry_point}:{provider.value}")
            self._check_hooks(plugin)
            records: List[Tuple[Kind, PluginSpec]] = []
            for kind in KINDS.values():
                for implementation in getattr(self._manager.hook, kind.hook).get_hookimpls():
                    if implementation.plugin is plugin:
                        records += [(kind, spec) for spec in
                                    _validated(kind, implementation.function())]
            return records
        except GUARDED:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise

    def _check_hooks(self, plugin: Any) -> None:
        hooks = [kind.hook for kind in KINDS.values()]
        implemented = {caller.name for caller in self._manager.get_hookcallers(plugin) or []}
        for name in sorted(implemented.difference(hooks)):
            raise PluginError(f"it implements the unknown hook {name!r}; "
                              + (did_you_mean(name, hooks) or "hooks: " + ", ".join(hooks)))
        self._manager.check_pending()
        unmarked = [name for name in hooks
                    if name not in implemented and callable(getattr(plugin, name, None))]
        if unmarked:
            raise PluginError(f"it defines {unmarked[0]!r} without '@ipucnn.hookimpl'")
        if not implemented:
            raise PluginError("it implements none of the hooks: " + ", ".join(hooks))


def import_target(target: str) -> Any:
    """Import what ``"module:attribute"`` names; raises whatever the import raises."""
    module_name, _, attribute = target.partition(":")
    with contextlib.redirect_stdout(sys.stderr):
        result: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        result = getattr(result, part)
    return result


def missing_requirements(spec: PluginSpec) -> List[Requirement]:
    """Return what `spec` needs and this Python does not have; nothing is imported."""
    return [requirement for requirement in spec.requires if not _importable(requirement.module)]


def describe(provider: Provider) -> str:
    """Name an entry point with everything needed to find and blame it (R2 of the design)."""
    if provider.entry_point == LOCAL:
        return f"plugin {provider.value!r}"
    return (f"plugin '{provider.entry_point}' ({GROUP} entry point to '{provider.value}') of "
            f"{provider.label}")


def cause_of(error: BaseException) -> str:
    """Return an exception in one line."""
    text = (error.message if isinstance(error, IpucnnError) else str(error)).strip()
    if isinstance(error, PluginError):
        return text
    return ": ".join([type(error).__name__, *text.splitlines()[:1]])


def remedy_for(provider: Provider) -> str:
    """Return what to do about a broken plugin."""
    if provider.builtin:
        return "'ipucnn doctor' says what is wrong with the installation"
    if provider.entry_point == LOCAL:
        return f"mend it, or leave '{LOCAL} {provider.value}' out"
    return (f"upgrade it, run with '--no-plugins={provider.distribution}', or remove it with "
            f"'pip uninstall {provider.distribution}'")


def _validated(kind: Kind, records: Any) -> Sequence[PluginSpec]:
    if isinstance(records, (PluginSpec, str)) or not isinstance(records, Iterable):
        raise PluginError(f"{kind.hook!r} returned {records!r}, expected an iterable of "
                          f"{kind.record.__name__}")
    result = list(records)
    spellings: Set[str] = set()
    for record in result:
        if not isinstance(record, kind.record):
            raise PluginError(f"{kind.hook!r} returned {record!r}, expected {kind.record.__name__}")
        if spellings.intersection(record.keys):
            raise PluginError(f"{kind.hook!r} returned two records that answer to "
                              f"{sorted(spellings.intersection(record.keys))[0]!r}")
        spellings.update(record.keys)
    return result


def _import_local(extra: str) -> ModuleType:
    if not extra.endswith(".py") and os.sep not in extra:
        return importlib.import_module(extra)
    path = Path(extra)
    if not path.is_file():
        raise PluginError("there is no such file")
    name = "ipucnn_local_" + path.stem
    spec = importlib.util.spec_from_file_location(name, str(path))
    if spec is None or spec.loader is None:
        raise PluginError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that "module:attr" targets and pickling find it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(module: str) -> bool:
    top = module.partition(".")[0]  # looking for a submodule would import its package
    if top in sys.modules:
        return sys.modules[top] is not None
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False
