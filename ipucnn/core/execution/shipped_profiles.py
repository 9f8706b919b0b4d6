"""Adapts the options of a shipped profile to a machine without the devices it was written for."""

from __future__ import annotations

from dataclasses import replace
from typing import Collection, List, Sequence, TypeVar

from ipucnn.core.execution.offers import not_owned
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import any_usable, choose_backend
from ipucnn.core.names import flag_of
from ipucnn.core.options.composition import CommandOptions, default_of
from ipucnn.core.registry.registry import Registry

OptionsT = TypeVar("OptionsT", bound=CommandOptions)

FOR_ITS_DEVICES = ("replicas", "pipeline_splits", "device_iterations", "precision",
                   "recompute_mode", "recompute_checkpoints", "enable_recompute", "no_checkpoints")
"""Common options whose values in a profile are for its devices: their number, how the model is
divided among them, their arithmetic, how memory is saved, and a measurement that writes no
checkpoints."""


def fitted_to_machine(options: OptionsT, on_device: bool, registry: Registry,
                      without: Collection[str] = ()) -> OptionsT:
    """Return the options without those of a shipped profile that are for other backends.

    A profile's values are kept if the backend in use, or one that can be used here, has all of
    its options. Otherwise the options that the backend lacks are left out, and those of
    `FOR_ITS_DEVICES`. Options from elsewhere (the command line, a user's file) are never left out.

    Args:
        options: of a run or training.
        on_device: whether images are generated on the device.
        registry: where backends are looked up.
        without: backends that `--backend auto` skips.

    Raises:
        UnavailableError: no backend can be used.
    """
    plugins = options.plugins
    shape = [name for name in FOR_ITS_DEVICES if name in options.shipped
             and options.get(name) != default_of(type(options), name)]
    reduced = options.with_values(**{name: default_of(type(options), name) for name in shape})
    if plugins.shipped and not any_usable(options, _plan(options, on_device), registry, without):
        trial = replace(reduced, plugins=plugins.without(plugins.shipped))
        chosen = choose_backend(trial, _plan(trial, on_device), registry, without)
        lacking = [name for name in not_owned(options, chosen.spec, registry)
                   if name in plugins.shipped]
        reduced = replace(reduced, plugins=replace(
            plugins.without(lacking), left_out=(*plugins.left_out, *lacking)))
    if not reduced.plugins.left_out:
        return options
    return replace(reduced, left_out=(*options.left_out, *shape))


def left_out_notes(options: CommandOptions, further: Sequence[str] = ()) -> List[str]:
    """Return the note that names unused options of a shipped profile; none if all are used.

    Args:
        options: of the command.
        further: names of options that are left out for other reasons.
    """
    names = dict.fromkeys((*options.plugins.left_out, *options.left_out, *further))
    if not names:
        return []
    return [f"profile {options.get('config')!r} is used without what does not fit here: "
            + ", ".join(map(flag_of, names))]


def _plan(options: CommandOptions, on_device: bool) -> ExecutionPlan:
    plan: ExecutionPlan = options.plan(on_device)  # type: ignore[attr-defined]
    return plan
