"""Checkpoints of trainings with plugins that are not installed any more."""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from pathlib import Path

import pytest
import torch

from ipucnn.__main__ import invoke
from ipucnn.core.errors import UsageError
from ipucnn.core.registry.registry import registry, use
from ipucnn.training.checkpoints.saved_plugins import without_unusable
from ipucnn.training.checkpoints.stored import load_stored

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


def test_an_installed_plugin_that_fails_need_not_be_installed(fake_distribution):
    source = """
import ipucnn

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="puma", summary="s", target="x:y", options="gone:Gone")]
"""
    fake_distribution("puma-dist", {"puma_plugin.py": source}, {"puma": "puma_plugin"})
    with pytest.raises(UsageError) as caught:
        without_unusable({"optimizer": "puma"}, registry(), {}, ["optimizer"])
    assert "the optimizer 'puma' that is saved in the checkpoint cannot be used: " \
        in caught.value.message
    assert "No module named 'gone'" in caught.value.message
    assert caught.value.hint.startswith("replace it with '--optimizer NAME'; upgrade it, ")


def test_options_of_other_plugins_are_kept():
    saved = {"backend": "gone", "gone_depth": 3, "backend.gone_width": 4, "optimizer": "sgd",
             "momentum": 0.5, "loss": "lost", "lost_shape": 1, "lr": 0.5}
    assert without_unusable(saved, registry(), {"backend": "torch"}, ["backend"], ["loss"]) == {
        "backend": "torch", "optimizer": "sgd", "momentum": 0.5, "loss": "cross-entropy",
        "lr": 0.5}


# -- names with a distribution --------------------------------------------------------------------


MODEL = """
import ipucnn

def build(num_classes):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, {width}, 3, stride=4), nn.BatchNorm2d({width}), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear({width}, num_classes))

def kept(site):
    from torch import nn
    return nn.BatchNorm2d(site.channels)

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="{name}", summary="s", target=build, input_size=32)]

@ipucnn.hookimpl
def ipucnn_norm_layers():
    return [ipucnn.NormLayerSpec(name="group", summary="s", target=kept)]
"""


def _train(cli, *arguments):
    done = cli("train", *TRAINING, "--model", *arguments)
    assert done.code == 0, done.err


@pytest.fixture
def plugin_file(tmp_path):
    """Write a plugin file with a model and with a norm layer named like a built-in one."""
    def write(place, name, width=4):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODEL.format(name=name, width=width))
        return path

    return write


def _without_distribution(path):
    """Write a checkpoint as earlier versions did: the options alone have the distribution."""
    content = torch.load(str(path), weights_only=False)
    content["model_name"] = content["model_name"].rpartition(":")[2]
    content["card"]["model"] = content["model_name"]
    content["card"]["norm_layer"] = content["card"]["norm_layer"].rpartition(":")[2]
    torch.save(content, str(path))


def test_a_model_named_like_a_built_in_one_is_that_of_its_checkpoint(cli, plugin_file, tmp_path):
    shadow = plugin_file("pl/shadow.py", "resnet8-cifar")
    named = ("--model", "shadow:resnet8-cifar", "--normlayer", "shadow:group")
    _train(cli, *named[1:], "--plugin", shadow, "--checkpoint-path", "cs")
    path = tmp_path / "cs" / "resnet8-cifar_shapes_1.pt"
    card = load_stored(path).card
    assert (card.model, card.norm_layer) == ("shadow:resnet8-cifar", "shadow:group")
    run = ("run", "--plugin", shadow, "--weights", path, "--data", "shapes", "--iterations", "1")
    for arguments in (("validate", "--plugin", shadow, "--checkpoint-path", "cs"), run):
        done = cli(*arguments, "--progress", "off")
        assert done.code == 0, done.err
    done = cli(*run, "--model", "resnet8-cifar")
    assert done.code == 2
    assert "whose model is shadow:resnet8-cifar" in done.err

    _without_distribution(path)
    for arguments in (("validate", "--plugin", shadow, "--checkpoint-path", "cs"),
                      (*run, *named)):
        done = cli(*arguments, "--progress", "off")
        assert done.code == 0, done.err


def test_one_of_two_models_of_a_name_is_that_of_its_checkpoint(cli, plugin_file, tmp_path):
    files = [plugin_file(f"pl/{place}/tn.py", "tn", width)
             for place, width in (("x", 4), ("y", 6))]
    both = [word for path in files for word in ("--plugin", path)]
    name = f"tn-{zlib.crc32(os.fsencode(str(files[1]))):08x}:tn"
    _train(cli, name, *both, "--checkpoint-path", "cs")
    assert load_stored(tmp_path / "cs" / "tn_shapes_1.pt").name == name
    for plugins in (both, both[2:]):  # alone, the second file has no suffix
        done = cli("validate", *plugins, "--checkpoint-path", "cs", "--progress", "off")
        assert done.code == 0, done.err
    done = cli("restore", *both[2:], "--checkpoint-path", "cs", "--epoch", "2", "--progress",
               "off")
    assert done.code == 0, done.err
    assert load_stored(tmp_path / "cs" / "tn_shapes_2.pt").name == "tn"


