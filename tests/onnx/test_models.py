"""Every kind of network in the registry with every norm layer, as ONNX for old and new engines."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data.example_images import random_images as random_arrays
from ipucnn.models.build import create_model
from ipucnn.onnx.comparison import TOLERANCE, compare
from ipucnn.onnx.float16 import in_float16
from ipucnn.onnx.module_graph import graph_module
from ipucnn.onnx.target import opset_of
from ipucnn.onnx.tracing_export import Tracing, exported
from ipucnn.plugins.backends.onnxruntime.target import TARGET as NEW
from ipucnn.plugins.backends.popart.operators import TARGET as POPART

# deeper or wider than another of the same layers: PopART, the stricter of the two, is enough
LARGER = {"resnet101", "resnext101_32x4d", "resnet18-cifar", "resnet20-cifar", "resnet110-cifar",
          "resnext50-cifar", "efficientnet-b3"}
# as one of those, with other numbers of the same blocks: a minute of the tracer of torch 2.0
REPEATED = {
    "resnet34", "resnet152", "resnext101",
    *(f"resnet{depth}-cifar" for depth in (14, 32, 34, 44, 56, 101, 152)),
    *(f"efficientnet-b{number}" for number in (1, 2, 4, 5, 6, 7))}


def built_in():
    registry = Registry()
    for name in registry.names("model"):
        spec = registry.get_typed(ModelSpec, name)
        if registry.provider_of(spec).builtin:
            yield name


MODELS = list(built_in())
CASES = [(name, norm, target) for name in MODELS if name not in REPEATED
         for norm in (["batch"] if name in LARGER else ["batch", "group", "none"])
         for target in ([POPART] if name in LARGER or norm == "none" else [POPART, NEW])]


def size(name):
    if name == "resnext101_32x4d":
        return 224  # it pools 7 x 7 pixels at its end, whatever there is
    # of a single pixel rounding grows from block to block
    return 64 if name.startswith("efficientnet") else 32


def made(name, norm="batch", seed=0):
    """Return a model for small images, whose logits depend on them as those of a trained one do."""
    torch.manual_seed(seed)
    module = create_model(name, weights="random", num_classes=10, normlayer=norm,
                          **({"groupnorm_group_num": 8} if norm == "group" else {})).module.eval()
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.GroupNorm)):  # fresh ones do nothing, or all to 0
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    hooks = [layer.register_forward_hook(_scale) for layer in module.modules()
             if isinstance(layer, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        module(random_images((2, 3, size(name), size(name)), "float32", 1))
    for hook in hooks:
        hook.remove()
    return module


def random_images(shape, dtype, seed):
    return torch.from_numpy(random_arrays(shape, dtype, seed))


def _scale(layer, _, output):
    """Scale the weights of a layer so that its outputs deviate as much as images do.

    With random weights images vanish in deep networks, or the smallest difference grows.
    """
    factor = 0.4 / output.std().clamp(min=1e-6)
    layer.weight.mul_(factor)
    return output if layer.bias is not None and layer.bias.mul_(factor) is None else output * factor


@pytest.mark.parametrize(("name", "norm", "target"), CASES,
                         ids=[f"{name}-{norm}-{target.name}" for name, norm, target in CASES])
def test_it_computes_what_torch_does(name, norm, target):
    plan = ExecutionPlan(micro_batch=2, precision="32.32", normalisation="host", eight_bit_io=False)
    module, images = graph_module(made(name, norm), plan, size(name))
    proto = exported(module, images, target, Tracing(dynamic_batch=True))
    assert opset_of(proto) == (11 if target is POPART else 17 if torch.__version__ < "2.1" else 20)
    batches = [3] if name in LARGER else [1, 3]
    examples = [random_images((n, *images.shape[1:]), "float32", n) for n in batches]
    with torch.no_grad():
        logits = module(examples[-1])
    # or the comparison would say nothing
    assert logits.std(0).mean() > 10 * TOLERANCE["32.32"] * logits.abs().max()
    assert [batch for batch, _ in compare(proto, module, examples,
                                          TOLERANCE["32.32"])] == batches


@pytest.mark.parametrize("name", ["resnet18", "mobilenet-v3-small", "efficientnet-b0"])
def test_half_precision_is_within_its_tolerance(name):
    plan = ExecutionPlan(micro_batch=2, precision="32.32", normalisation="device",
                         eight_bit_io=True)
    module, images = graph_module(made(name), plan, 32)
    proto = in_float16(exported(module, images, POPART))
    ((_, difference),) = compare(proto, module, [random_images(images.shape, "uint8", 2)],
                                 TOLERANCE["16.16"])
    assert difference > 1e-5  # it is not single precision


def test_every_larger_model_exists():
    assert set(MODELS) > LARGER | REPEATED
