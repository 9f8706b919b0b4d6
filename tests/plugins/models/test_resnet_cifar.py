"""The ResNets for small images against the paper: He et al. (2015), sections 3, 4.1 and 4.2."""

import io
import warnings

import pytest
import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.build import create_model
from ipucnn.models.surgery import resolve_splits
from ipucnn.models.weights import WeightsError

# table 6 of the paper
MILLIONS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
ONNX_OPERATORS = {  # of PopART, and what its importer computes beforehand
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "Flatten", "Gemm",
    "GlobalAveragePool", "Identity", "Pad", "Relu", "Reshape", "Slice", "Transpose"}


def outline(name, **options):
    with torch.device("meta"):
        spec = registry().get_typed(ModelSpec, name)
        return registry().make(spec, num_classes=10,
                               options=registry().options_class(spec)(**options))


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def projections(model):
    return [name for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)]


@pytest.mark.parametrize("layers", [8, 14, 20, 32, 44, 56, 110])
def test_the_papers_networks_have_its_layers_filters_and_sizes(layers):
    model = outline(f"resnet{layers}-cifar")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == layers  # and the linear layer
    assert {conv.kernel_size for conv in convolutions} == {(3, 3)}
    assert not any(isinstance(m, nn.MaxPool2d) for m in model.modules())
    n = (layers - 2) // 6
    assert [conv.out_channels for conv in convolutions] == (
        [16] * (2 * n + 1) + [32] * 2 * n + [64] * 2 * n)
    shapes = {}
    for name in ("conv1", "layer1", "layer2", "layer3"):
        getattr(model, name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    model.eval()(torch.empty(1, 3, 32, 32, device="meta"))
    assert shapes == {"conv1": (16, 32, 32), "layer1": (16, 32, 32), "layer2": (32, 16, 16),
                      "layer3": (64, 8, 8)}


@pytest.mark.parametrize("layers", sorted(MILLIONS))
def test_the_papers_networks_have_its_number_of_parameters(layers):
    digits = 1 if layers == 110 else 2
    assert round(parameters(outline(f"resnet{layers}-cifar")) / 1e6, digits) == MILLIONS[layers]


@pytest.mark.parametrize(("name", "source"), [
    ("resnet18-cifar", "resnet18"), ("resnet34-cifar", "resnet34"), ("resnet50-cifar", "resnet50"),
    ("resnet101-cifar", "resnet101"), ("resnet152-cifar", "resnet152"),
    ("resnext50-cifar", "resnext50")])
def test_the_larger_networks_differ_from_torchvisions_in_the_stem_only(name, source):
    ours, theirs = outline(name), outline(source)
    shapes, other = ({key: tuple(value.shape) for key, value in model.state_dict().items()}
                     for model in (ours, theirs))
    assert shapes.pop("conv1.weight") == (64, 3, 3, 3)
    assert other.pop("conv1.weight") == (64, 3, 7, 7)
    assert shapes == other
    sizes = []
    ours.layer1.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    assert ours.eval()(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 10)
    assert sizes == [32]


@pytest.mark.parametrize(("name", "kind", "projected"), [
    ("resnet20-cifar", "A", 0), ("resnet20-cifar", "B", 2), ("resnet20-cifar", "C", 9),
    ("resnet18", "A", 0), ("resnet18", "B", 3), ("resnet18", "C", 8)])
def test_shortcut_types(name, kind, projected):
    model = outline(name, shortcut_type=kind)
    assert len(projections(model)) == projected
    assert all(path.endswith("downsample.0") for path in projections(model))
    assert sum(type(m).__name__ == "PaddedShortcut" for m in model.modules()) == (
        {"resnet20-cifar": 2, "resnet18": 3}[name] if kind == "A" else 0)


def test_the_shortcuts_are_the_papers_by_default():
    assert parameters(outline("resnet20-cifar")) == parameters(
        outline("resnet20-cifar", shortcut_type="A"))
    for name in ("resnet50", "resnext50", "resnet50-cifar"):
        assert parameters(outline(name)) == parameters(outline(name, shortcut_type="B"))


def test_a_bottleneck_without_a_stride_is_padded_too():
    model = outline("resnet50-cifar", shortcut_type="A")
    shortcut = model.layer1[0].downsample
    assert shortcut(torch.empty(1, 64, 8, 8, device="meta")).shape == (1, 256, 8, 8)
    assert model.layer1[1].downsample is None


def test_option_a_takes_every_second_pixel_and_adds_channels_of_zeros():
    model = create_model("resnet8-cifar", weights="random").module
    images = torch.randn(2, 16, 8, 8)
    result = model.layer2[0].downsample(images)
    assert torch.equal(result[:, :16], images[:, :, ::2, ::2])
    assert result.shape == (2, 32, 4, 4)
    assert not result[:, 16:].any()


def test_models_without_residual_blocks_have_no_shortcuts():
    with pytest.raises(UsageError, match="'--shortcut-type' is an option of models ") as caught:
        create_model("mobilenet", weights="random", shortcut_type="A")
    assert "models resnet18, resnet34, resnet50, resnet101, 16 more" in caught.value.message
    assert caught.value.message.endswith("; this run uses mobilenet")


def test_there_are_no_published_weights():
    with pytest.raises(WeightsError, match="'resnet20-cifar' has no published weights") as caught:
        create_model("resnet20-cifar")
    assert "--weights random" in caught.value.hint


def test_names_of_modules_are_torchvisions():
    model = outline("resnet20-cifar", shortcut_type="B")
    names = set(model.state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer2.0.bn2.bias",
            "layer2.0.downsample.0.weight", "layer3.2.conv2.weight", "fc.bias"} <= names
    assert resolve_splits(model, ["layer1/2", "layer3"], 32) == ["layer1/2", "layer3"]


@pytest.mark.parametrize("kind", ["A", "B", "C"])
def test_exports_to_popart_operators(kind):
    onnx = pytest.importorskip("onnx")
    model = create_model("resnet8-cifar", weights="random",
                         shortcut_type=kind).module.eval()
    file = io.BytesIO()
    exporter = {} if torch.__version__.startswith("2.0") else {"dynamo": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(2, 3, 32, 32),), file, opset_version=11, **exporter)
    graph = onnx.load_from_string(file.getvalue()).graph
    assert {node.op_type for node in graph.node} <= ONNX_OPERATORS
    assert sum(node.op_type == "Pad" for node in graph.node) == (2 if kind == "A" else 0)


@pytest.mark.parametrize("name", ["resnet14-cifar", "resnet18-cifar"])
def test_random_weights_follow_torchs_generator(name):
    def build(seed):
        torch.manual_seed(seed)
        return create_model(name, weights="random").module.state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    # He et al., by fan-out: 3 x 3 x channels
    fan_out = 9 * first["conv1.weight"].shape[0]
    assert first["conv1.weight"].std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
