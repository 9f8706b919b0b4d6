"""What the targets of models and optimizers return is checked before it is used."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipucnn.core.errors import PluginError
from ipucnn.models.made import check_model, checked_optimizer


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
