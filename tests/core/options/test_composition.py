"""Options of commands: parts, flat names, and what is saved of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Tuple

import pytest
from option_values import COMPANIONS, other_value

from ipucnn.commands.reference import COMMANDS
from ipucnn.core.errors import UsageError
from ipucnn.core.names import key
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import (
    CommandOptions,
    PluginOptions,
    as_dict,
    changed,
    common_option,
    common_options,
    part,
    parts,
    settings,
)
from ipucnn.core.options.declaration import declared, option
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import registry
from ipucnn.inference.options import RunOptions
from ipucnn.training.options.train_options import TrainOptions

FORMER = json.loads((Path(__file__).parent / "former_options.json").read_text())
"""The options of every command when each listed all of its own, by flag, with their defaults."""

COMPOSED = {name: classes[-1] for name, classes in COMMANDS.items()}


@dataclasses.dataclass(frozen=True)
class Size:
    width: int = option(3, "Width.", minimum=1, names=("--breadth",))
    height: int = option(2, "Height.", minimum=1)

    def __post_init__(self):
        if self.width == self.height:
            raise UsageError("a square")


@dataclasses.dataclass(frozen=True)
class Paint:
    colours: Tuple[str, ...] = option(("red",), "Colours.")
    quiet: bool = option(False, "Say nothing.", switch=True)


@dataclasses.dataclass(frozen=True)
class Options(CommandOptions):
    size: Size = part(Size)
    paint: Paint = part(Paint)

    def __post_init__(self):
        if self.size.width == 9 and "blue" in self.paint.colours:
            raise UsageError("too much blue")


# -- parts ---------------------------------------------------------------------------------------


def test_parts_and_their_options_in_order():
    assert parts(Options) == {"size": Size, "paint": Paint}
    assert [item.name for item in common_options(Options)] == [
        "width", "height", "colours", "quiet"]
    assert common_option(Options, "--breadth").name == "width"
    assert common_option(Options, "depth") is None


def test_values_are_given_flat_and_read_from_parts():
    options = build(Options, {"breadth": 5, "colours": "blue green"})
    assert options.size == Size(5, 2)
    assert options.paint.colours == ("blue", "green")
    assert options.get("width") == 5
    assert Options() == build(Options)


def test_parts_and_the_whole_check_themselves():
    with pytest.raises(UsageError, match="a square"):
        build(Options, {"width": 2})
    with pytest.raises(UsageError, match="too much blue"):
        build(Options, {"width": 9, "colours": "blue"})
    with pytest.raises(UsageError, match="a square"):
        Options().with_values(width=2)


def test_other_values_are_given_flat_too():
    options = Options().with_values(width=2, height=7, colours=("blue",))
    assert options == Options(size=Size(2, 7), paint=Paint(("blue",)))
    assert options.with_values() == options
    with pytest.raises(KeyError):
        options.with_values(depth=2)


def test_what_differs_and_what_is_saved():
    options = build(Options, {"width": 4, "quiet": True})
    assert [item.name for item in changed(options)] == ["width", "quiet"]
    assert options.as_dict() == {"width": 4, "height": 2, "colours": ["red"]}
    assert {name: value for name, (_, value) in settings(options).items()} == {
        "width": 4, "height": 2, "colours": ("red",), "quiet": True}


def test_an_unknown_option_of_a_command_without_plugins():
    with pytest.raises(UsageError, match="unknown option 'widht'") as caught:
        build(Options, {"widht": 4})
    assert "did you mean 'width'" in caught.value.hint


def test_options_of_plugins_by_name():
    sgd = registry().options_class(registry().get("optimizer", "sgd"))
    step = registry().options_class(registry().get("lr-schedule", "step"))
    plugins = PluginOptions({("optimizer", "sgd"): sgd(momentum=0.5),
                             ("lr-schedule", "step"): step(lr_epoch_decay=(3.0,))},
                            {"device": "cpu"})
    assert plugins.of("optimizer", "sgd").momentum == 0.5
    assert plugins.of("optimizer", "adam") is None
    assert (plugins.value("momentum"), plugins.value("device")) == (0.5, "cpu")
    assert plugins.value("beta1") is None
    saved = plugins.as_dict()
    assert (saved["momentum"], saved["lr_epoch_decay"], saved["device"]) == (0.5, [3.0], "cpu")
    assert "momentum" not in plugins.as_dict(without=("optimizer",))
    assert "device" not in plugins.as_dict(without=("backend",))


# -- every command -------------------------------------------------------------------------------


def _owned(options_class):
    """Every option of built-in plugins that a command takes, with the owner."""
    job = getattr(options_class, "job", "")
    for owner in builtin_owners(getattr(options_class, "kinds", ()), registry()):
        for item in declared(owner.options):
            if owner.option(item.name, job):
                yield owner, item


def _round_trip(options_class, given):
    options = build(options_class, given)
    saved = as_dict(options)
    again = build(options_class, json.loads(json.dumps(saved)))
    assert as_dict(again) == saved
    assert not {item.name for item in common_options(options_class) if item.option.switch} & set(
        saved)
    assert again == options
    return saved


@pytest.mark.parametrize("command", COMPOSED)
def test_every_common_option_is_saved_and_built_again(command):
    options_class = COMPOSED[command]
    needed = {"target": "shards"} if command == "data convert" else {}
    for item in common_options(options_class):
        if item.option.switch or (command, item.name) == ("export", "checkpoint_path"):
            continue  # the latter is saved as `weights`
        given = {**needed, **{
            name: value for name, value in COMPANIONS.get(item.name, {}).items()
            if common_option(options_class, name)}, item.name: other_value(item)}
        if command == "data bench" and item.name in ("precision", "backend"):
            given["model"] = "resnet18"
        saved = _round_trip(options_class, given)
        value = given[item.name]
        assert saved[item.name] == (list(value) if isinstance(value, tuple) else value)
        assert saved[item.name] != item.default


@pytest.mark.parametrize("command", [name for name, options_class in COMPOSED.items()
                                     if getattr(options_class, "kinds", ())])
def test_every_option_of_a_plugin_is_saved_and_built_again(command):
    options_class = COMPOSED[command]
    selectors = {item.name for item in common_options(options_class)}
    needed = {"target": "shards"} if command == "data convert" else {}
    if command == "data bench":
        needed["model"] = "resnet18"
    seen = 0
    for owner, item in _owned(options_class):
        selector = owner.kind.selector
        name = owner.spec.name
        given = {**needed, **COMPANIONS.get(item.name, {}),
                 item.name: other_value(item)}
        if selector in selectors:
            given[selector] = (name,) if common_option(options_class, selector).many else name
        if item.option.needs and common_option(options_class, item.option.needs):
            given[item.option.needs] = "p.csv"
        saved = _round_trip(options_class, given)
        value = given[item.name]
        assert saved[item.name] == (list(value) if isinstance(value, tuple) else value), item.flag
        seen += 1
    assert seen


CHANGED = {("export", "ema"), ("run", "precision"), *(
    (command, flag) for command in ("train", "restore") for flag in (
        "batch-size", "micro-batch-size", "data", "precision", "epoch", "epochs", "lr",
        "learning-rate", "momentum", "lr-schedule", "lr-scheduler", "warmup-epoch",
        "warmup-epochs", "validation-mode", "validation-frequency"))}
"""Options with another default than in the former program; docs/migrating.md lists them."""


@pytest.mark.parametrize("command", FORMER)
def test_every_option_that_there_was_is_still_there_with_its_default(command):
    for flag, default in FORMER[command].items():
        found = [item for options_class in COMMANDS[command]
                 for item in (common_option(options_class, flag), *(
                     owned for owner, owned in _owned(options_class)
                     if owner.option(flag) is owned)) if item is not None]
        assert found, flag
        if command == "validate":
            continue  # its defaults are what was trained
        if (command, flag) in CHANGED:
            continue
        for item in found:
            assert (list(item.default) if isinstance(item.default, tuple) else item.default
                    ) == default, flag


def test_an_option_of_several_plugins_has_one_type_and_default():
    """Also without knowing the plugin, its value can be checked, saved and compared."""
    first = {}
    for owner in builtin_owners(KINDS, registry()):
        for item in declared(owner.options):
            for flag in item.flags:
                known = first.setdefault(key(flag), (owner, item))[1]
                assert (known.name, known.default, known.type, known.many) == (
                    item.name, item.default, item.type, item.many), (flag, owner.spec.name)


def test_no_built_in_option_has_the_name_of_a_common_one():
    for options_class in COMPOSED.values():
        for _, item in _owned(options_class):
            for flag in item.flags:
                assert common_option(options_class, flag) is None, (options_class, flag)


def test_options_are_read_from_classes_once():
    assert common_options(RunOptions) is common_options(RunOptions)
    assert common_options(TrainOptions) is common_options(TrainOptions)
