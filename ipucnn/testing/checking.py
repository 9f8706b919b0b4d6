"""Runs the conformance suites without pytest, for one plugin or a whole distribution."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Type

from ipucnn.core.errors import PluginError, UnknownNameError
from ipucnn.core.names import did_you_mean
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.kinds import kind_named
from ipucnn.core.registry.registry import Registry, Row
from ipucnn.testing.backends import BackendSuite
from ipucnn.testing.datasets import DatasetSuite
from ipucnn.testing.launchers import LauncherSuite
from ipucnn.testing.loggers import LoggerSuite
from ipucnn.testing.losses import LossSuite
from ipucnn.testing.models import ModelSuite, NormLayerSuite
from ipucnn.testing.optimisation import OptimizerSuite, ScheduleSuite
from ipucnn.testing.suite import Suite, run

SUITES: Mapping[str, Type[Suite]] = {
    "model": ModelSuite,
    "dataset": DatasetSuite,
    "norm-layer": NormLayerSuite,
    "optimizer": OptimizerSuite,
    "lr-schedule": ScheduleSuite,
    "backend": BackendSuite,
    "launcher": LauncherSuite,
    "loss": LossSuite,
    "logger": LoggerSuite,
}
"""The suite of each kind."""


def check_plugin(kind: str, name: str, registry: Optional[Registry] = None,
                 **settings: Any) -> Dict[str, str]:
    """Run all checks of the suite of `kind` on one plugin.

    Args:
        kind: the kind, in any spelling.
        name: the name, as on the command line.
        registry: where it is looked up; that of the process when not given.
        settings: attributes of the suite (`input_size=64`, `data_dir=...`, `exclude={...}`).

    Returns:
        For each check "passed", "skipped: reason", or the error in one line.

    Raises:
        UnknownNameError: no plugin provides it.
        PluginError: the name is ambiguous or its record incompatible.
    """
    used = registry or registries.registry()
    kind = kind_named(kind).name
    used.get(kind, name)
    attributes = {"name": name, "registry": used, **settings}
    return run(type("Checked", (SUITES[kind],), attributes))


def check_distribution(name: str, registry: Optional[Registry] = None
                       ) -> Dict[str, Dict[str, str]]:
    """Check every plugin of an installed distribution.

    Args:
        name: of the distribution, or of one of its entry points.
        registry: where it is looked up; that of the process when not given.

    Returns:
        The results of `check_plugin` by ``kind/name``; an entry point that did not load has the
        check "loads" with its state and cause.

    Raises:
        UnknownNameError: no such distribution provides plugins.
    """
    used = registry or registries.registry()
    rows = used.rows()
    mine = [row for row in rows if row.provider.answers_to(name)]
    if not mine:
        suggestion = did_you_mean(name, {row.provider.distribution for row in rows})
        raise UnknownNameError(f"there is no installed plugin distribution {name!r}",
                               "; ".join(filter(None, (suggestion,
                                                       "'ipucnn list-plugins' lists all"))))
    return {
        title_of(row, mine, used) if row.spec else
        f"{row.kind or 'entry point'}/{row.provider.entry_point}":
        check_row(row, lambda kind, name, _: check_plugin(kind, name, used)) for row in mine}


def check_row(row: Row, check: Callable[[str, str, PluginSpec], Dict[str, str]]
              ) -> Dict[str, str]:
    """Return the results of a row; of one that cannot be used, those of the check "loads".

    Args:
        row: an entry point, or one of its records.
        check: returns the results for a kind, a qualified name and a record.
    """
    if row.spec is None or row.state is registries.State.INCOMPATIBLE:
        return {"loads": f"{row.state.value}: {row.cause}"}
    try:
        return check(row.kind, f"{row.provider.distribution}:{row.name}", row.spec)
    except PluginError as error:  # two of its entry points provide the name
        return {"loads": str(error)}


def title_of(row: Row, rows: Sequence[Row], registry: Registry) -> str:
    """Return ``kind/name`` of a row, with its qualified name where another row has this name.

    Args:
        row: one of the rows.
        rows: the rows that it is distinguished from.
        registry: where they are from.
    """
    name = row.name
    if any((other.kind, other.name) == (row.kind, name) for other in rows if other is not row):
        name = (f"{row.provider.distribution}:{name}" if row.spec is None
                else registry.name_of(row.spec))
    return f"{row.kind or 'plugin'}/{name}"


def check_named(name: str, registry: Optional[Registry] = None) -> Dict[str, Dict[str, str]]:
    """Check a plugin given as ``kind:name``, or else a distribution.

    Args:
        name: ``model:tinynet``, ``model:distribution:tinynet`` or ``distribution``.
        registry: where it is looked up; that of the process when not given.

    Returns:
        The results of `check_plugin` by ``kind/name``.

    Raises:
        UsageError: an unknown kind, name or distribution.
    """
    kind, colon, bare = name.partition(":")
    if not colon:
        return check_distribution(name, registry)
    used = registry or registries.registry()
    spec = used.get(kind, bare)
    return {f"{kind_named(kind).name}/{spec.name}": check_plugin(kind, bare, used)}
