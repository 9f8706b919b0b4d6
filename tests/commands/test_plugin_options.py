"""Options of a plugin file on the command line."""

from __future__ import annotations

import pytest

SOURCE = """
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class Options:
    tiles: int = ipucnn.option(18, "Number of tiles.", choices=(18, 34, 50))
    {further}

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="mine", summary="s", target=len, options=Options)]
"""


@pytest.fixture
def mine(cli, tmp_path):
    """Run a command with an optimizer that has options."""
    def run(*words, further=""):
        path = tmp_path / "mine.py"
        path.write_text(SOURCE.format(further=further))
        return cli("--plugin", path, *words)

    return run


def test_choices_may_be_numbers(mine):
    done = mine("train", "--optimizer", "mine", "--help")
    assert done.code == 0, done.err
    assert "--tiles 18|34|50" in done.out
    done = mine("train", "--optimizer", "mine", "--tiles", "20")
    assert done.code == 2
    assert "option '--tiles': '20' is not one of its values" in done.err
    assert "values: 18, 34, 50" in done.err


@pytest.mark.parametrize("name", ["verbose", "quiet", "traceback", "plugin", "help", "help_all",
                                  "launcher", "images", "callbacks"])
def test_a_global_switch_is_no_option_of_a_plugin(mine, name):
    further = f'{name}: int = ipucnn.option(1, "A number.")'
    done = mine("train", "--optimizer", "mine", further=further)
    assert done.code == 2
    flag = name.replace("_", "-")
    assert f"its option '--{flag}' is a common one ('--{flag}')" in done.err


@pytest.mark.parametrize(("further", "cause"), [
    ('decay: float = ipucnn.option(1.0, "d", names=("--mine-decay"))',
     "an option's 'names' is '--mine-decay', expected a tuple such as ('--mine-decay',)"),
    ("decay: tuple = ipucnn.option((), 'd')", "field 'decay' of Options is of type"),
])
def test_listings_show_what_no_command_accepts(mine, further, cause):
    listed = mine("list-plugins", "optimizers", "--json", further=further).out
    assert '"failed"' in listed
    assert cause in listed
    done = mine("train", "--optimizer", "mine", further=further)
    assert done.code == 2
    assert cause in done.err
    assert "this is a bug" not in done.err


def test_a_value_that_names_a_plugin_is_looked_up(mine):
    further = 'teacher: str = ipucnn.option("resnet18", "The larger model.", kind="model")'
    done = mine("train", "--optimizer", "mine", "--teacher", "resnet19", further=further)
    assert done.code == 2
    assert "option '--teacher': unknown model 'resnet19'" in done.err
    assert "did you mean 'resnet1" in done.err


@pytest.mark.parametrize("further", ['tail: int = ipucnn.option("long", "How long.")'])
def test_flags_of_a_broken_plugin_are_not_unknown(mine, further):
    done = mine("train", "--optimizer", "mine", "--tail", "3", further=further)
    assert done.code == 2
    assert "the options of 'mine' of plugin" in done.err
    assert "unknown option" not in done.err
    done = mine("train", "--optimizer", "yours", "--tail", "3", further=further)
    assert "unknown optimizer 'yours'" in done.err


@pytest.mark.parametrize(("attributes", "message"), [
    ("minimum='1'", "an option's 'minimum' is '1', expected a number"),
    ("maximum=True", "an option's 'maximum' is True, expected a number"),
    ("minimum=3, maximum=2", "an option's 'maximum' is 2, which is less than its smallest value"),
    ("idle='with decay'", "an option's 'idle' has 'with decay', expected 'without NAME'"),
    ("idle='without '", "an option's 'idle' has 'without ', expected 'without NAME'"),
    ("idle=(3,)", "an option's 'idle' has 3, expected 'without NAME'"),
])
def test_attributes_of_options_are_checked(mine, attributes, message):
    done = mine("train", "--optimizer", "mine",
                further=f"tail: int = ipucnn.option(2, 'How long.', {attributes})")
    assert done.code == 2
    assert message in done.err
