"""Finds installed plugins from their metadata, without imports, and reads plugin settings."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import (
    TYPE_CHECKING,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ipucnn.core.names import printable

if TYPE_CHECKING:
    from importlib import metadata

log = logging.getLogger("ipucnn.plugins")

GROUP = "ipucnn"
OWN_DISTRIBUTION = "ipucnn"

DISABLE_VARIABLE = "IPUCNN_DISABLE_PLUGINS"
LOAD_VARIABLE = "IPUCNN_LOAD_PLUGINS"
STRICT_VARIABLE = "IPUCNN_STRICT_PLUGINS"
EXTRA_VARIABLE = "IPUCNN_PLUGIN"

LOCAL = "--plugin"
"""The entry point of a plugin that was named for this run instead of installed."""

_EVERYTHING = {"1", "true", "yes", "on", "all", "*"}
_NOTHING = {"0", "false", "no", "off"}
_FILE_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


@functools.lru_cache(maxsize=None)
def normal_name(name: str) -> str:
    """Return the normalised form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Provider:
    """The distribution and entry point that a record comes from.

    The texts are unmodified metadata of the distribution; `label` is safe to print.
    """

    distribution: str
    version: str
    entry_point: str
    value: str

    @property
    def builtin(self) -> bool:
        """Whether it is part of ipucnn itself."""
        return normal_name(self.distribution) == OWN_DISTRIBUTION

    @property
    def label(self) -> str:
        """The distribution and its version, printable."""
        return printable(f"{self.distribution} {self.version}".strip())

    def is_distribution(self, name: str) -> bool:
        """Whether `name` means this distribution."""
        return normal_name(name) == normal_name(self.distribution)

    def answers_to(self, name: str) -> bool:
        """Whether `name` means this distribution or this entry point.

        A plugin file also answers with and without the suffix that it has beside another file of
        its name, because a checkpoint may name it either way.
        """
        if self.is_distribution(name) or normal_name(name) == normal_name(self.entry_point):
            return True
        own, given = normal_name(self.distribution), normal_name(name)
        return self.entry_point == LOCAL and (
            _FILE_SUFFIX.sub("", own) == given or own == _FILE_SUFFIX.sub("", given))


@dataclass(frozen=True)
class PluginSettings:
    """Settings for the plugins that the user allows.

    Attributes:
        disable_all: import no third-party plugin.
        disabled: distributions or entry points that are never imported.
        only: if given, the only third-party distributions or entry points that are imported.
        extra: files or modules loaded as plugins for this run.
        strict: raise on a broken plugin instead of listing it as failed.
    """

    disable_all: bool = False
    disabled: FrozenSet[str] = frozenset()
    only: Optional[FrozenSet[str]] = None
    extra: Tuple[str, ...] = ()
    strict: bool = False

    @classmethod
    def from_environment(cls, environ: Optional[Mapping[str, str]] = None) -> PluginSettings:
        """Read IPUCNN_DISABLE_PLUGINS, _LOAD_PLUGINS, _PLUGIN and _STRICT_PLUGINS."""
        env = os.environ if environ is None else environ
        disabled = _words(env.get(DISABLE_VARIABLE, ""))
        only = _words(env[LOAD_VARIABLE]) if LOAD_VARIABLE in env else None
        return cls(
            disable_all=bool(disabled & _EVERYTHING),
            disabled=frozenset(disabled - _EVERYTHING - _NOTHING),
            only=None if only is None or only & _EVERYTHING else frozenset(only - _NOTHING),
            extra=tuple(part for part in env.get(EXTRA_VARIABLE, "").split(os.pathsep) if part),
            strict=bool(_words(env.get(STRICT_VARIABLE, "")) - _NOTHING),
        )

    def unmatched(self, providers: Sequence[Provider]) -> List[str]:
        """Return the names that mean none of the installed distributions and entry points."""
        return sorted(name for name in self.disabled | (self.only or frozenset())
                      if not any(provider.answers_to(name) for provider in providers))

    def refusal(self, provider: Provider) -> str:
        """Return why `provider` may not be imported, or an empty string when it may."""
        if provider.builtin:
            return ""
        if self.disable_all:
            return f"all plugins are disabled by --no-plugins or {DISABLE_VARIABLE}"
        if any(provider.answers_to(name) for name in self.disabled):
            return f"disabled by --no-plugins or {DISABLE_VARIABLE}"
        if self.only is not None and not any(provider.answers_to(name) for name in self.only):
            return f"not listed in {LOAD_VARIABLE}"
        return ""


