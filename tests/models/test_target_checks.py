"""What the targets of models and optimizers return is checked before it is used."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from ipucnn.core.errors import PluginError
from ipucnn.models.norms import NormSite
from ipucnn.models.target_checks import check_model, check_norm, checked_optimizer, copied


def network(outputs=4):
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(2, outputs))


def shapeless():
    return nn.ParameterList([nn.parameter.UninitializedParameter()])


class Pair(nn.Module):
    """Returns its outputs in a tuple."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, images):
        return self.inner(images), None


class Choosy(nn.Module):
    """Looks at values, which an outline does not have."""

    def __init__(self):
        super().__init__()
        self.inner = network(7)

    def forward(self, images):
        return self.inner(images) if float(images.sum()) >= 0 else images


@pytest.mark.parametrize(("model", "message"), [
    (network().half(), "weight '0.weight' of model 'm' is torch.float16, expected float32"),
    (network().double(), "weight '0.weight' of model 'm' is torch.float64"),
    (network().to("meta"), "weight '0.weight' of model 'm' is on the device 'meta'"),
    (shapeless(), "weight '0' of model 'm' has no shape yet"),
    (network(5), r"model 'm' returns a tensor of shape \[2, 5\] for 2 images, expected a tensor of "
     r"shape \[2, 4\]"),
    (network()[:1], r"returns a tensor of shape \[2, 2, 6, 6\]"),
    (Pair(), "model 'm' returns a tuple for 2 images"),
])
def test_a_network_that_does_not_fit_is_named(model, message):
    with pytest.raises(PluginError, match=message):
        check_model(model, "model 'm'", 4, 8, True)


@pytest.mark.parametrize(("model", "foreign"), [(network(), True), (Choosy(), True),
                                                (network(5), False), (nn.Linear(2, 2), True)])
def test_other_networks_are_not_in_doubt(model, foreign):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training, state = model.training, torch.get_rng_state()
    check_model(model, "model 'm'", 4, 8, foreign)
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def groups():
    return [{"params": [nn.Parameter(torch.ones(2, 2))], "weight_decay": 0.1},
            {"params": [nn.Parameter(torch.ones(2))], "weight_decay": 0.0}]


@pytest.mark.parametrize(("make", "message"), [
    (lambda given, lr: None, "returned None, expected an optimizer of torch"),
    (lambda given, lr: torch.optim.SGD(given[:1], lr), "so that 1 weights are not trained"),
    (lambda given, lr: torch.optim.SGD([one for group in given for one in group["params"]], lr),
     "so that their learning rates and weight decays are lost"),
])
def test_an_optimizer_that_loses_parameters_is_named(make, message):
    with pytest.raises(PluginError, match=f"optimizer 'o'.*{message}"):
        checked_optimizer(make, "optimizer 'o'", groups(), 0.1)


def test_an_optimizer_of_the_given_groups_is_returned():
    made = checked_optimizer(torch.optim.SGD, "optimizer 'o'", groups(), 0.1)
    assert [group["weight_decay"] for group in made.param_groups] == [0.1, 0.0]


def test_a_network_without_trainable_weights_is_named():
    with pytest.raises(PluginError, match="no weight of the model requires a gradient"):
        checked_optimizer(torch.optim.SGD, "optimizer 'o'", [], 0.1)


class Halved(nn.Module):
    """Returns half of its channels."""

    def forward(self, images):
        return images[:, :2]


class Listed(nn.Module):
    """Returns a list."""

    def forward(self, images):
        return [images]


SITE = NormSite("layer1/bn1", 4, 1e-5, 0.1, True)


def test_a_norm_layer_keeps_its_state_and_the_shape_of_its_input():
    layer = nn.BatchNorm2d(4)
    check_norm(layer, SITE, "norm layer 'n'")
    assert (layer.training, int(layer.num_batches_tracked)) == (True, 0)


@pytest.mark.parametrize(("layer", "message"), [
    (Halved(), r"returned a tensor of torch.float32 \(2, 2, 4, 4\) for 'layer1/bn1'"),
    (Listed(), "returned an object of type 'list'"),
    (nn.BatchNorm2d(3), "cannot normalise the 4 channels of 'layer1/bn1': RuntimeError: running"),
])
def test_other_norm_layers_are_an_error(layer, message):
    with pytest.raises(PluginError, match=f"^norm layer 'n' {message}"):
        check_norm(layer, SITE, "norm layer 'n'")


NORMS = """
import ipucnn

LAYERS = []

def build(site):
    from torch import nn

    LAYERS.append(nn.BatchNorm2d(site.channels))
    return RETURNED

@ipucnn.hookimpl
def ipucnn_norm_layers():
    return [ipucnn.NormLayerSpec(name="mine", summary="s", target=build)]
"""


@pytest.mark.parametrize(("returned", "message"), [
    ("None", "the target of norm-layer 'mine' of norms returned None"),
    ("LAYERS[len(LAYERS) // 2]", "norm-layer 'mine' of norms returned the layer of another batch"),
    ("LAYERS[-1]", ""),
])
def test_norm_layers_of_plugins_are_checked(isolated_registry, tmp_path, returned, message):
    import ipucnn

    (tmp_path / "norms.py").write_text(NORMS.replace("RETURNED", returned))
    isolated_registry(tmp_path / "norms.py")
    if not message:
        assert ipucnn.create_model("resnet8-cifar", weights="random", normlayer="mine")
        return
    with pytest.raises(PluginError, match=message):
        ipucnn.create_model("resnet8-cifar", weights="random", normlayer="mine")


def test_a_model_that_cannot_be_copied_is_named():
    model = Pair()
    assert copied(model) is not model
    model.lock = threading.Lock()
    with pytest.raises(PluginError, match="Pair' cannot be copied for a validation: TypeError: "):
        copied(model)