def test_weights_of_another_network_are_an_error_in_one_line(cli, plugin_file):
    path = plugin_file("pl/tn.py", "tn")
    _train(cli, "tn", "--plugin", path, "--checkpoint-path", "cs")
    plugin_file("pl/tn.py", "tn", width=16)
    for arguments in (("validate",),
                      ("average", "--output", "a.pt", "--reestimate-batch-norm", "8")):
        done = cli(*arguments, "--plugin", path, "--checkpoint-path", "cs")
        assert done.code != 0
        assert "tn_shapes_1.pt' do not fit the network of its options" in done.err
        assert "Traceback" not in done.err


# -- plugins that were upgraded since -------------------------------------------------------------


UPGRADES = """
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class Options:
    {options}

def build(param_groups, lr, options):
    import torch
    return torch.optim.SGD(param_groups, lr=lr)

@dataclass(frozen=True)
class LossOptions:
    {loss}

def made(options):
    from ipucnn.plugin import PerImageLoss

    class Plain(PerImageLoss):
        def per_image(self, logits, labels):
            import torch
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    return Plain()

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="tiger", summary="s", target=build, options=Options)]

@ipucnn.hookimpl
def ipucnn_losses():
    return [ipucnn.LossSpec(name="stripes", summary="s", target=made, options=LossOptions)]
"""
STRIPES = 'stripes: int = ipucnn.option(3, "How many.", maximum=9)'
TAIL = 'tail: float = ipucnn.option(0.5, "How long.")'
NONE = 'other: int = ipucnn.option(1, "Another one.")'


@pytest.fixture
def upgraded(tmp_path, fake_distribution, cli):
    """Train with version 1.0 of a distribution; return a function that installs another one."""
    def install(version, options=STRIPES, loss=TAIL):
        shutil.rmtree(str(tmp_path / "installed"), ignore_errors=True)
        for name in [name for name in sys.modules if name.startswith("tiger_plugin")]:
            del sys.modules[name]
        fake_distribution("ipucnn-tiger", {
            "tiger_plugin.py": UPGRADES.format(options=options, loss=loss)},
            {"optimizers.tiger": "tiger_plugin"}, version=version)

    install("1.0")
    done = cli("train", *TRAINING, "--optimizer", "tiger", "--stripes", "7", "--loss", "stripes",
               "--tail", "0.25", "--checkpoint-path", "saved")
    assert done.code == 0, done.err
    return install


def test_the_versions_of_plugins_are_saved(upgraded):
    (path,) = Path("saved").glob("*_1.pt")
    assert torch.load(path, weights_only=True)["versions"]["ipucnn-tiger"] == "1.0"


def test_an_option_that_an_upgrade_removed_is_named_with_its_file(upgraded, cli):
    upgraded("2.0", options=NONE)
    done = cli("restore", "--checkpoint-path", "saved", "--epoch", "2")
    assert done.code == 2
    assert "_1.pt' contains the option '--stripes', which optimizer 'tiger' of ipucnn-tiger 2.0 " \
        "or loss 'stripes' of ipucnn-tiger 2.0 does not have any more" in done.err
    assert "'pip install ipucnn-tiger==1.0'" in done.err
    assert "'ipucnn train --weights FILE'" in done.err
    assert "unknown option" not in done.err


def test_validation_does_not_need_the_options_of_an_optimizer(upgraded, cli, tmp_path):
    done = cli("train", *TRAINING, "--optimizer", "tiger", "--stripes", "7",
               "--checkpoint-path", "plain")
    assert done.code == 0, done.err
    upgraded("2.0", options=NONE)
    done = cli("validate", "--checkpoint-path", "plain", "--progress", "off")
    assert done.code == 0, done.err
    upgraded("3.0", options=STRIPES.replace("9", "5"))
    done = cli("validate", "--checkpoint-path", "plain", "--progress", "off")
    assert done.code == 0, done.err


def test_validation_names_a_removed_option_of_a_plugin_that_it_needs(upgraded, cli):
    upgraded("2.0", loss=NONE.replace("other", "another"))
    done = cli("validate", "--checkpoint-path", "saved", "--progress", "off")
    assert done.code == 2
    assert "_1.pt' contains the option '--tail', which loss 'stripes' of ipucnn-tiger 2.0 does " \
        "not have any more" in done.err
    assert "'pip install ipucnn-tiger==1.0'" in done.err


