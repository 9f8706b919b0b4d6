"""Converts plugins to plain types, for listings and descriptions."""

from __future__ import annotations

from typing import Any, Dict, List

from ipucnn.core.errors import PluginError, UnknownNameError
from ipucnn.core.registry.kinds import KINDS, kind_named
from ipucnn.core.registry.registry import Row, registry


def entry(row: Row) -> Dict[str, Any]:
    """Return a row of a listing as plain types, with texts as the plugin states them."""
    return {
        "kind": row.kind, "name": row.name,
        "aliases": list(row.spec.aliases) if row.spec else [],
        "summary": row.spec.summary if row.spec else "",
        "distribution": row.provider.distribution, "version": row.provider.version,
        "entry_point": row.provider.entry_point, "value": row.provider.value,
        "state": row.state.value, "cause": row.cause, "remedy": row.remedy,
    }


def kinds_of(name: str) -> List[str]:
    """Return the kinds that have a plugin called `name`.

    Third-party plugins are loaded only if no built-in one has the name. A plugin that is ambiguous
    or broken counts.
    """
    found = [kind for kind in KINDS if registry().is_builtin(kind, name)]
    if found:
        return found
    for kind in KINDS:
        try:
            registry().get(kind, name)
        except UnknownNameError:
            continue
        except PluginError:
            pass
        found.append(kind)
    return found


def describe(kind_name: str, name: str) -> Dict[str, Any]:
    """Return the facts about one plugin as plain types.

    Raises:
        UnknownNameError: no plugin provides it.
        PluginError: it is ambiguous, broken or incompatible.
    """
    kind = kind_named(kind_name)
    spec = registry().get(kind.name, name)
    row = registry().row(kind.name, name)
    described: Dict[str, Any] = {key: value for key, value in entry(row).items()
                                 if key not in ("value",)}
    described.update({key: list(value) if isinstance(value, tuple) else value
                      for key, value in spec.facts().items()})
    return described
