"""Checkpoints with the name of a plugin that another distribution has as well since."""

import pytest

from ipucnn.core.errors import PluginError
from ipucnn.core.registry.registry import registry
from ipucnn.training.checkpoints.saved_plugins import without_unusable
from ipucnn.training.checkpoints.stored import load_stored

SOURCE = """
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class Options:
    puma_share: float = ipucnn.option(0.5, "Share.")

def network(num_classes):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

def optimizer(param_groups, lr, options):
    import torch
    return torch.optim.SGD(param_groups, lr=lr, momentum=options.puma_share)

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="pumanet", summary="s", target=network, input_size=32)]

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="puma", summary="s", target=optimizer, options=Options)]
"""


@pytest.fixture
def rivals(fake_distribution):
    for name in ("cat-one", "cat-two"):
        module = name.replace("-", "_")
        fake_distribution(name, {f"{module}.py": SOURCE}, {name: module})


def test_the_hint_has_the_command_that_leaves_one_out(rivals):
    with pytest.raises(PluginError) as caught:
        registry().get("model", "pumanet")
    assert caught.value.hint.endswith(", or run with '--no-plugins=cat-two'")


def test_a_saved_name_with_its_distribution_is_the_same_plugin(rivals):
    saved = {"model": "pumanet", "optimizer": "puma", "puma_share": 0.75, "logger": ["files"]}
    chosen = {"model": "cat-one:pumanet", "optimizer": "cat-one:puma"}
    assert without_unusable(saved, registry(), chosen, ["optimizer"]) == {**saved, **chosen}


def test_a_training_with_an_ambiguous_name_is_restored(fake_distribution, cli, tmp_path,
                                                       monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = ("--iterations", "1", "--no-validation", "--progress", "off", "--no-report")
    fake_distribution("cat-one", {"cat_one.py": SOURCE}, {"cat-one": "cat_one"})
    done = cli("train", "--model", "pumanet", "--optimizer", "puma", "--puma-share", "0.75",
               "--data", "shapes", "--batch-size", "4", "--epoch", "1", "--precision", "full",
               "--checkpoint-path", "saved", *training)
    assert done.code == 0, done.err
    fake_distribution("cat-two", {"cat_two.py": SOURCE}, {"cat-two": "cat_two"})
    restore = ("restore", "--checkpoint-path", "saved", "--epoch", "2", *training[2:])
    assert cli(*restore).code == 2
    done = cli(*restore, "--model", "cat-one:pumanet", "--optimizer", "cat-one:puma")
    assert done.code == 0, done.err
    options = load_stored(tmp_path / "saved" / "pumanet_shapes_2.pt").options
    assert options["optimizer"] == "cat-one:puma"
    assert options["puma_share"] == 0.75
