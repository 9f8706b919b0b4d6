"""Names of plugins for shell completion; names of third-party plugins are cached.

Listing third-party plugins requires importing them, which takes a third of a millisecond or more
for each. Their names are cached in a file, which is invalid after a plugin was installed, removed
or edited.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from typing import List, Optional, Sequence

from ipucnn.core.bounded_folder import keep_record, kept_record
from ipucnn.core.files import cache_dir
from ipucnn.core.names import key
from ipucnn.core.registry import discovery
from ipucnn.core.registry.registry import Registry
from ipucnn.version import __version__


def completions(registry: Registry, kind: str, incomplete: str) -> List[str]:
    """Return the names of a kind that begin with `incomplete`.

    Third-party plugins are searched only if no built-in name matches.
    """
    start = key(incomplete)
    found = [name for name in registry.names(kind) if key(name).startswith(start)]
    return found or [name for name in _others(registry, kind) if key(name).startswith(start)]


def _others(registry: Registry, kind: str) -> Sequence[str]:
    """Return the spellings of all names of a kind, from the file if it is current."""
    path = _path(registry, kind)
    if path is None:
        return registry.spellings(kind)
    with suppress(OSError, ValueError):
        names = kept_record(path)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    names = registry.spellings(kind)
    keep_record(path, names)
    return names


def _path(registry: Registry, kind: str) -> Optional[Path]:
    """Return the file of a kind; None where plugins are given that are not installed."""
    if registry.settings.extra or registry.given is not None:
        return None
    digest = hashlib.sha256(repr((__version__, registry.settings)).encode())
    for found in discovery.scan():
        if not found.provider.builtin:
            digest.update(repr((found.provider, _edited(found.provider.value))).encode())
    return cache_dir() / "completion" / f"{kind}-{digest.hexdigest()[:32]}.json"


def _edited(value: str) -> Optional[float]:
    """Return the last modification of an entry point's module and those beside it, or None.

    The folders of its parent packages are included. No package is imported.
    """
    top, *below = value.partition(":")[0].split(".")
    with suppress(ImportError, ValueError, OSError, AttributeError):
        spec = importlib.util.find_spec(top)
        if spec is None:
            return None
        if spec.submodule_search_locations is None:
            return os.stat(spec.origin or "").st_mtime
        folders = [os.path.join(place, *below[:depth])
                   for place in spec.submodule_search_locations for depth in range(len(below) + 1)]
        return max((entry.stat().st_mtime for folder in folders if os.path.isdir(folder)
                    for entry in os.scandir(folder) if entry.name.endswith(".py")), default=None)
    return None