def _words(text: str) -> Set[str]:
    return {word for word in re.split(r"[,\s]+", text.strip().lower()) if word}


@dataclass(frozen=True)
class Found:
    """An installed entry point of the group, not yet imported."""

    provider: Provider
    entry_point: metadata.EntryPoint


_cache: Dict[str, List[Found]] = {}


def builtins() -> List[Found]:
    """Return ipucnn's own entry points; cached. No other distribution's metadata is read."""
    if "own" not in _cache:
        from importlib import metadata  # not needed for `--help`

        _cache["own"] = _scan(metadata.Distribution.discover(name=OWN_DISTRIBUTION), set())
    return list(_cache["own"])


def scan() -> List[Found]:
    """Return all installed entry points of the group, built-ins first; cached."""
    if "others" not in _cache:
        from importlib import metadata

        found = _scan(metadata.distributions(), {OWN_DISTRIBUTION})
        _cache["others"] = sorted(found, key=lambda f: normal_name(f.provider.distribution))
    return [*builtins(), *_cache["others"]]


def refresh() -> None:
    """Clear the caches, for processes in which a distribution was just installed."""
    _cache.clear()
    forget_modules()


def forget_modules() -> None:
    """Clear the cache of `is_installed`."""
    _is_on_path.cache_clear()


def is_installed(module: str) -> bool:
    """Return whether a module can be found, without importing it.

    The answer is cached for a search path and a working folder.

    Of a submodule, only the package is looked for, because its own search would import the
    package. Namespace packages, which several distributions share, are not imported. Any folder is
    one; a folder in the working folder, such as `wandb` with the runs, is not installed.
    """
    top = module.partition(".")[0]
    if sys.modules.get(module) is not None:
        return True
    if top in sys.modules and getattr(sys.modules[top], "__file__", "") is not None:
        return sys.modules[top] is not None
    try:
        working = os.getcwd()
    except OSError:  # it was removed
        working = ""
    return _is_on_path(module, tuple(sys.path), working)


@functools.lru_cache(maxsize=None)
def _is_on_path(module: str, path: Tuple[str, ...],  # noqa: ARG001 - of the cache's key
                working: str) -> bool:
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for name in inner:
            if spec is None or spec.origin is not None or not spec.submodule_search_locations:
                break  # not a namespace package
            # not by its full name, for which its parent would have to be imported
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
        if spec is None or spec.origin is not None or inner:
            return spec is not None
        return not working or any(
            os.path.realpath(os.path.dirname(place) or working) != os.path.realpath(working)
            for place in spec.submodule_search_locations or [""])
    except (ImportError, ValueError):
        return False


def _scan(distributions: Iterable[metadata.Distribution], seen: Set[str]) -> List[Found]:
    """Return the entry points of distributions whose name is not in `seen`.

    `entry_points()` of Python 3.8 and 3.9 does not state the distribution of an entry point, so
    distributions are scanned. If several on the path have the same name, the first takes
    precedence.
    """
    found: List[Found] = []
    for distribution in distributions:
        try:
            # Reading the file is the cost of a scan; most distributions need not be parsed.
            if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            ours = [ep for ep in distribution.entry_points if ep.group == GROUP]
            if not ours:
                continue
            name, version = distribution.metadata["Name"], distribution.version or ""
        except Exception as error:  # damaged metadata of any package must not stop every command
            log.warning("cannot read the metadata of an installed distribution: %s: %s",
                        type(error).__name__, printable(str(error)))
            continue
        if name and normal_name(name) not in seen:
            seen.add(normal_name(name))
            found += [Found(Provider(name, version, ep.name, ep.value), ep) for ep in ours]
    return found
