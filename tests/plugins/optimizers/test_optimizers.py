"""Built-in optimizers: the conformance suite, and the update rules by hand."""

import math

import pytest
import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import OptimizerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.testing import check_plugin

REGISTRY = Registry(PluginSettings(disable_all=True))
NAMES = REGISTRY.names("optimizer")
DECAYING = {"weight_decay": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name):
    assert set(check_plugin("optimizer", name, REGISTRY).values()) == {"passed"}


def test_names():
    assert set(NAMES) >= {"sgd", "sgd_combined", "adam", "adamw", "rmsprop"}


def steps(name, gradients, lr=0.1, start=1.0, group=None, **hyper):
    """Return the weight after a step on each of `gradients`."""
    w = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    spec = REGISTRY.get_typed(OptimizerSpec, name)
    optimizer = REGISTRY.make(spec, [{"params": [w], **(group or {})}], lr=lr,
                              options=REGISTRY.options_class(spec)(**hyper))
    for gradient in gradients:
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return w.item()


@pytest.mark.parametrize("name", ["sgd", "sgd_combined"])
def test_sgd_is_momentum_on_the_gradient(name):
    # v1 = 2, v2 = 0.9 * 2 + 3; w = 1 - 0.1 (v1 + v2)
    assert steps(name, [2.0, 3.0], momentum=0.9) == pytest.approx(1 - 0.1 * (2 + 4.8))
    assert steps(name, [2.0], group=DECAYING) == pytest.approx(1 - 0.1 * (2 + 0.5))
    assert steps(name, [2.0, 3.0], momentum=0.9, nesterov=True) == pytest.approx(
        1 - 0.1 * ((2 + 0.9 * 2) + (3 + 0.9 * 4.8)))
    assert steps(name, [2.0, 3.0], momentum=0.9, dampening=0.5) == pytest.approx(
        1 - 0.1 * (2 + (0.9 * 2 + 0.5 * 3)))


def test_sgd_has_momentum_by_default():
    assert steps("sgd", [2.0, 3.0]) == steps("sgd", [2.0, 3.0], momentum=0.9)
    assert steps("sgd", [2.0, 3.0], momentum=0.0) == pytest.approx(1 - 0.1 * 5)


def test_adam_and_adamw_differ_in_where_decay_enters():
    assert steps("adam", [2.0], optimizer_eps=0.0) == pytest.approx(0.9)
    # no decay by default
    assert steps("adamw", [2.0], optimizer_eps=0.0) == pytest.approx(0.9)
    assert steps("adamw", [2.0], optimizer_eps=0.0, group=DECAYING) == pytest.approx(
        1 * (1 - 0.1 * 0.5) - 0.1)
    assert steps("adam", [2.0], optimizer_eps=0.0, group=DECAYING) == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_betas_of_adam(name):
    # second step: m = (b1 (1-b1) 2 + (1-b1) 4) / (1-b1^2), v likewise
    b1, b2 = 0.5, 0.8
    m = (b1 * (1 - b1) * 2 + (1 - b1) * 4) / (1 - b1 ** 2)
    v = (b2 * (1 - b2) * 4 + (1 - b2) * 16) / (1 - b2 ** 2)
    assert steps(name, [2.0, 4.0], beta1=b1, beta2=b2, optimizer_eps=0.0) == pytest.approx(
        0.9 - 0.1 * m / math.sqrt(v))


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
@pytest.mark.parametrize("beta", ["beta1", "beta2"])
def test_a_mean_of_no_gradient_is_refused(name, beta):
    spec = REGISTRY.get_typed(OptimizerSpec, name)
    with pytest.raises(UsageError, match=f"--{beta}"):
        REGISTRY.options_class(spec)(**{beta: 1.0})


def test_rmsprop_has_epsilon_outside_the_root():
    root = math.sqrt(0.25 * 4.0)
    given = {"rmsprop_decay": 0.75, "optimizer_eps": 1.0}
    assert steps("rmsprop", [2.0], **given) == pytest.approx(1 - 0.1 * 2 / (root + 1))
    second = math.sqrt(0.75 * 1.0 + 0.25 * 4.0)
    assert steps("rmsprop", [2.0, 2.0], momentum=0.5, **given) == pytest.approx(
        1 - 0.1 * (1.0 + (0.5 * 1.0 + 2 / (second + 1))))
    centred = math.sqrt(0.25 * 4.0 - (0.25 * 2.0) ** 2)
    assert steps("rmsprop", [2.0], centered=True, **given) == pytest.approx(
        1 - 0.1 * 2 / (centred + 1))


@pytest.mark.parametrize("name", NAMES)
def test_values_of_a_group_win(name):
    assert steps(name, [2.0], group={"lr": 0.0}) == 1.0
    plain = steps(name, [2.0, -3.0], group=DECAYING)
    assert steps(name, [2.0, -3.0], group={"weight_decay": 0.0}) != plain
