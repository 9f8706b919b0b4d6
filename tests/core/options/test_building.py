"""Options built of sources: defaults, profiles, saved values and the command line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from owner_plugins import LION

from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.options.building import Source, build, common_values
from ipucnn.core.options.composition import changed
from ipucnn.core.options.declaration import option
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.options import RunOptions
from ipucnn.training.options.train_options import TrainOptions


@dataclass(frozen=True)
class Plain:
    count: int = option(1, "How many.", names=("--number",))


def test_later_sources_win_in_any_spelling():
    options = build(TrainOptions, {"lr": 1, "batch-size": 2, "momentum": 0.1},
                    {"learning_rate": 2}, {"--lr": 3, "micro_batch_size": 4, "momentum": 0.2})
    assert (options.optimisation.lr, options.execution.batch_size) == (3.0, 4)
    assert options.plugins.value("momentum") == 0.2


def test_a_source_may_select_the_plugin_of_an_option_in_another():
    options = build(TrainOptions, {"beta2": 0.5}, {"optimizer": "lamb"}, {"beta1": 0.25})
    lamb = options.plugins.of("optimizer", "lamb")
    assert (lamb.beta1, lamb.beta2) == (0.25, 0.5)


def test_without_anything_everything_has_its_default():
    options = build(TrainOptions)
    assert changed(options) == []
    assert all(value == item.default for _, item, value in options.plugins.declared())
    assert {kind for kind, _ in options.plugins.owned} >= {"optimizer", "loss", "norm-layer"}


@pytest.mark.parametrize(("given", "message"), [
    ({"lr": 1, "learning_rate": 1}, "'learning_rate' and 'lr' are spellings of one option"),
    ({"batch_size": 1, "--batch-size": 1}, "'--batch-size' and 'batch_size' are spellings"),
])
def test_two_spellings_of_a_common_option_in_one_source_are_refused(given, message):
    origins = dict.fromkeys(given, "p.yaml, line 9")
    with pytest.raises(UsageError) as caught:
        build(TrainOptions, Source(given, origins))
    assert message in caught.value.message
    assert caught.value.message.endswith("(p.yaml, line 9)")


@pytest.mark.parametrize(("given", "message"), [
    ({"batch_size": 0}, "option '--batch-size': 0 is too small (p.yaml, line 9)"),
    ({"momentum": -1}, "option '--momentum': -1 is too small (p.yaml, line 9)"),
    ({"xyzzy": 0}, "unknown option 'xyzzy' (p.yaml, line 9)"),
    ({"beta1": 0.5}, "; this run uses sgd (p.yaml, line 9)"),
])
def test_what_is_wrong_is_blamed_on_its_line(given, message):
    origins = dict.fromkeys(given, "p.yaml, line 9")
    with pytest.raises(UsageError) as caught:
        build(TrainOptions, Source(given, origins))
    assert message in caught.value.message


def test_unknown_plugins_are_named():
    with pytest.raises(UnknownNameError, match="unknown optimizer 'sgdd'"):
        build(TrainOptions, {"optimizer": "sgdd"})
    with pytest.raises(UnknownNameError, match="unknown backend 'pytorhc'"):
        build(RunOptions, {"backend": "pytorhc"})


def test_one_plain_dataclass_of_options():
    assert build(Plain, {"count": 2}, {"number": "3"}) == Plain(3)
    with pytest.raises(UsageError, match="unknown option 'cuont'") as caught:
        build(Plain, {"cuont": 2})
    assert "did you mean 'count'" in caught.value.hint


def test_values_of_common_options_alone():
    given = {"lr": "0.5", "momentum": 3, "mystery": None}
    assert common_values(TrainOptions, given) == {"lr": 0.5}
    with pytest.raises(UsageError, match="is not a number"):
        common_values(TrainOptions, {"lr": "much"})


def test_names_are_looked_up_in_the_registry_given(tmp_path):
    plugin = tmp_path / "zoo.py"
    plugin.write_text(LION)
    local = Registry(PluginSettings(extra=(str(plugin),)))
    options = build(TrainOptions, {"optimizer": "lion", "sharpness": 7}, registry=local)
    assert options.plugins.of("optimizer", "lion").sharpness == 7
    with pytest.raises(UnknownNameError):
        build(TrainOptions, {"optimizer": "lion"})


def test_a_profile_holds_options_of_plugins_in_any_spelling(fake_distribution, tmp_path):
    fake_distribution("zoo", {"zoo_plugin.py": LION}, {"zoo": "zoo_plugin"})
    path = tmp_path / "mine.yaml"
    path.write_text("optimizer: lion\nedge: 5\noptimizer.beta2: 0.5\nmarks: [a, b]\n"
                    "lr_schedule: step\nlr_decay: 1e-1\n")
    options = resolve(TrainOptions, {"config": str(path), "beta2": "0.25"}, "train")
    lion = options.plugins.of("optimizer", "lion")
    assert (lion.sharpness, lion.beta2, lion.marks) == (5, 0.25, ("a", "b"))
    assert options.plugins.value("lr_decay") == 0.1
    path.write_text("optimizer: lion\n\nbeta2: 5\n")
    with pytest.raises(UsageError, match=r"5 is too large \(mine.yaml, line 3\)"):
        resolve(TrainOptions, {"config": str(path)}, "train")
    path.write_text("beta2: 0.5\n")
    assert resolve(TrainOptions, {"config": str(path), "optimizer": "lion"},
                   "train").plugins.value("beta2") == 0.5
