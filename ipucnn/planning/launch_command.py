"""Builds the command that launches a training on several instances, by the launcher's interface."""

from __future__ import annotations

import shlex
from typing import Any, List, Mapping

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import launcher_named
from ipucnn.core.names import flag_of
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.records import LauncherSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.planning.options import IPU_LAUNCHER, POPRUN, LaunchProfileOptions
from ipucnn.planning.training_plan import TrainingPlan
from ipucnn.training.options.train_options import TrainOptions


def command_of(made: TrainingPlan, launcher: str, own: Any, given: Mapping[str, Any],
               registry: Registry) -> str:
    """Return one line for a shell.

    Args:
        made: the training, and the system to launch it on.
        launcher: name of the launcher.
        own: an instance of its options class; its defaults when None.
        given: the training options that the user set, as text, by name.
        registry: where the launcher and the plugins are looked up.

    Raises:
        UsageError: the hosts are not named, IPUs cannot be allocated for this, or the launcher
            prints no command.
    """
    plan, launch = made.plan, made.launch
    spec = registry.get_typed(LauncherSpec, launcher)
    flags = {}
    if spec.name == IPU_LAUNCHER:
        if plan.devices != made.ipus:
            raise UsageError(f"{made.need} need {plan.devices} IPUs, and IPUs are only allocated "
                             "in powers of two",
                             "choose replicas and pipeline splits whose product is 1, 2, 4, 8 ...")
        flags = {item.flag: getattr(launch, item.name) for item in declared(LaunchProfileOptions)
                 if item.option.group == POPRUN and getattr(launch, item.name) is not None}
    engine = launcher_named(launcher, own)
    if launch.host_count > (engine.hosts() or 1) and not launch.host_names:
        raise UsageError(f"{launch.system} has {launch.host_count} hosts, and none is named",
                         "name them with '--hosts HOST1 HOST2 ...'")
    words = engine.command(plan, launch.host_names, flags)
    if not words:
        raise UsageError(f"launcher {spec.name!r} prints no command",
                         "its plugin has no method 'command'; other launchers: 'ipucnn "
                         "list-plugins launchers'")
    given = {**given}
    if "pipeline_splits" in given:  # as found by 'auto:4' for the device of this plan
        given["pipeline_splits"] = list(plan.pipeline_splits)
    named = [] if registry.is_builtin("launcher", spec.name) else [f"--launcher={spec.name}"]
    return " ".join(map(shlex.quote, [*words, "ipucnn", *_plugins(registry), "train",
                                      *train_words(given), *named]))


def train_words(given: Mapping[str, Any]) -> List[str]:
    """Return training options as command-line arguments, in the order of their declaration."""
    order = [item.name for item in common_options(TrainOptions)]
    names = sorted(given, key=lambda name: order.index(name) if name in order else len(order))
    return [word for name in names for word in _words(name, given[name])]


def _words(name: str, value: Any) -> List[str]:
    flag = flag_of(name)
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(text.startswith("-") for text in values):  # it would be parsed as an option
        return [f"{flag}={text}" for text in values]
    return [flag, *values]


def _plugins(registry: Registry) -> List[str]:
    """Return plugin options, written out because other hosts lack this shell's variables."""
    settings = registry.settings
    words = [f"--plugin={extra}" for extra in settings.extra]
    if settings.disable_all:
        return [*words, "--no-plugins"]
    disabled = ",".join(sorted(settings.disabled))
    return [*words, f"--no-plugins={disabled}"] if disabled else words
