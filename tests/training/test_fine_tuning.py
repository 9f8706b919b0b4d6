"""Fine-tuning: frozen layers, learning rates by layer, and their exact continuation."""

from __future__ import annotations

import pytest
import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.offers import check_offer
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.profiles import resolve
from ipucnn.core.progress import Listener
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.models.build import build_model
from ipucnn.models.layer_rates import blocks_of, head_of, rate_factors
from ipucnn.training.checkpoints.checkpoint import load
from ipucnn.training.job import train
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.restore import restore
from ipucnn.training.setup.parameters import freeze_through

MODEL = {"model": "resnet8-cifar", "backend": "torch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with images, and a file of weights for other classes."""
    folder = tmp_path_factory.mktemp("tuning")
    write_made("shapes", str(folder / "photos"), GeneratedFiles(per_class=5, size=32))
    torch.manual_seed(3)
    torch.save(_network(num_classes=3).state_dict(), folder / "published.pt")
    return folder


def _network(model="resnet8-cifar", **given):
    options = resolve(TrainOptions, {"model": model, "weights": "random", **given}, "train")
    return build_model(options.network, options.plugins, registry()).module


def _train(folder, where, listener=None, **given):
    options = resolve(TrainOptions, {
        **MODEL, "data_dir": str(folder / "photos"), "weights": str(folder / "published.pt"),
        "weights_partial": True, "epoch": 2, "batch_size": 4, "lr": 0.05, "momentum": 0.9,
        "checkpoint_path": str(where), "precision": "full", **given}, "train")
    return train(options, listener=listener)


def _published(folder):
    return torch.load(folder / "published.pt", weights_only=True)


def _after(where, epoch=2):
    [path] = where.glob(f"*_{epoch}.pt")
    return load(path)


class _StopAfter(Listener):
    def __init__(self, steps):
        self.steps = steps

    def stop(self):
        self.steps -= 1
        return "the test" if self.steps < 0 else ""


# -- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "head", "blocks"), [
    ("resnet8-cifar", "fc", 5), ("mobilenet-v3-small", "classifier.3", 15)])
def test_blocks_of_a_network(model, head, blocks):
    network = _network(model)
    found = blocks_of(network)
    assert head_of(network) == head
    assert len(found) == blocks
    assert [name for names in found for name in names] == [
        name for name, _ in network.named_parameters()]


def test_rates_fall_towards_the_input():
    factors = rate_factors(_network(), 0.5, 10.0)
    names = ("fc.bias", "layer3.0.conv1.weight", "layer1.0.bn1.bias", "bn1.weight", "conv1.weight")
    assert [factors[name] for name in names] == [10, 0.5, 0.125, 0.0625, 0.0625]
    assert rate_factors(_network(), 1.0, 1.0) == {}


# -- frozen layers -------------------------------------------------------------------------------


def test_all_but_the_head_is_frozen_for_an_epoch_and_trained_after_it(folder, tmp_path):
    _train(folder, tmp_path, freeze="1")
    before, frozen, last = (_published(folder), _after(tmp_path, 1).weights,
                            _after(tmp_path).weights)
    body = [name for name in before if not name.startswith("fc.")]
    assert any(name.endswith("running_mean") for name in body)
    assert all(torch.equal(frozen[name], before[name]) for name in body)
    assert not torch.equal(frozen["fc.weight"], last["fc.weight"])
    assert not any(torch.equal(last[name], before[name]) for name in body)


def test_a_module_and_all_before_it_stay_frozen(folder, tmp_path):
    _train(folder, tmp_path, freeze="layer2", ema_decay=0.9)
    before, checkpoint = _published(folder), _after(tmp_path)
    for name, value in before.items():
        still = name.startswith(("conv1", "bn1", "layer1", "layer2"))
        if not name.startswith("fc."):
            assert torch.equal(checkpoint.weights[name], value) is still, name
        if still:
            torch.testing.assert_close(checkpoint.ema[name], value)


def test_the_updates_of_layers_are_by_their_rates(folder, tmp_path):
    """The first step of plain SGD is in proportion to the rates."""
    plain, layered = tmp_path / "plain", tmp_path / "layered"
    once = {"iterations": 1, "epoch": 1, "momentum": 0, "weight_decay": 0, "warmup_epoch": 0}
    _train(folder, plain, **once)
    _train(folder, layered, layer_decay=0.5, head_lr_factor=4, **once)
    before = _published(folder)
    one, other = (_after(where, 1).weights for where in (plain, layered))
    for name, factor in (("layer3.0.conv1.weight", 0.5), ("layer1.0.conv1.weight", 0.125)):
        torch.testing.assert_close(other[name] - before[name], factor * (one[name] - before[name]),
                                   rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("steps", [4, 14])
@pytest.mark.parametrize("rates", [{}, {"layer_decay": 0.5, "head_lr_factor": 4}])
def test_a_restored_fine_tuning_continues_exactly(folder, tmp_path, steps, rates):
    """It is stopped within the frozen epoch, and after it."""
    given = {"freeze": "1", "ema_decay": 0.9, **rates}
    _train(folder, tmp_path / "whole", **given)
    stopped = _train(folder, tmp_path / "parts", _StopAfter(steps), **given)
    assert stopped.stopped_by == "the test"
    restore({"checkpoint_path": str(tmp_path / "parts")})
    whole, parts = _after(tmp_path / "whole"), _after(tmp_path / "parts")
    for one, other in ((whole.weights, parts.weights), (whole.ema, parts.ema)):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert str(whole.session["optimizer"]) == str(parts.session["optimizer"])


def test_backends_without_it_refuse_it():
    with pytest.raises(UsageError, match="'--freeze' is not an option of backend 'lacking'"):
        check_offer(resolve(TrainOptions, {"freeze": "1", "weights": "x.pt"}, "train"),
                    ExecutionPlan(training=True, precision="32.32"), BackendSpec(
                        name="lacking", summary="no layers", target="a:b", training=True),
                    registry())


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "message"), [
    ({"freeze": 1}, "would freeze random weights"),
    ({"freeze": "1.5", "weights": "pretrained"}, "not a whole number of epochs"),
    ({"freeze": "-1", "weights": "pretrained"}, "not a whole number of epochs"),
    ({"freeze": "layer1", "weights": "pretrained", "first_trainable_layer": "layer2"},
     "contradicts"),
    ({"layer_decay": 1.5}, "too large"),
])
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        resolve(TrainOptions, given, "train")


def test_modules_are_checked():
    with pytest.raises(UsageError, match="no module 'layer9'"):
        freeze_through(_network(), "layer9")
    with pytest.raises(UsageError, match="leaves nothing to train"):
        freeze_through(_network(), "fc")


def test_a_profile_fine_tunes():
    options = resolve(TrainOptions, {"config": "fine-tune"}, "train")
    assert options.network.weights == "pretrained"
    assert (options.fine_tuning.frozen_epochs, options.fine_tuning.layer_decay) == (1, 0.75)
