"""Learning rate and loss scaling against closed forms; refusals."""

from __future__ import annotations

import math

import pytest
import torch

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import Registry
from ipucnn.planning.plot import plot_schedule
from ipucnn.plugins.optimizers.rmsprop import RMSpropOptions
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.rates import (
    LossScaling,
    learning_rate,
    optimizer_choice,
)


def rate(**options):
    return learning_rate(build(TrainOptions, options), Registry())


def test_cosine_with_warmup():
    made = rate(lr_schedule="cosine", lr=0.5, epoch=10, warmup_epoch=2.0)
    for call in range(100):
        e, after = call / 10, (call + 1) / 10
        assert made.at(e, after) == pytest.approx(
            0.5 * (1 + math.cos(math.pi * e / 10)) / 2 * min(1, after / 2))
    assert made.at(0, 0.1) > 0


def test_constant_warms_up_too():
    made = rate(lr_schedule="no", lr=1.0, warmup_epoch=1.0)
    assert [made.at(i / 4, (i + 1) / 4) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_step_drops_at_its_epochs():
    made = rate(lr_schedule="step", lr=1.0, lr_decay=0.1, lr_epoch_decay=(3.0, 6.0))
    assert [made.at(e, e + 1) for e in (0, 2, 3, 5, 6, 9)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01])


def test_exponential_is_per_update_of_the_schedule():
    per_epoch = rate(lr_schedule="exponential", lr=1.0, lr_decay=0.9)
    assert per_epoch.at(2.5, 2.6) == pytest.approx(0.9**2.5)
    per_update = rate(lr_schedule="exponential", lr=1.0, lr_decay=0.97, lr_scheduler_freq=0.424)
    for e in (0.0, 2.3, 2.4, 10.0, 99.9):
        assert per_update.at(e, e + 0.1) == pytest.approx(0.97 ** math.floor(e * 0.424))


def test_polynomial():
    made = rate(lr_schedule="polynomial", lr=2.0, epoch=8, lr_power=3.0)
    assert made.at(2, 3) == pytest.approx(2 * 0.75**3)
    assert made.at(9, 10) == 0


@pytest.mark.parametrize("frequency", [3.0, 7.0, 10.0])
def test_an_update_comes_on_time_in_spite_of_rounding(frequency):
    made = rate(lr_schedule="exponential", lr=1.0, lr_decay=0.5, lr_scheduler_freq=frequency)
    for index in range(60):
        e = index * (1 / frequency)
        assert made.at(e, e) == pytest.approx(0.5**index)


def test_loss_scaling_doubles_at_even_distances():
    scaling = LossScaling(16, 128, 100)
    levels = [scaling.at(e) for e in range(100)]
    assert levels == [16] * 25 + [32] * 25 + [64] * 25 + [128] * 25


@pytest.mark.parametrize(("initial", "final", "epochs"), [
    (16, 100, 9), (1, 1024, 3), (64, 64, 5), (1, 2, 1), (8, 512, 10)])
def test_loss_scaling_never_falls_and_ends_at_its_final_value(initial, final, epochs):
    levels = [LossScaling(initial, final, epochs).at(e) for e in range(epochs)]
    assert levels == sorted(levels)
    assert levels[-1] == final
    assert all(initial <= level <= final for level in levels)


@pytest.mark.parametrize(("options", "flag", "able"), [
    ({"lr_schedule": "cosine", "lr_decay": 0.3}, "--lr-decay", "exponential"),
    ({"lr_schedule": "no", "lr_epoch_decay": (3.0,)}, "--lr-epoch-decay", "step"),
    ({"lr_schedule": "step", "lr_power": 2.0}, "--lr-power", "polynomial")])
def test_what_a_schedule_lacks_is_refused(options, flag, able):
    with pytest.raises(UsageError) as caught:
        rate(**options)
    assert f"'{flag}' is an option of lr-schedule" in caught.value.message
    assert able in caught.value.message
    assert f"; this run uses {options['lr_schedule']}" in caught.value.message
    assert f"choose '--lr-schedule {able}'" in caught.value.hint


@pytest.mark.parametrize("value", ["-1.0", "float('nan')", "None"])
def test_what_is_no_rate_is_blamed_on_the_schedule(fake_distribution, value):
    fake_distribution("falls", {"falls_plugin.py": f"""
        import ipucnn
        def factor(epoch):
            return 1.0 if epoch < 1 else {value}
        @ipucnn.hookimpl
        def ipucnn_lr_schedules():
            return [ipucnn.ScheduleSpec(name="falls", summary="s", target=factor)]
        """}, {"falls": "falls_plugin"})
    found = rate(lr_schedule="falls", lr=0.5)
    assert found.at(0.0, 0.5) == 0.5
    with pytest.raises(PluginError, match=r"lr-schedule 'falls' returned .* at epoch 1\.5"):
        found.at(1.5, 2.0)


def test_what_an_optimizer_lacks_is_refused():
    with pytest.raises(UsageError) as caught:
        build(TrainOptions, {"optimizer": "adam", "momentum": 0.8})
    assert "'--momentum' is an option of optimizers " in caught.value.message
    assert "rmsprop_tf" in caught.value.message


def test_options_reach_the_optimizer():
    choice = optimizer_choice(build(TrainOptions, {
        "optimizer": "rmsprop_tf", "momentum": 0.9, "lr": 0.1, "weight_decay": 0.2,
        "rmsprop_decay": 0.95, "optimizer_eps": 1e-3}), Registry())
    assert (choice.name, choice.lr, choice.weight_decay) == ("rmsprop_tf", 0.1, 0.2)
    assert choice.options == RMSpropOptions(momentum=0.9, rmsprop_decay=0.95, optimizer_eps=1e-3)
    made = choice.build([{"params": [torch.zeros(1, requires_grad=True)]}], lr=0.3)
    values = made.param_groups[0]
    assert {name: values[name] for name in ("lr", "momentum", "alpha", "eps")} == {
        "lr": 0.3, "momentum": 0.9, "alpha": 0.95, "eps": 1e-3}


def test_the_plot_shows_the_curve():
    drawn = plot_schedule(rate(lr_schedule="cosine", lr=0.5, epoch=90), 90, 60, 15)
    assert "epoch" in drawn
    assert "0.5" in drawn
    assert "\x1b" not in drawn
    assert len(drawn.splitlines()) <= 15
