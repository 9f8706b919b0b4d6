"""Variants of a run: backends with values of their options, which a measurement compares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Mapping

from ipucnn.core.errors import PluginError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen
from ipucnn.core.options.assignment import options_for
from ipucnn.core.options.attributes import INFERENCE
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.owners import owner_of
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.options import RunOptions


def variants_of(chosen: Chosen, plan: ExecutionPlan,
                given: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Return the values of a backend's options to measure, without those that are given."""
    found: List[Dict[str, Any]] = []
    for variant in chosen.backend.variants(plan):
        values = {name: value for name, value in variant.items() if name not in given}
        if values not in found:
            found.append(values)
    return found


def as_chosen(options: RunOptions, backend: str, values: Mapping[str, Any], precision: str,
              registry: Registry) -> RunOptions:
    """Return the given options with a backend and values of its options.

    Raises:
        IpucnnError: there is no such backend, or a value is not valid.
    """
    spec = registry.get_typed(BackendSpec, backend)
    owner = owner_of(KINDS["backend"], spec, registry)
    for name in values:
        if owner is None or owner.option(name, INFERENCE) is None:
            raise PluginError(f"backend {spec.name!r} has no option {name!r} to measure")
    plugins = options.plugins
    own = plugins.of("backend", spec.name)
    given = dict(plugins.deferred) if own is None else {
        item.name: getattr(own, item.name) for item in declared(type(own))}
    made = options_for(spec, "backend", {**given, **values}, registry)
    owned = {(kind, name): value for (kind, name), value in plugins.owned.items()
             if kind != "backend"}
    if made is not None:
        owned["backend", spec.name] = made
    return replace(
        options.with_values(backend=spec.name, precision=precision, tune=False),
        plugins=replace(plugins, owned=owned, deferred={}, undecided={}, shipped=frozenset()))
