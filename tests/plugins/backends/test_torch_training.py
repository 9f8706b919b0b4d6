"""The execution model of training, against plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
from chosen import optimizer
from states import assert_close
from torch import nn

from ipucnn.core.errors import UnavailableError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    TrainingBatch,
    TrainingSetup,
)
from ipucnn.plugins.backends.torch import compiler
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.training import TorchTrainingSession
from ipucnn.plugins.losses.cross_entropy import CrossEntropy

SIZE = 8


def network(norm=False, dropout=False):
    torch.manual_seed(3)
    block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else
                          nn.GroupNorm(2, 6), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU(),
        nn.Sequential(block), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5) if dropout else nn.Identity(), nn.Linear(6, 5))


def session(model, setup=None, device=None, options=None, **plan):
    plan = {"precision": "32.32", "normalisation": "host", "eight_bit_io": False, "training": True,
            "seed": 1, **plan}
    setup = {"loss": CrossEntropy(), "optimizer": optimizer(momentum=0.9), **(setup or {})}
    made = TorchTrainingSession(
        model, ExecutionPlan(**plan), TrainingSetup(**setup), SIZE,
        device or Device(torch.device("cpu"), "CPU", torch.bfloat16, torch.float32),
        TorchOptions(**(options or {})))
    made.compile()
    return made


def batches(count, size):
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(size, 3, SIZE, SIZE, generator=generator),
             torch.randint(0, 5, (size,), generator=generator)) for _ in range(count)]


def run(made, data, per_call=1):
    made.set_rates(0.1, made._setup.loss_scaling)
    update = 0
    for images, labels in data:
        made.step(TrainingBatch(images, labels), update)
        update += per_call
    return made.weights()


def plain(model, data):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 0.01}, {"params": others}],
                                lr=0.1, momentum=0.9)
    for images, labels in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return {name: value.detach() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1), (1, 1, 4), (1, 2, 2)])
@pytest.mark.parametrize("together", [True, False])
def test_every_shape_of_a_batch_is_plain_sgd(shape, together):
    micro, replicas, accumulation = shape
    made = session(network(), micro_batch=micro, replicas=replicas,
                   gradient_accumulation=accumulation)
    if not together:
        made._together = 1
    data = batches(5, 4)
    assert_close(run(made, data), plain(network(), data), 1e-6)


def test_micro_batches_without_shared_statistics_are_computed_together():
    made = session(network(), micro_batch=1, gradient_accumulation=4)
    assert made.facts["micro_batches_together"] == 4
    made = session(network(norm=True), micro_batch=1, gradient_accumulation=4)
    assert made.facts["micro_batches_together"] == 1


def test_batch_norm_is_of_micro_batch_and_replica():
    replicas, accumulation, micro = 2, 2, 3
    made = session(network(norm=True), micro_batch=micro, replicas=replicas,
                   gradient_accumulation=accumulation)
    data = batches(3, micro * replicas * accumulation)
    got = run(made, data)
    model = network(norm=True)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    own = [[(m.running_mean.clone(), m.running_var.clone()) for m in norms]
           for _ in range(replicas)]
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 0.01}, {"params": others}],
                                lr=0.1, momentum=0.9)
    for images, labels in data:
        optimizer.zero_grad()
        for number in range(accumulation * replicas):
            part = slice(number * micro, (number + 1) * micro)
            statistics = own[number % replicas]
            for norm, (mean, var) in zip(norms, statistics):
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(var)
            loss = nn.functional.cross_entropy(model(images[part]), labels[part])
            (loss / (accumulation * replicas)).backward()
            own[number % replicas] = [(m.running_mean.clone(), m.running_var.clone())
                                      for m in norms]
        optimizer.step()
    for norm, (mean, var) in zip(norms, own[0]):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    expected = model.state_dict()
    for name, value in got.items():
        if "tracked" not in name:
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    second = made.state()["replica_buffers"][0]
    torch.testing.assert_close(second["1.running_mean"], own[1][0][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", [False, True])
def test_four_device_iterations_are_four_calls(norm):
    data = batches(4, 6)
    joined = [(torch.cat([i for i, _ in data]), torch.cat([t for _, t in data]))]
    shape = {"micro_batch": 3, "gradient_accumulation": 2}
    one = run(session(network(norm, dropout=True), **shape), data)
    four = run(session(network(norm, dropout=True), device_iterations=4, **shape), joined)
    assert_close(one, four, 0)


@pytest.mark.parametrize("mode", [{"recompute": "auto"}, {
    "recompute": "manual", "recompute_checkpoints": ("3",)}, {
    "recompute": "auto", "recompute_checkpoints": ("3",)}])
def test_recompute_changes_nothing(mode):
    data = batches(3, 8)
    made = session(network(norm=True, dropout=True), **mode, micro_batch=4, replicas=2)
    assert made.facts["recomputed"] == 1
    assert_close(run(made, data),
                 run(session(network(norm=True, dropout=True), micro_batch=4, replicas=2), data), 0)


def test_loss_scaling_by_a_power_of_two_changes_nothing():
    data = batches(3, 4)
    assert_close(run(session(network(), {"loss_scaling": 1024.0}, micro_batch=4), data),
                 run(session(network(), micro_batch=4), data), 0)


def test_half_weights_hold_no_more_than_half():
    weights = run(session(network(), precision="16.16", micro_batch=4), batches(3, 4))
    for name, value in weights.items():
        assert torch.equal(value, value.bfloat16().float()), name


@pytest.mark.parametrize("arithmetic", [torch.float32, torch.bfloat16])
def test_master_weights_collect_small_updates(arithmetic):
    device = Device(torch.device("cpu"), "CPU", torch.bfloat16, arithmetic)
    moved = {}
    for precision in ("16.16", "16.32"):
        made = session(network(), device=device, precision=precision, micro_batch=4)
        before = made.weights()["7.weight"]
        made.set_rates(1e-5, 1.0)
        for update, (images, labels) in enumerate(batches(5, 4)):
            made.step(TrainingBatch(images, labels), update)
        moved[precision] = int((made.weights()["7.weight"] != before).sum())
    assert moved["16.32"] > moved["16.16"]


@pytest.mark.parametrize("precision", ["16.16", "16.32"])
def test_autocast_of_the_caller_keeps_no_rounded_weights(precision):
    device = Device(torch.device("cpu"), "CPU", torch.bfloat16, torch.bfloat16)
    expected = run(session(network(), device=device, precision=precision, micro_batch=4),
                   batches(3, 4))
    with torch.autocast("cpu", enabled=False):
        weights = run(session(network(), device=device, precision=precision, micro_batch=4),
                      batches(3, 4))
    assert_close(weights, expected, 0)


def test_the_moving_average_follows_its_formula():
    made = session(network(norm=True), {"ema_decay": 0.6}, micro_batch=4)
    made.set_rates(0.1, 1.0)
    expected = {name: value.double() for name, value in made.weights().items()}
    for update, (images, labels) in enumerate(batches(4, 4)):
        made.step(TrainingBatch(images, labels), update)
        d = min(0.6, (1 + update) / (10 + update))
        for name, value in made.weights().items():
            expected[name] = d * expected[name] + (1 - d) * value.double()
    for name, value in made.weights(ema=True).items():
        if "tracked" not in name:
            torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=1e-6)


def test_a_loss_that_is_not_finite_is_raised_or_left_out():
    bad = torch.full((4, 3, SIZE, SIZE), float("nan"))
    labels = torch.zeros(4, dtype=torch.int64)
    made = session(network(norm=True), micro_batch=4)
    with pytest.raises(NonFiniteLoss) as caught:
        made.step(TrainingBatch(bad, labels), 12)
    assert caught.value.update == 12
    made = session(network(norm=True), {"tolerate_non_finite": True}, micro_batch=4)
    before = made.weights()
    assert made.step(TrainingBatch(bad, labels), 0).skipped == 1
    assert_close(made.weights(), before, 0)


@pytest.mark.parametrize("name", ["sgd", "sgd_combined", "adam", "adamw", "rmsprop", "rmsprop_tf",
                                  "lamb"])
def test_a_resumed_session_continues_bit_for_bit(name, tmp_path):
    extra = {"momentum": 0.9} if name.startswith(("sgd", "rmsprop")) else {}

    def made():
        choice = optimizer(name, lr=0.01, **extra)
        return session(network(norm=True, dropout=True), {"optimizer": choice, "ema_decay": 0.9},
                       micro_batch=2, replicas=2)

    data = batches(6, 4)
    whole, first, second = made(), made(), made()
    for update, (images, labels) in enumerate(data):
        whole.step(TrainingBatch(images, labels), update)
        if update < 3:
            first.step(TrainingBatch(images, labels), update)
    torch.save({"w": first.weights(), "s": first.state(), "e": first.weights(ema=True)},
               tmp_path / "x.pt")
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    second.load(saved["w"], saved["s"], saved["e"])
    for update, (images, labels) in enumerate(data[3:], 3):
        second.step(TrainingBatch(images, labels), update)
    assert_close(second.weights(), whole.weights(), 0)
    assert_close(second.weights(ema=True), whole.weights(ema=True), 0)


def test_a_copy_of_a_partly_frozen_model_is_frozen_too():
    from ipucnn.training.setup.parameters import train_from

    model = network(norm=True)
    train_from(model, "7")
    twin = copy.deepcopy(model).train()
    assert not twin[1].training
    assert [p.requires_grad for p in twin.parameters()][-2:] == [True, True]
    assert not any(p.requires_grad for p in list(twin.parameters())[:-2])


def test_compiled_training_gives_the_same_weights():
    try:
        compiler.check()
    except UnavailableError as error:
        pytest.skip(error.message)
    made = session(network(norm=True), micro_batch=2, gradient_accumulation=2,
                   options={"compile": True})
    eager = session(network(norm=True), micro_batch=2, gradient_accumulation=2)
    assert made.facts["compiled"]
    data = batches(3, 4)
    assert_close(run(made, data), run(eager, data), 1e-5)


def test_updates_that_are_not_finite_are_left_out_when_tolerated():
    made = session(network(norm=True), {"tolerate_non_finite": True, "ema_decay": 0.9},
                   micro_batch=4, device_iterations=2)
    other = session(network(norm=True), {"ema_decay": 0.9}, micro_batch=4)
    good, bad = batches(2, 4)
    images = torch.cat([bad[0] * float("inf"), good[0]])
    result = made.step(TrainingBatch(images, torch.cat([bad[1], good[1]])), 0)
    assert (result.skipped, result.samples, len(result.losses)) == (1, 4, 1)
    other.step(TrainingBatch(*good), 1)
    assert_close(made.weights(), other.weights(), 0)  # statistics of the bad one are gone too
    assert_close(made.weights(ema=True), other.weights(ema=True), 0)
