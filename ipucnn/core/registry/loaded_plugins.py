"""The plugins of a registry, loaded when they are needed."""

from __future__ import annotations

import logging
from typing import Dict, List, Optional, Sequence, Set, Tuple

from ipucnn.core.errors import PluginError
from ipucnn.core.registry import discovery
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.discovery import Found, PluginSettings, Provider, normal_name
from ipucnn.core.registry.kinds import KINDS, Kind
from ipucnn.core.registry.loading import Loaded, Loader, Problem
from ipucnn.core.registry.plugin_files import distinct
from ipucnn.core.registry.states import Records, kind_of, problem_row

log = logging.getLogger("ipucnn.settings")  # listings silence that of the loader


class LoadedPlugins:
    """Loads plugins by kind or distribution, each once, and keeps their records.

    Args:
        settings: which plugins the user allows.
        entry_points: the entry points to use; the installed ones when None.

    Raises:
        PluginError: ipucnn itself is not installed, so that it has no entry points.

    Attributes:
        records: those of the loaded plugins, by kind.
    """

    def __init__(self, settings: PluginSettings, entry_points: Optional[Sequence[Found]]) -> None:
        self._settings, self._given = settings, entry_points
        found = discovery.builtins() if entry_points is None else entry_points
        self._builtins = [item for item in found if item.provider.builtin]
        self._others: Optional[List[Found]] = None
        self._by_name: Dict[str, List[Found]] = {}
        self._loader = Loader(settings)
        self._loaded_builtins: Set[str] = set()
        self._loaded_others: Set[str] = set()
        self._providers: Dict[int, Provider] = {}
        self.records = {name: Records(kind) for name, kind in KINDS.items()}
        if not self._builtins:
            raise PluginError("ipucnn's own plugins are not installed",
                              "install the package, for example with 'pip install -e .'")

    def provider_of(self, spec: PluginSpec) -> Provider:
        """Return the entry point that a record comes from.

        Raises:
            PluginError: it does not come from these plugins.
        """
        if id(spec) not in self._providers:
            raise PluginError(f"{spec.name!r} is not in this registry")
        return self._providers[id(spec)]

    def loaded(self) -> List[Loaded]:
        """Return the plugins loaded so far."""
        return list(self._loader.loaded.values())

    def problems(self, kinds: Sequence[Kind]) -> List[Tuple[Provider, Problem]]:
        """Return the problems of loaded plugins that may concern these kinds."""
        names = {"", *(kind.name for kind in kinds)}
        return [(loaded.provider, problem)
                for loaded in self.loaded() for problem in loaded.problems
                if problem_row(loaded.provider, problem).kind in names]

    def load_locals(self) -> List[Loaded]:
        """Load and return the files and modules that the user named for this run."""
        loaded = []
        for extra in distinct(self._settings.extra):
            before = len(self._loader.loaded)
            loaded.append(self._loader.load_local(extra))
            if len(self._loader.loaded) > before:
                self._add(loaded[-1])
        return loaded

    def load_builtins(self, kind: Kind) -> None:
        """Load the built-in plugins of a kind."""
        if kind.name not in self._loaded_builtins:
            for found in self._builtins:
                if kind_of(found.provider) is kind:
                    self._load(found)
            self._loaded_builtins.add(kind.name)

    def load_others(self, kind: Optional[Kind] = None) -> None:
        """Load the third-party entry points, only those that may be of `kind` if it is given."""
        label = kind.name if kind else "all"
        if not self._loaded_others.intersection({label, "all"}):
            for found in self._third_parties():
                if kind is None or kind_of(found.provider) in (kind, None):
                    self._load(found)
            self._loaded_others.add(label)

    def load_named(self, name: str) -> None:
        """Load the third-party entry points of a distribution or entry point of this name."""
        self._third_parties()
        for found in self._by_name.get(normal_name(name), ()):
            self._load(found)

    def _third_parties(self) -> List[Found]:
        if self._others is None:
            found = discovery.scan() if self._given is None else self._given
            self._others = [item for item in found if not item.provider.builtin]
            for item in self._others:
                for name in {item.provider.distribution, item.provider.entry_point}:
                    self._by_name.setdefault(normal_name(name), []).append(item)
            for name in self._settings.unmatched([item.provider for item in found]):
                log.warning("no installed plugin is called %r (%s, %s or '--no-plugins')", name,
                            discovery.DISABLE_VARIABLE, discovery.LOAD_VARIABLE)
        return self._others

    def _load(self, found: Found) -> None:
        if found.provider not in self._loader.loaded:
            self._add(self._loader.load(found))

    def _add(self, loaded: Loaded) -> None:
        for kind, spec in loaded.records:
            self._providers.setdefault(id(spec), loaded.provider)
            self.records[kind.name].add(loaded.provider, spec)