def test_a_value_that_an_upgrade_forbids_is_named_and_can_be_replaced(upgraded, cli):
    upgraded("2.0", options=STRIPES.replace("9", "5"))
    done = cli("restore", "--checkpoint-path", "saved", "--epoch", "2")
    assert done.code == 2
    assert "option '--stripes': 7 is too large; it is saved in '" in done.err
    assert "and optimizer 'tiger' of ipucnn-tiger 2.0 does not allow it" in done.err
    assert "give another value with '--stripes'" in done.err
    done = cli("restore", "--checkpoint-path", "saved", "--epoch", "2", "--stripes", "4",
               "--progress", "off")
    assert done.code == 0, done.err
    assert "stripes:" in done.err


def test_no_option_is_suggested_that_the_command_lacks(upgraded, cli):
    upgraded("2.0", loss='tail: float = ipucnn.option(0.125, "How long.", maximum=0.125)')
    done = cli("validate", "--checkpoint-path", "saved")
    assert done.code == 2
    assert "option '--tail': 0.25 is too large; it is saved in '" in done.err
    assert "hint: install the version with which it was written: 'pip install ipucnn-tiger==1.0'" \
        in done.err


def test_an_option_of_a_replaced_plugin_is_left_out(upgraded, cli):
    upgraded("2.0", loss=NONE.replace("other", "another"))
    done = cli("restore", "--checkpoint-path", "saved", "--epoch", "2", "--loss", "cross-entropy",
               "--progress", "off")
    assert done.code == 2  # the removed option may be one of the optimizer
    done = cli("restore", "--checkpoint-path", "saved", "--epoch", "2", "--progress", "off")
    assert "replace it with '--loss NAME'" in done.err


def test_a_renamed_option_keeps_its_value(upgraded, cli):
    upgraded("2.0", options=STRIPES.replace("stripes:", "lines:").replace(
        '"How many."', '"How many.", names=("--stripes",)'))
    done = cli("restore", "--checkpoint-path", "saved", "--epoch", "2", "--progress", "off")
    assert done.code == 0, done.err


def test_only_plugins_of_another_version_may_have_lost_an_option(upgraded, fake_distribution, cli):
    fake_distribution("still", {"still_plugin.py": PLUGIN}, {"loggers.quiet": "still_plugin"})
    done = cli("train", *TRAINING, "--optimizer", "tiger", "--stripes", "7", "--logger", "quiet",
               "--checkpoint-path", "both")
    assert done.code == 0, done.err
    upgraded("2.0", options=NONE)
    fake_distribution("still", {"still_plugin.py": PLUGIN}, {"loggers.quiet": "still_plugin"})
    done = cli("restore", "--checkpoint-path", "both", "--epoch", "2")
    assert "which optimizer 'tiger' of ipucnn-tiger 2.0 does not have any more" in done.err


def test_weights_name_the_model_that_lost_an_option(cli, tmp_path, fake_distribution):
    source = """
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class Options:
    OPTION: int = ipucnn.option(4, "How wide.", fixed="model")

def build(num_classes, options):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="lynx", summary="s", target=build, input_size=32,
                             options=Options)]
"""
    path = tmp_path / "lynx.py"
    path.write_text(source.replace("OPTION", "lynx_width"))
    done = cli("train", "--plugin", path, *TRAINING, "--model", "lynx", "--checkpoint-path",
               "saved")
    assert done.code == 0, done.err
    path.write_text(source.replace("OPTION", "lynx_depth_of_it"))
    for name in [name for name in sys.modules if "lynx" in name]:
        del sys.modules[name]
    done = cli("run", "--plugin", path, "--weights", "saved", "--data", "generated",
               "--iterations", "1")
    assert done.code == 2
    gone = "contains the option '--lynx-width', which model 'lynx' of lynx does not have any more"
    assert gone in done.err
    assert "unknown option" not in done.err
    done = cli("restore", "--plugin", path, "--checkpoint-path", "saved")
    assert gone in done.err
    assert "'ipucnn train --weights FILE --weights-partial --model NAME'" in done.err
    done = cli("train", "--plugin", path, *TRAINING, "--weights", "saved", "--weights-partial",
               "--model", "lynx", "--checkpoint-path", "again")
    assert done.code == 0, done.err


@pytest.mark.parametrize("given", [(), ("--model", "resnet18")])
def test_an_uninstalled_model_of_weights_is_named_with_their_file(tmp_path, cli, given):
    path = tmp_path / "gone.py"
    path.write_text("""
import ipucnn

def build(num_classes):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="bobcat", summary="s", target=build, input_size=32)]
""")
    done = cli("train", "--plugin", path, *TRAINING, "--model", "bobcat", "--checkpoint-path",
               "saved")
    assert done.code == 0, done.err
    use(None)
    (saved,) = Path("saved").glob("bobcat_*.pt")
    for command in (("run", "--data", "generated"), ("train", *TRAINING), ("export",)):
        done = cli(*command, *given, "--weights", "saved")
        assert done.code == 2
        assert (f"the model 'bobcat' of the weights in '{saved}' cannot be used: unknown model "
                "'bobcat'") in done.err
        assert "install its plugin, or name its file with '--plugin'; " in done.err
