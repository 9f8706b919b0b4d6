"""Options that are saved for plugins which cannot be used here: uninstalled ones, for example."""

from __future__ import annotations

from typing import Any, Collection, Dict, List, Mapping, Optional, Set, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.options.composition import Given, common_option, default_of
from ipucnn.core.options.owners import AUTO, having, owner_of, selected_owners
from ipucnn.core.registry.kinds import KINDS, Kind
from ipucnn.core.registry.registry import Registry
from ipucnn.training.options import TrainOptions

UNNEEDED = ("optimizer", "lr-schedule", "logger")
"""Kinds of plugins that take part in a training only, not in the use of its checkpoints."""


def without_unusable(saved: Mapping[str, Any], registry: Registry, chosen: Mapping[str, Any],
                     replaceable: Collection[str],
                     unneeded: Collection[str] = ()) -> Dict[str, Any]:
    """Return saved options in which plugins that cannot be used are replaced.

    The options of a replaced plugin are left out. Plugins that can be used are not replaced.

    Args:
        saved: the options in a checkpoint, by flat name.
        registry: where names are looked up.
        chosen: values of common options that replace the saved ones, by name.
        replaceable: the kinds of plugins that the command can replace.
        unneeded: the kinds of plugins that it does not need; their default is used.

    Raises:
        UsageError: a plugin cannot be used and is not replaced.
    """
    values = dict(saved)
    lost: Set[str] = set()
    for kind in (KINDS[name] for name in TrainOptions.kinds):
        unusable = _unusable(kind, values.get(kind.selector), registry)
        if unusable is None:
            continue
        lost.add(kind.name)
        if kind.name in replaceable and kind.selector in chosen:
            values[kind.selector] = chosen[kind.selector]
        elif kind.name in unneeded:
            values[kind.selector] = default_of(TrainOptions, kind.selector)
        else:
            raise _refusal(kind, *unusable, kind.name in replaceable)
    if not lost:
        return values

    def value_of(name: str) -> Any:
        return values[name] if name in values else default_of(TrainOptions, name)

    chosen_owners, candidates = selected_owners(TrainOptions, value_of, registry)
    owners = [owner for owner in chosen_owners + candidates if owner.kind.name not in lost]
    return {name: value for name, value in values.items()
            if common_option(TrainOptions, name) or having(Given(name, None), owners)}


def _unusable(kind: Kind, value: Any, registry: Registry) -> Optional[Tuple[str, IpucnnError]]:
    """Return the name of a saved plugin that cannot be used, and the error; None if all can."""
    names: List[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    for name in names:
        if name is None or (kind.name == "backend" and name == AUTO):
            continue
        try:
            owner_of(kind, registry.get(kind.name, str(name)), registry)
        except IpucnnError as error:
            return str(name), error
    return None


def _refusal(kind: Kind, name: str, error: IpucnnError, replaceable: bool) -> UsageError:
    flag = "--" + kind.selector.replace("_", "-")
    remedy = "install its plugin, or name its file with '--plugin'"
    if replaceable:
        remedy += f", or replace it with '{flag} NAME'"
    return UsageError(f"the {kind.name} {name!r} that is saved in the checkpoint cannot be used: "
                      f"{error.message}", f"{remedy}; {error.hint}" if error.hint else remedy)
