"""Options of plugins that a weights file determines, beside those that are given again."""

import pytest
import torch
from torch import nn

from ipucnn.core.options.building import build
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.options import RunOptions
from ipucnn.models.build import build_model
from ipucnn.models.options import ModelOptions

PLUGIN = """
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class ModelOptions:
    strength: float = ipucnn.option(1.0, "Of the model.")
    share: float = ipucnn.option(0.5, "Dropped.", names=("--drop",))

@dataclass(frozen=True)
class NormOptions:
    strength: float = ipucnn.option(2.0, "Of the norm layer.")

def build(num_classes, options):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Dropout(options.share), nn.Linear(4, num_classes))

def norm(site, options):
    from torch import nn
    return nn.BatchNorm2d(site.channels, eps=options.strength)

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="puma", summary="s", target=build, input_size=32,
                             options=ModelOptions)]

@ipucnn.hookimpl
def ipucnn_norm_layers():
    return [ipucnn.NormLayerSpec(name="lynx", summary="s", target=norm, options=NormOptions)]
"""
GIVEN = {"model": "puma", "normlayer": "lynx", "num_classes": 3, "weights": "random",
         "model.strength": 3.0, "normlayer.strength": 4.0, "share": 0.25}


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "cats.py"
    path.write_text(PLUGIN)
    return Registry(PluginSettings(extra=(str(path),), disable_all=True))


@pytest.fixture
def weights(registry, tmp_path):
    """A file of weights with the card of a network whose plugins share the name of an option."""
    options = build(ModelOptions, GIVEN, registry=registry)
    built = build_model(options.network, options.plugins, registry)
    path = tmp_path / "puma.pt"
    torch.save({"card": built.card.as_plain(), "model": built.module.state_dict()}, str(path))
    return path


def test_options_of_one_name_are_kept_apart(registry, weights):
    options = build(RunOptions, {"weights": str(weights)}, registry=registry)
    assert options.plugins.of("model", "puma").strength == 3.0
    assert options.plugins.of("norm-layer", "lynx").strength == 4.0
    module = build_model(options.network, options.plugins, registry).module
    assert next(one.eps for one in module.modules() if isinstance(one, nn.BatchNorm2d)) == 4.0


@pytest.mark.parametrize(("spelling", "others"), [
    ("share", (3.0, 4.0)), ("drop", (3.0, 4.0)), ("--drop", (3.0, 4.0)),
    ("model.share", (3.0, 4.0)), ("model.strength", (0.125, 4.0)),
    ("normlayer.strength", (3.0, 0.125))])
def test_options_that_are_given_again_replace_those_of_the_file(registry, weights, spelling,
                                                                others):
    options = build(RunOptions, {"weights": str(weights), spelling: 0.125}, registry=registry)
    model = options.plugins.of("model", "puma")
    assert model.share == (0.25 if "strength" in spelling else 0.125)
    assert (model.strength, options.plugins.of("norm-layer", "lynx").strength) == others
