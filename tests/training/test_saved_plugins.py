"""Checkpoints of trainings with plugins that are not installed any more."""

from __future__ import annotations

import os

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.errors import UsageError
from ipucnn.core.registry.registry import registry, use
from ipucnn.training.saved_plugins import without_unusable
from ipucnn.training.stored import load_stored

PLUGIN = """
from dataclasses import dataclass
import ipucnn
from ipucnn.plugin import Logger

class Quiet(Logger):
    def __init__(self, options):
        pass

    def start(self, run):
        pass

    def row(self, row):
        pass

@dataclass(frozen=True)
class LoggerOptions:
    quiet_project: str = ipucnn.option("none", "Where to.")

@dataclass(frozen=True)
class ScheduleOptions:
    lr_decay: float = ipucnn.option(0.25, "Also an option of a built-in schedule.")

@ipucnn.hookimpl
def ipucnn_loggers():
    return [ipucnn.LoggerSpec(name="quiet", summary="s", target=Quiet, options=LoggerOptions)]

@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="flat", summary="s", target=lambda epoch, options: 1.0,
                                options=ScheduleOptions)]
"""
TRAINING = ("--model", "resnet8-cifar", "--data", "shapes", "--input-size", "32", "--precision",
            "full", "--batch-size", "4", "--iterations", "1", "--epoch", "1", "--progress", "off",
            "--no-validation")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder of checkpoints of a training with a logger and a schedule of a third party."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "extra.py").write_text(PLUGIN)
    before = os.getcwd()
    os.chdir(str(folder))
    try:
        assert invoke(["train", "--plugin", "extra.py", *TRAINING, "--logger", "files", "quiet",
                       "--quiet-project", "p", "--lr-schedule", "flat", "--lr-decay", "0.125",
                       "--checkpoint-path", "saved"]) == 0
    finally:
        os.chdir(before)
        use(None)
    return folder / "saved"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_an_uninstalled_plugin_is_named_with_the_option_that_replaces_it(checkpoints, cli):
    done = cli("restore", "--checkpoint-path", checkpoints)
    assert done.code == 2
    assert ("the lr-schedule 'flat' that is saved in the checkpoint cannot be used: unknown "
            "lr-schedule 'flat'") in done.err
    assert "or replace it with '--lr-schedule NAME'" in done.err
    done = cli("restore", "--checkpoint-path", checkpoints, "--lr-schedule", "cosine")
    assert done.code == 2
    assert "or replace it with '--logger NAME'" in done.err


def test_an_uninstalled_plugin_is_replaced(checkpoints, cli, tmp_path):
    done = cli("restore", "--checkpoint-path", checkpoints, "--checkpoint-output-dir", "next",
               "--logger", "files", "--lr-schedule", "step", "--epoch", "2", "--progress", "off")
    assert done.code == 0, done.err
    assert "logger: files quiet -> files" in done.err
    assert "lr-schedule: flat -> step" in done.err
    (path,) = tmp_path.glob("next/*_2.pt")
    options = load_stored(path).options
    assert (options["logger"], options["lr_schedule"]) == (["files"], "step")
    assert "quiet_project" not in options
    assert options["lr_decay"] != 0.125  # that of the other schedule


def test_the_plugin_of_a_restored_training_may_be_named(checkpoints, cli):
    done = cli("restore", "--plugin", checkpoints.parent / "extra.py", "--checkpoint-path",
               checkpoints, "--checkpoint-output-dir", "next", "--epoch", "2", "--progress", "off")
    assert done.code == 0, done.err
    assert "logger:" not in done.err
    assert "lr-schedule:" not in done.err


def test_validation_and_averages_need_no_plugins_of_the_training(checkpoints, cli):
    done = cli("validate", "--checkpoint-path", checkpoints, "--progress", "off")
    assert done.code == 0, done.err
    done = cli("average", "--checkpoint-path", checkpoints, "--output", "average.pt",
               "--reestimate-batch-norm", "8")
    assert done.code == 0, done.err


@pytest.mark.parametrize(("saved", "message", "hint"), [
    ({"optimizer": "gone"}, "the optimizer 'gone' that is saved in the checkpoint cannot be used",
     "install its plugin, or name its file with '--plugin'; "),
    ({"backend": "gone"}, "the backend 'gone' that is saved in the checkpoint cannot be used",
     "or replace it with '--backend NAME'; "),
])
def test_what_is_not_replaced_is_refused(saved, message, hint):
    with pytest.raises(UsageError) as caught:
        without_unusable(saved, registry(), {"optimizer": "sgd"}, ["backend"])
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_options_of_other_plugins_are_kept():
    saved = {"backend": "gone", "gone_depth": 3, "backend.gone_width": 4, "optimizer": "sgd",
             "momentum": 0.5, "loss": "lost", "lost_shape": 1, "lr": 0.5}
    assert without_unusable(saved, registry(), {"backend": "torch"}, ["backend"], ["loss"]) == {
        "backend": "torch", "optimizer": "sgd", "momentum": 0.5, "loss": "cross-entropy",
        "lr": 0.5}
