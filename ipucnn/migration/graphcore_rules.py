"""Translations of single options of Graphcore's applications, by the names that their table uses.

A rule of an option gets the translation in progress and the option as given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from ipucnn.core.errors import IpucnnError
from ipucnn.core.names import key
from ipucnn.core.registry.registry import registry
from ipucnn.migration.draft import Draft, Outcome
from ipucnn.migration.module_names import kept_here, module_here
from ipucnn.migration.old_arguments import Argument
from ipucnn.migration.shell_line import expands


def positional(draft: Draft, argument: Argument) -> Outcome:
    """Take the value of an option as the argument of the command."""
    draft.positional += argument.values
    return Outcome([], why=f"{argument.value} is the argument of '{draft.command}'")


def profile(draft: Draft, argument: Argument) -> Outcome:
    """Name the profile that the script's one became."""
    from ipucnn.core.options.profiles import load

    name = argument.value
    if expands(name):
        return Outcome(["--config", name])
    try:
        load(name, draft.command)
    except IpucnnError:
        draft.problems.append(f"no profile {name!r} comes with ipucnn: 'ipucnn migrate --config "
                              "configs.yml' converts your own")
        return Outcome(["--config", key(name) + ".yaml"], "a profile of yours: a file")
    return Outcome(["--config", name], "a profile that comes with ipucnn")


def averaging(draft: Draft, argument: Argument) -> Outcome:
    """Drop the strategy that averages nothing."""
    if argument.value == "none":
        return Outcome(None, "averaging with the strategy 'none' did nothing")
    return Outcome([argument.to, *argument.values])


def output(draft: Draft, argument: Argument) -> Outcome:
    """Keep the name of the folder."""
    return Outcome(["--output", *argument.values])


def checkpoint_folder(draft: Draft, argument: Argument) -> Outcome:
    """Write no checkpoints where the folder is empty, which is the script's default."""
    if not argument.value:
        return Outcome(["--no-checkpoints"], "an empty folder wrote no checkpoints")
    return Outcome([argument.to, *argument.values])


def imagenet_folder(draft: Draft, argument: Argument) -> Outcome:
    """Drop the folder of ImageNet where another dataset is selected."""
    data = draft.old("data", "cifar10")
    if expands(data) or data == "imagenet" or _of_profile(draft, ("data",)):
        return Outcome([argument.to, *argument.values])
    return Outcome(None, f"it had no effect with '--data {data}'")


def folder_of(draft: Draft, argument: Argument) -> Outcome:
    """Name the folder of a file."""
    return Outcome([argument.to, str(Path(argument.value).parent)])


def modules(draft: Draft, argument: Argument) -> Outcome:
    """Name modules of networks that the last releases built otherwise."""
    names = [module_here(_model(draft), name) for name in argument.values]
    return Outcome([argument.to, *names], "" if names == list(argument.values)
                   else "the network has other names of modules here")


def kept_modules(draft: Draft, argument: Argument) -> Outcome:
    """Name what recomputation keeps; a pipeline always recomputed."""
    if not argument.values:
        return Outcome(None, "it has no value")
    words = [argument.to, *(kept_here(_model(draft), name) for name in argument.values)]
    if draft.given("enable-recompute") or draft.given("enable-pipeline-recompute") \
            or draft.old("recompute-mode", "none") != "none":
        return Outcome(words)
    if draft.given("pipeline-splits"):
        return Outcome([*words, "--recompute-mode", "auto"], "a pipeline always recomputed")
    return Outcome(None, "nothing is recomputed without a mode")


def _model(draft: Draft) -> str:
    return key(draft.old("model"))


def of_optimizer(draft: Draft, argument: Argument) -> Outcome:
    """Drop an option that the selected optimizer ignored."""
    return _of_selected(draft, argument, "optimizer", draft.old("optimizer", "sgd"))


def of_schedule(draft: Draft, argument: Argument) -> Outcome:
    """Drop an option that the selected schedule ignored."""
    return _of_selected(draft, argument, "lr-schedule", draft.old("lr-schedule", "step"))


def of_norm_layer(draft: Draft, argument: Argument) -> Outcome:
    """Drop an option that the selected norm layer ignored."""
    default = "group" if draft.script.name == "resnet_main.py" else "batch"
    return _of_selected(draft, argument, "norm-layer",
                        draft.old("normlayer", draft.old("norm-type", default)))


def _of_selected(draft: Draft, argument: Argument, kind: str, selected: str) -> Outcome:
    """Drop an option that belongs to another plugin than the selected one.

    Args:
        draft: the translation.
        argument: the option.
        kind: of the plugin.
        selected: the name of the selected plugin.
    """
    from ipucnn.core.options.owners import builtin_owners

    kept = Outcome([argument.to, *argument.values]) if argument.values \
        else Outcome(None, "it has no value")
    selectors = ("normlayer", "norm-type") if kind == "norm-layer" else (kind,)
    if expands(selected) or _of_profile(draft, selectors):
        return kept
    try:
        name = registry().get(kind, selected).name
    except IpucnnError:
        return kept
    if any(owner.spec.name == name and owner.option(argument.to)
           for owner in builtin_owners([kind], registry())):
        return kept
    given = next(filter(draft.given, selectors), next(
        name for name in selectors if name in draft.script.options))
    return Outcome(None, f"it had no effect with '--{given} {selected}'")


def _of_profile(draft: Draft, names: Sequence[str]) -> bool:
    """Return whether a profile may have the value of an option that is not given.

    Args:
        draft: the translation.
        names: spellings of the option.
    """
    named = draft.given("config") or "--config" in draft.script.fixed
    return named and not any(map(draft.given, names))


def rebatched(draft: Draft, argument: Argument) -> Outcome:
    """Select the mode of the loader to which a rebatch size belongs."""
    return Outcome([argument.to, *argument.values, "--dataloader-mode", "rebatched"],
                   "the mode of the old loader, of backend poptorch") \
        if argument.values else Outcome(None, "it has no value")


def imagenet_size(draft: Draft, argument: Argument) -> Outcome:
    """Name the ImageNet model with a number of layers."""
    size = argument.value
    return Outcome(["--model", f"resnext{size[1:]}" if size.startswith("x") else f"resnet{size}"])


def synthetic_mode(draft: Draft, argument: Argument) -> Outcome:
    """Choose the command by the mode of the benchmark."""
    if argument.value == "train":
        draft.command = "train"
        return Outcome([], "'ipucnn train'")
    return Outcome([], "'ipucnn run'")


def synthetic_recompute(draft: Draft, argument: Argument) -> Outcome:
    """Recompute in trainings; the mode may follow."""
    if draft.old("mode") != "train":
        return Outcome(None, "inference keeps no activations")
    return Outcome([argument.to])


def stages(draft: Draft, argument: Argument) -> Outcome:
    """Cut a model into a number of stages."""
    return Outcome([argument.to, f"auto:{argument.value}"])


def generated_data(draft: Draft, argument: Argument) -> Outcome:
    """Send data that the host makes."""
    return Outcome(["--data", "generated"])
