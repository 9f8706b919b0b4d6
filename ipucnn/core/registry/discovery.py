"""Which plugins are installed and which the user allows: metadata only, nothing is imported."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, FrozenSet, Iterable, List, Mapping, Optional, Set, Tuple

log = logging.getLogger("ipucnn.plugins")

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "ipucnn"
OWN_DISTRIBUTION = "ipucnn"

DISABLE_VARIABLE = "IPUCNN_DISABLE_PLUGINS"
LOAD_VARIABLE = "IPUCNN_LOAD_PLUGINS"
STRICT_VARIABLE = "IPUCNN_STRICT_PLUGINS"
EXTRA_VARIABLE = "IPUCNN_PLUGIN"

_EVERYTHING = {"1", "true", "yes", "all", "*"}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@dataclass(frozen=True)
class Provider:
    """Where a record comes from: enough to blame, to qualify and to uninstall it."""

    distribution: str
    version: str
    entry_point: str
    value: str

    @property
    def builtin(self) -> bool:
        """Whether it ships with ipucnn itself."""
        return _normal(self.distribution) == OWN_DISTRIBUTION

    @property
    def label(self) -> str:
        """The distribution and its version, for people."""
        return f"{self.distribution} {self.version}".strip()

    def is_distribution(self, name: str) -> bool:
        """Whether `name` means this distribution."""
        return _normal(name) == _normal(self.distribution)

    def answers_to(self, name: str) -> bool:
        """Whether `name` means this distribution or this entry point."""
        return self.is_distribution(name) or _normal(name) == _normal(self.entry_point)


@dataclass(frozen=True)
class PluginSettings:
    """What the user allows.

    Attributes:
        disable_all: import no third-party plugin at all.
        disabled: distributions or entry points that are never imported.
        only: when given, the only third-party distributions or entry points that are imported.
        extra: files or modules loaded as plugins for this run.
        strict: a broken plugin raises instead of becoming a row.
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
            disabled=frozenset(disabled - _EVERYTHING - {"0", "false", "no"}),
            only=None if only is None or only & _EVERYTHING else frozenset(only),
            extra=tuple(part for part in env.get(EXTRA_VARIABLE, "").split(os.pathsep) if part),
            strict=env.get(STRICT_VARIABLE, "") not in {"", "0", "false", "no"},
        )

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
    return {word for word in re.split(r"[,\s]+", text.strip()) if word}


@dataclass(frozen=True)
class Found:
    """An installed entry point of our group, not yet imported."""

    provider: Provider
    entry_point: metadata.EntryPoint


_cache: List[Found] = []
_scanned = False


def scan() -> List[Found]:
    """Return the installed entry points of the group, built-ins first; one scan per process."""
    global _scanned
    if not _scanned:
        from importlib import metadata  # a scan `--help` does not need

        _cache[:] = _scan(metadata.distributions())
        _scanned = True
    return list(_cache)


def refresh() -> None:
    """Forget the scan, for processes in which a distribution was just installed."""
    global _scanned
    _scanned = False


def _scan(distributions: Iterable[metadata.Distribution]) -> List[Found]:
    # `entry_points()` of Python 3.8 and 3.9 does not say which distribution an entry point is
    # from, so distributions are walked. The first one of a name on the path is the one in force.
    found: List[Found] = []
    seen = set()
    for distribution in distributions:
        try:
            ours = [ep for ep in distribution.entry_points if ep.group == GROUP]
            if not ours:
                continue
            name, version = distribution.metadata["Name"], distribution.version or ""
        except Exception as error:  # damaged metadata of any package must not stop every command
            log.warning("cannot read the metadata of an installed distribution: %s: %s",
                        type(error).__name__, error)
            continue
        if not name or _normal(name) in seen:
            continue
        seen.add(_normal(name))
        found += [Found(Provider(name, version, ep.name, ep.value), ep) for ep in ours]
    return sorted(found, key=lambda f: (not f.provider.builtin, _normal(f.provider.distribution)))
