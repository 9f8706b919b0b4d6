"""Built-in schedules: the conformance suite, and the closed forms."""

import math

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import ScheduleSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.testing import check_plugin

REGISTRY = Registry(PluginSettings(disable_all=True))


def factor(name, epoch, **parameters):
    return REGISTRY.resolve(REGISTRY.get_typed(ScheduleSpec, name))(epoch, **parameters)


@pytest.mark.parametrize("name", REGISTRY.names("schedule"))
def test_conformance(name):
    assert set(check_plugin("schedule", name, REGISTRY).values()) == {"passed"}


@pytest.mark.parametrize("name", REGISTRY.names("schedule"))
def test_formula_is_given(name):
    assert REGISTRY.get_typed(ScheduleSpec, name).formula.startswith("f(e) = ")


def test_names():
    assert set(REGISTRY.names("schedule")) >= {"constant", "step", "cosine", "exponential"}
    assert REGISTRY.get("schedule", "no").name == "constant"


def test_constant():
    assert [factor("constant", e) for e in (0, 0.5, 99.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("epoch", "expected"), [
    (0.0, 1.0), (2.999, 1.0), (3.0, 0.5), (3.5, 0.5), (6.0, 0.25), (100.0, 0.25)])
def test_step(epoch, expected):
    assert factor("step", epoch, milestones=(3, 6), decay=0.5) == expected


def test_step_takes_the_next_factor_at_each_milestone():
    values = {"milestones": (3, 6), "decay": 0.5, "factors": (2.0, 0.1, 0.01, 9.0)}
    assert [factor("step", e, **values) for e in (0.0, 2.9, 3.0, 6.0, 99.0)] == [
        2.0, 2.0, 0.1, 0.01, 0.01]


def test_step_with_more_milestones_than_factors_is_refused():
    with pytest.raises(UsageError, match="2 milestones need 3 factors, and there are 2"):
        factor("step", 0.0, milestones=(3, 6), decay=0.5, factors=(1.0, 0.1))


def test_step_without_milestones_is_constant():
    assert factor("step", 7.0, milestones=(), decay=0.1) == 1.0


@pytest.mark.parametrize("epoch", [0.0, 0.25, 2.5, 5.0, 7.75, 10.0])
def test_cosine(epoch):
    assert factor("cosine", epoch, epochs=10) == pytest.approx(
        (1 + math.cos(math.pi * epoch / 10)) / 2, abs=1e-15)


def test_cosine_stays_at_zero_after_the_end():
    assert factor("cosine", 15.0, epochs=10) == 0.0


@pytest.mark.parametrize("epoch", [0.0, 0.5, 1.0, 7.25])
def test_exponential(epoch):
    assert factor("exponential", epoch, decay=0.97) == pytest.approx(math.exp(
        epoch * math.log(0.97)))


@pytest.mark.parametrize(("name", "parameters", "named"), [
    ("step", {"milestones": (6, 3), "decay": 0.5}, "[6, 3] are not ascending"),
    ("step", {"milestones": (3, 3), "decay": 0.5}, "[3, 3] are not ascending"),
    ("step", {"milestones": (0, 3), "decay": 0.5}, "[0, 3] are not all above 0"),
    ("step", {"milestones": (float("nan"),), "decay": 0.5}, "[nan] are not all above 0"),
    ("step", {"milestones": (3,), "decay": 0}, "decay 0 is out of range"),
    ("step", {"milestones": (3,), "decay": -0.5}, "decay -0.5 is out of range"),
    ("exponential", {"decay": 0.0}, "decay 0.0 is out of range"),
    ("exponential", {"decay": float("nan")}, "decay nan is out of range"),
    ("exponential", {"decay": float("inf")}, "decay inf is out of range"),
    ("cosine", {"epochs": 0}, "0 epochs are too few"),
    ("cosine", {"epochs": -3}, "-3 epochs are too few"),
])
def test_nonsense_is_refused(name, parameters, named):
    with pytest.raises(UsageError) as caught:
        factor(name, 1.0, **parameters)
    assert named in caught.value.message
    assert f"'{name}'" in caught.value.message
    assert caught.value.hint
