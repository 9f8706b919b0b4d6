import pytest
import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.build import model_splits
from ipucnn.models.surgery import normalise_on_device, pad_input_channels
from ipucnn.models.tracing import count, execution_order, recompute_points, resolve_splits


def outline(name):
    with torch.device("meta"):
        return registry().make(registry().get_typed(ModelSpec, name), num_classes=1000)


@pytest.fixture(scope="module")
def resnet50():
    return outline("resnet50")


class Crossed(nn.Module):
    """Defines its layers in another order than it calls them, and one of them never."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(4, 2, 1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

    def forward(self, images):
        return self.last(self.first(images)).mean((2, 3))


def test_the_order_is_that_of_calls_not_of_definition():
    assert execution_order(Crossed(), 8) == ["first", "first/0", "first/1", "last"]


def test_following_a_model_computes_and_changes_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model[2].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    execution_order(model, 8)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model] == [True, True, False]
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("prepare", [
    lambda model: model.half(), pad_input_channels, normalise_on_device])
def test_an_altered_model_can_be_followed(prepare):
    model = Crossed()
    prepare(model)
    assert execution_order(model, 8)[-1] == "last"


@pytest.mark.parametrize("splits", [
    ["layer1/2", "layer2/3", "layer3/3"], ["layer1.2", "layer2.0.conv1"], ["/layer4/"], [],
    ["layer1", "layer1/2"], ["layer1/0/bn1", "layer3"],
])
def test_splits_of_either_spelling_containers_and_leaves(resnet50, splits):
    assert resolve_splits(resnet50, splits, 224) == [
        s.strip("/").replace(".", "/") for s in splits]


def test_splits_written_for_the_reference_applications():
    splits = ["_blocks/1/_project_conv", "_blocks/4/_bn1", "_blocks/10"]
    assert resolve_splits(outline("efficientnet-b0"), splits, 224) == splits


@pytest.mark.parametrize(("splits", "message"), [
    (["layer1/9"], "unknown pipeline split 'layer1/9'"),
    (["layer1/2", "layer1.2"], "pipeline split 'layer1.2' is repeated"),
    (["layer2", "layer1"], "pipeline split 'layer1' runs before 'layer2'"),
    (["layer1/2", "layer1"], "pipeline split 'layer1' runs before 'layer1/2'"),
    (["conv1"], "pipeline split 'conv1' leaves a stage empty: no layer runs before it"),
    (["layer1", "layer1/0"], "'layer1/0' leaves a stage empty: no layer runs between 'layer1'"),
    (["layer1/0/relu"], "pipeline split 'layer1/0/relu' runs 3 times in one pass"),
])
def test_splits_that_are_refused(resnet50, splits, message):
    with pytest.raises(UsageError) as caught:
        resolve_splits(resnet50, splits, 224)
    assert message in caught.value.message


def test_an_unknown_split_is_answered_with_close_ones(resnet50):
    with pytest.raises(UsageError) as caught:
        resolve_splits(resnet50, ["layer1/0/conv"], 224)
    assert "'layer1/0/conv1'" in caught.value.hint


def test_a_module_that_never_runs_is_no_split():
    with pytest.raises(UsageError, match="'unused' runs 0 times"):
        resolve_splits(Crossed(), ["unused"], 8)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet-v3-small", "efficientnet-b0",
                                  "resnext101_32x4d"])
def test_every_listed_split_is_accepted(name):
    model, size = outline(name), registry().get_typed(ModelSpec, name).input_size
    listed = model_splits(name)
    order = execution_order(model, size)
    assert listed == [path for path in order if path in listed]
    assert order[0] not in listed
    for split in (listed[0], listed[len(listed) // 2], listed[-1]):
        assert resolve_splits(model, [split], size) == [split]


def test_recompute_patterns_match_from_the_beginning(resnet50):
    assert recompute_points(resnet50, ["conv"]) == ["conv1"]
    every = recompute_points(resnet50, [".*conv"])
    assert len(every) == 1 + 3 * 16
    assert every[:2] == ["conv1", "layer1/0/conv1"]
    assert recompute_points(resnet50, ["layer1/0/bn1$", "conv1", "layer1/0/bn[12]$"]) == [
        "conv1", "layer1/0/bn1", "layer1/0/bn2"]
    assert recompute_points(resnet50, []) == []


@pytest.mark.parametrize(("pattern", "message"), [
    ("layer1/(", "'layer1/(' is not a regular expression"), ("bn7", "'bn7' matches no module")])
def test_recompute_patterns_that_are_refused(resnet50, pattern, message):
    with pytest.raises(UsageError) as caught:
        recompute_points(resnet50, ["conv1", pattern])
    assert message in caught.value.message
    assert caught.value.hint


def test_multiply_adds_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=4),
                          nn.Flatten(), nn.Linear(8 * 2 * 2, 5))
    assert count(model, 8) == (
        3 * 8 * 9 + 8 + 8 * 2 * 9 + 8 + 32 * 5 + 5,
        16 * 8 * 27 + 4 * 8 * 18 + 32 * 5)


def test_a_model_that_cannot_be_followed():
    class Curious(nn.Module):
        def forward(self, images):
            return images if images.mean() > 0 else -images

    with pytest.raises(UsageError, match="cannot be followed on images of 8 pixels"):
        execution_order(Curious(), 8)
