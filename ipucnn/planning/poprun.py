"""The `poprun` command that launches a training on several instances."""

from __future__ import annotations

import shlex
from typing import Any, List, Mapping

from ipucnn.core.errors import UsageError
from ipucnn.core.options import LaunchOptions, TrainOptions
from ipucnn.core.options.declaration import Declared, declared
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.planning.options import POPRUN
from ipucnn.planning.plan import TrainingPlan


def poprun_command(made: TrainingPlan, given: Mapping[str, Any], settings: PluginSettings) -> str:
    """Return one line for a shell.

    Args:
        made: the training, and what it is launched on.
        given: the options of the training that the user gave, as text, by name.
        settings: which plugins the training is to have.

    Raises:
        UsageError: the hosts are not named, or IPUs cannot be given out for this.
    """
    plan, launch = made.plan, made.launch
    if plan.devices != made.ipus:
        raise UsageError(f"{made.need} need {plan.devices} IPUs, and IPUs are only given out in "
                         "powers of two",
                         "choose replicas and pipeline splits whose product is 1, 2, 4, 8 ...")
    if launch.host_count > 1 and not launch.host_names:
        raise UsageError(f"{launch.system} has {launch.host_count} hosts, and none is named",
                         "name them with '--hosts HOST1 HOST2 ...'")
    words = ["poprun", f"--num-instances={plan.instances}", f"--num-replicas={plan.replicas}",
             f"--ipus-per-replica={plan.stages}"]
    if launch.host_names:
        words.append("--host=" + ",".join(launch.host_names))
    words += [f"{item.flag}={_text(value)}" for item in declared(LaunchOptions)
              if item.option.group == POPRUN
              for value in [getattr(launch, item.name)] if value is not None]
    return " ".join(map(shlex.quote, [*words, "ipucnn", *_plugins(settings), "train",
                                      *train_words(given)]))


def train_words(given: Mapping[str, Any]) -> List[str]:
    """Return options of a training as arguments of a command, as the user gave them."""
    return [word for item in declared(TrainOptions) if item.name in given
            for word in _words(item, given[item.name])]


def _words(item: Declared, value: Any) -> List[str]:
    if item.boolean:
        return [item.flag if value else f"--no-{item.flag[2:]}"]
    values = value if item.many else [value]
    if any(text.startswith("-") for text in values):  # it would be taken for an option
        return [f"{item.flag}={text}" for text in values]
    return [item.flag, *values]


def _plugins(settings: PluginSettings) -> List[str]:
    """Other hosts have none of this shell's variables, so that what they say is written out."""
    words = [f"--plugin={extra}" for extra in settings.extra]
    if settings.disable_all:
        return [*words, "--no-plugins"]
    disabled = ",".join(sorted(settings.disabled))
    return [*words, f"--no-plugins={disabled}"] if disabled else words


def _text(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
