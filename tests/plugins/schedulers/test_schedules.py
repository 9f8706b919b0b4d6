"""Built-in schedules: the conformance suite, and the closed forms."""

import math

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.options.assignment import owned_by
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import ScheduleSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.plugins.schedulers.step import StepOptions
from ipucnn.testing import check_plugin

REGISTRY = Registry(PluginSettings(disable_all=True))


def factor(name, epoch, given=None, **keywords):
    """The factor of a schedule with the options `given`."""
    spec = REGISTRY.get_typed(ScheduleSpec, name)
    options = owned_by("lr-schedule", spec, given or {}, REGISTRY).of("lr-schedule", spec.name)
    return REGISTRY.make(spec, epoch, options=options, **keywords)


@pytest.mark.parametrize("name", REGISTRY.names("lr-schedule"))
def test_conformance(name):
    assert set(check_plugin("lr-schedule", name, REGISTRY).values()) == {"passed"}


@pytest.mark.parametrize("name", REGISTRY.names("lr-schedule"))
def test_formula_is_given(name):
    assert REGISTRY.get_typed(ScheduleSpec, name).formula.startswith("f(e) = ")


def test_names():
    assert set(REGISTRY.names("lr-schedule")) >= {"constant", "step", "cosine", "exponential"}
    assert REGISTRY.get("lr-schedule", "no").name == "constant"


def test_constant():
    assert [factor("constant", e) for e in (0, 0.5, 99.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("epoch", "expected"), [
    (0.0, 1.0), (2.999, 1.0), (3.0, 0.5), (3.5, 0.5), (6.0, 0.25), (100.0, 0.25)])
def test_step(epoch, expected):
    assert factor("step", epoch, {"lr_epoch_decay": (3, 6), "lr_decay": 0.5}) == expected


def test_step_takes_the_next_factor_at_each_milestone():
    values = {"lr_epoch_decay": (3, 6), "lr_factors": (2.0, 0.1, 0.01, 9.0)}
    assert [factor("step", e, values) for e in (0.0, 2.9, 3.0, 6.0, 99.0)] == [
        2.0, 2.0, 0.1, 0.01, 0.01]


def test_step_with_more_milestones_than_factors_is_refused():
    with pytest.raises(UsageError, match="2 milestones need 3 factors, and there are 2"):
        factor("step", 0.0, {"lr_epoch_decay": (3, 6), "lr_factors": (1.0, 0.1)})


def test_step_without_milestones_is_constant():
    assert factor("step", 7.0, {"lr_decay": 0.1}) == 1.0


@pytest.mark.parametrize("epoch", [0.0, 0.25, 2.5, 5.0, 7.75, 10.0])
def test_cosine(epoch):
    assert factor("cosine", epoch, epochs=10) == pytest.approx(
        (1 + math.cos(math.pi * epoch / 10)) / 2, abs=1e-15)


def test_cosine_stays_at_zero_after_the_end():
    assert factor("cosine", 15.0, epochs=10) == 0.0


@pytest.mark.parametrize("epoch", [0.0, 0.5, 1.0, 7.25])
def test_exponential(epoch):
    assert factor("exponential", epoch, {"lr_decay": 0.97}, frequency=1.0) == pytest.approx(
        math.exp(epoch * math.log(0.97)))


def test_exponential_counts_updates_of_the_rate():
    assert factor("exponential", 2.5, {"lr_decay": 0.97}, frequency=2.0) == pytest.approx(0.97**5)


@pytest.mark.parametrize("epoch", [0.0, 2.5, 7.75])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_polynomial(epoch, power):
    assert factor("polynomial", epoch, {"lr_power": power}, epochs=10) == pytest.approx(
        (1 - epoch / 10) ** power)


@pytest.mark.parametrize(("name", "given", "named"), [
    ("step", {"lr_epoch_decay": (6, 3)}, "schedule 'step': milestones [6.0, 3.0] are not "
                                         "ascending"),
    ("step", {"lr_epoch_decay": (3, 3)}, "[3.0, 3.0] are not ascending"),
    ("step", {"lr_epoch_decay": (0, 3)}, "[0.0, 3.0] are not all above 0"),
    ("step", {"lr_epoch_decay": (float("nan"),)}, "'--lr-epoch-decay': nan is not a finite"),
    ("step", {"lr_decay": 0.1, "lr_factors": (1.0, 0.1)}, "'--lr-decay' contradicts"),
    ("step", {"lr_decay": 0}, "'--lr-decay': 0 is too small"),
    ("step", {"lr_decay": -0.5}, "'--lr-decay': -0.5 is too small"),
    ("exponential", {"lr_decay": 0.0}, "'--lr-decay': 0.0 is too small"),
    ("exponential", {"lr_decay": "inf"}, "'--lr-decay': 'inf' is not a finite number"),
    ("polynomial", {"lr_power": 0}, "'--lr-power': 0 is too small"),
    ("step", {"lr_power": 2}, "lr-schedule 'step' has no option 'lr_power'"),
])
def test_wrong_options_are_refused(name, given, named):
    with pytest.raises(UsageError) as caught:
        factor(name, 1.0, given)
    assert named in caught.value.message


def test_milestones_that_are_no_numbers_are_refused_in_python_too():
    with pytest.raises(UsageError, match=r"\[nan\] are not all above 0"):
        StepOptions(lr_epoch_decay=(float("nan"),))


@pytest.mark.parametrize("name", ["cosine", "polynomial"])
@pytest.mark.parametrize("epochs", [0, -3])
def test_too_few_epochs_are_refused(name, epochs):
    with pytest.raises(UsageError, match=f"schedule '{name}': {epochs} epochs are too") as caught:
        factor(name, 1.0, epochs=epochs)
    assert caught.value.hint
