"""What the calls of a model compute, store and pass on, and the memory that follows."""

import functools
import random
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.registry import registry
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import prepare
from ipucnn.models.balance import (
    model_balance,
    network_of,
    partition,
    rule_of,
    with_balanced_splits,
)
from ipucnn.models.build import create_model
from ipucnn.models.footprint import trace
from ipucnn.models.optimisation import state_size
from ipucnn.models.stage_memory import GPU, MIB, MK1, MK2, Device
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, save
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.rates import optimizer_choice


class Skip(nn.Module):
    """A convolution whose input is added to its output."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images):
        return torch.relu(self.norm(self.conv(images)) + images)


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), Skip(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 2))


def test_each_call_has_its_own_share():
    traced = trace(small(), 8)
    side = 8 * 8
    calls = {call.path: call for call in traced.calls}
    assert [call.path for call in traced.calls] == ["", "0", "1", "1/conv", "1/norm", "2", "3", "4"]
    assert calls["0"].multiply_adds == 4 * 3 * side
    assert calls["1/conv"].multiply_adds == 4 * 36 * side
    assert [calls[path].parameters for path in ("0", "1/conv", "1/norm", "4")] == [12, 144, 8, 10]
    assert calls["0"].passed_on == 3 * side
    assert calls["1"].passed_on == 4 * side
    assert calls["1/norm"].passed_on == 2 * 4 * side  # what the branch carries, and the skip
    # images, the convolution's input, the norm's input, and the relu's output
    assert calls["0"].stored == 3 * side
    assert calls["1/conv"].stored == 4 * side
    assert calls["1/norm"].stored >= 2 * 4 * side
    assert traced.usable == ["1", "1/conv", "1/norm", "2", "3", "4"]


def test_what_is_stored_is_what_autograd_saves():
    """On real images: bytes of all tensors that are saved, weights aside."""
    model = small().train()
    images = torch.rand(2, 3, 8, 8)
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    values = sum(tensor.untyped_storage().nbytes() // tensor.element_size()
                 for key, tensor in saved.items()
                 if key not in weights and tensor.is_floating_point())
    traced = trace(small(), 8)
    assert traced.total("stored", 0, len(traced.calls)) == pytest.approx(values / 2, rel=0.01)


def test_the_search_is_exact():
    source = random.Random(3)
    for _ in range(60):
        sizes = [source.randint(0, 20) for _ in range(source.randint(3, 8))]
        parts = source.randint(1, min(4, len(sizes)))
        room = source.randint(2, 4)

        def fits(first, last, part, room=room):
            return last - first <= room + part

        cuts = []
        for cut in combinations(range(1, len(sizes)), parts - 1):
            ends = [0, *cut, len(sizes)]
            spans = list(zip(ends, ends[1:]))
            if all(fits(*span, part) for part, span in enumerate(spans)):
                cuts.append(max(sum(sizes[slice(*span)]) for span in spans))
        found = partition(sizes, parts, fits)
        if not cuts:
            assert found is None
            continue
        ends = [0, *found, len(sizes)]
        assert max(sum(sizes[first:last]) for first, last in zip(ends, ends[1:])) == min(cuts)
        assert all(fits(*span, part) for part, span in enumerate(zip(ends, ends[1:])))


# -- memory ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def resnet18():
    return network_of(build(TrainOptions, {"model": "resnet18"}), registry())


def rule(device=MK2, **options):
    made = build(TrainOptions, {"model": "resnet18", "data": "cifar10", "batch_size": 2,
                                "optimizer": "sgd", **options})
    plan = made.plan(False)
    network = resnet18()
    size = Preprocessing(input_size=made.network.input_size or 224)
    return network[1], rule_of(made, replace(plan, preprocessing=size), registry(), device, network)


def whole(device=MK2, **options):
    traced, made = rule(device, **options)
    return made.memory(traced, (0, len(traced.calls)), 0, 1)


WEIGHTS = 11_689_512


@pytest.mark.parametrize(("options", "weights", "gradients", "state"), [
    ({"precision": "16.16"}, 2, 0, 2),
    ({"precision": "16.16", "gradient_accumulation": 4}, 2, 2, 2),
    ({"precision": "16.32", "gradient_accumulation": 4}, 4, 4, 4),
    ({"precision": "16.16", "optimizer": "sgd_combined", "gradient_accumulation": 4}, 2, 2, 0),
    ({"precision": "16.16", "momentum": 0.0}, 2, 0, 0),
    ({"precision": "16.16", "optimizer": "adamw"}, 2, 0, 6),
    ({"precision": "16.16", "backend": "poptorch", "offload_optimizer": True}, 2, 0, 0),
    ({"precision": "16.16", "backend": "poptorch", "enable_optimizer_rts": True, "replicas": 2},
     2, 0, 1)])
def test_weights_on_an_ipu(options, weights, gradients, state):
    memory = whole(**options)
    assert (memory.weights, memory.gradients, memory.optimizer) == (
        weights * WEIGHTS, gradients * WEIGHTS, state * WEIGHTS)
    assert memory.overhead == MK2.memory // 5
    assert memory.images == 2 * 2 * 3 * 224 ** 2


def test_weights_on_a_gpu():
    gpu = Device("GPU", GPU, 24 * 10 ** 9)
    memory = whole(gpu, precision="16.32", optimizer="adamw")
    assert (memory.weights, memory.gradients, memory.optimizer) == (
        6 * WEIGHTS, 4 * WEIGHTS, 8 * WEIGHTS)
    assert whole(gpu, precision="32.32").activations == 2 * memory.activations
    assert memory.overhead == 1000 * MIB


def test_recomputation_keeps_less():
    kept, automatic, manual = (whole(precision="16.16", **options).activations for options in (
        {}, {"recompute_mode": "auto"},
        {"recompute_mode": "manual", "recompute_checkpoints": [".*conv"]}))
    assert automatic < kept / 1.5
    assert manual < kept
    traced, _ = rule()
    assert kept == 2 * 2 * traced.total("stored", 0, len(traced.calls))


@pytest.mark.parametrize(("device", "options", "flying"), [
    (MK1, {}, [7, 5, 3, 1]), (MK1, {"sharded": True}, [1, 1, 1, 1]),
    (Device("GPU", GPU, 1), {}, [4, 3, 2, 1])])
def test_micro_batches_in_flight(device, options, flying):
    _, made = rule(device, gradient_accumulation=8, precision="16.16", **options)
    assert [made.in_flight(stage, 4) for stage in range(4)] == flying


def test_a_pipeline_keeps_the_inputs_of_micro_batches_in_flight():
    traced, made = rule(gradient_accumulation=8, precision="16.16")
    begin = traced.begins["layer2"]
    stage = (begin, traced.begins["layer3"])
    found = made.activations(traced, stage, 1, 4)
    assert found == 2 * 2 * (5 * 64 * 56 ** 2 + traced.total("stored", *stage))
    _, plain = rule(gradient_accumulation=8, precision="16.16", backend="popart")
    assert plain.activations(traced, stage, 1, 4) == 2 * 2 * 5 * traced.total("stored", *stage)


def test_inference_keeps_what_is_alive():
    traced, made = rule(precision="16.16")
    plan = ExecutionPlan(micro_batch=2, preprocessing=Preprocessing(input_size=224))
    memory = replace(made, plan=plan).memory(traced, (0, len(traced.calls)), 0, 1)
    assert memory.activations == 2 * 2 * traced.most("alive", 0, len(traced.calls))
    assert memory.temporary == 0


def test_an_optimizer_of_any_plugin_is_counted_by_its_state():
    def count(**options):
        made = build(TrainOptions, {"model": "resnet18", **options})
        return state_size(optimizer_choice(made, registry()).build)

    assert count(optimizer="sgd", momentum=0.0) == 0
    assert count(optimizer="sgd") == 1
    assert count(optimizer="adamw") == count(optimizer="lamb") == 2
    assert count(optimizer="rmsprop", momentum=0.0) == 1


@pytest.mark.parametrize("backend", ["auto", "poptorch"])
def test_a_run_is_cut_by_the_same_search(backend):
    made = build(RunOptions, {"model": "resnet20-cifar", "batch_size": 8, "backend": backend,
                              "pipeline_splits": ("auto:2",)})
    options = with_balanced_splits(made, registry())
    assert list(options.get("pipeline_splits")) == model_balance("resnet20-cifar", 2)


def test_stages_are_balanced_for_the_input_size_of_a_checkpoint(tmp_path):
    built = create_model("mobilenet-v3-large", weights="random", num_classes=3, input_size=32)
    path = save(Checkpoint("mobilenet-v3-large", "shapes", Position(1), built.module.state_dict(),
                           progress={}, options={}, class_names=(), card=built.card), tmp_path)
    job = prepare(build(RunOptions, {
        "weights": str(path), "data": "synthetic", "backend": "torch", "precision": "full",
        "device_iterations": 4, "pipeline_splits": ("auto:4",)}), registry())
    found = list(job.plan.pipeline_splits)
    assert found == model_balance("mobilenet-v3-large", 4, input_size=32, classes=3)
    assert found != model_balance("mobilenet-v3-large", 4, classes=3)
