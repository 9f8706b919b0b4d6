"""Builds the `poprun` command that launches a training on several instances."""

from __future__ import annotations

import shlex
from typing import Any, List, Mapping

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import launcher_named
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.planning.options import POPRUN, LaunchOptions
from ipucnn.planning.training_plan import TrainingPlan
from ipucnn.training.options import TrainOptions


def poprun_command(made: TrainingPlan, given: Mapping[str, Any], settings: PluginSettings) -> str:
    """Return one line for a shell.

    Args:
        made: the training, and the system to launch it on.
        given: the training options that the user set, as text, by name.
        settings: plugin settings for the training.

    Raises:
        UsageError: the hosts are not named, or IPUs cannot be allocated for this.
    """
    plan, launch = made.plan, made.launch
    if plan.devices != made.ipus:
        raise UsageError(f"{made.need} need {plan.devices} IPUs, and IPUs are only given out in "
                         "powers of two",
                         "choose replicas and pipeline splits whose product is 1, 2, 4, 8 ...")
    if launch.host_count > 1 and not launch.host_names:
        raise UsageError(f"{launch.system} has {launch.host_count} hosts, and none is named",
                         "name them with '--hosts HOST1 HOST2 ...'")
    flags = {item.flag: getattr(launch, item.name) for item in declared(LaunchOptions)
             if item.option.group == POPRUN and getattr(launch, item.name) is not None}
    words = launcher_named("poprun").command(plan, launch.host_names, flags)
    return " ".join(map(shlex.quote, [*words, "ipucnn", *_plugins(settings), "train",
                                      *train_words(given)]))


def train_words(given: Mapping[str, Any]) -> List[str]:
    """Return training options as command-line arguments, in the order of their declaration."""
    order = [item.name for item in common_options(TrainOptions)]
    names = sorted(given, key=lambda name: order.index(name) if name in order else len(order))
    return [word for name in names for word in _words(name, given[name])]


def _words(name: str, value: Any) -> List[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(text.startswith("-") for text in values):  # it would be parsed as an option
        return [f"{flag}={text}" for text in values]
    return [flag, *values]


def _plugins(settings: PluginSettings) -> List[str]:
    """Return plugin options, written out because other hosts lack this shell's variables."""
    words = [f"--plugin={extra}" for extra in settings.extra]
    if settings.disable_all:
        return [*words, "--no-plugins"]
    disabled = ",".join(sorted(settings.disabled))
    return [*words, f"--no-plugins={disabled}"] if disabled else words
