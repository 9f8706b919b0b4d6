"""The error for a name that no usable plugin provides."""

from __future__ import annotations

from typing import Sequence, Tuple

from ipucnn.core.errors import PluginError, UnknownNameError, UsageError
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.registry.discovery import Provider
from ipucnn.core.registry.loading import Problem, State, describe
from ipucnn.core.registry.states import Records


def not_found(name: str, records: Records,
              problems: Sequence[Tuple[Provider, Problem]]) -> UsageError:
    """Return the error for a name without a usable record.

    Args:
        name: may begin with a distribution, `distribution:name`.
        records: of the kind, when all plugins that may provide it are loaded.
        problems: of these plugins.
    """
    kind = records.kind
    distribution, _, bare = name.rpartition(":")
    for provider, problem in problems:
        if problem.name and key(problem.name) == key(bare) and (
                not distribution or provider.answers_to(distribution)):
            return PluginError(f"{kind.name} {problem.name!r} of {provider.label} is "
                               f"{problem.state.value}: {problem.cause}", problem.remedy)
    hints = []
    installed = {record.provider for record in records.all} | {p for p, _ in problems}
    if distribution and not any(p.answers_to(distribution) for p in installed):
        close = did_you_mean(distribution, {p.distribution for p in installed})
        hints.append(f"there is no {kind.name} plugin {distribution!r}"
                     + (f", {close}" if close else ""))
    close_names = records.close_to(bare)
    if close_names:
        hints.append("did you mean " + ", ".join(map(repr, close_names)) + "?")
    broken = {provider: problem for provider, problem in problems if not problem.name}
    for provider, problem in list(broken.items())[:3]:
        verb = "failed to load" if problem.state is State.FAILED else "is disabled"
        hints.append(f"{describe(provider)}, which may provide it, {verb}: {problem.cause}")
    if len(broken) > 3:
        hints.append(f"{len(broken) - 3} more plugins could not be loaded")
    hints.append(f"'ipucnn list-plugins {kind.plural}' lists all")
    return UnknownNameError(f"unknown {kind.name} {name!r}", "; ".join(hints))
