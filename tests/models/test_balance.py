"""Pipeline stages chosen by cost."""

from itertools import combinations

import pytest
import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.balance import balanced_splits, model_balance
from ipucnn.models.build import outline
from ipucnn.models.tracing import costs, resolve_splits
from ipucnn.plugins.models.efficientnet import EfficientNetOptions


def block(channels):
    """A layer of `channels` ^ 2 multiply-adds per pixel, with something of no cost before it."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1))


class Ways(nn.Module):
    """A block with two ways through it."""

    def __init__(self, channels):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 1)
        self.two = nn.Conv2d(channels, channels, 1)

    def forward(self, images):
        return self.one(images) + self.two(images)


def largest(model, splits, size):
    """The multiply-adds of the largest stage."""
    stages = [0]
    begins = list(splits)
    for path, cost in costs(model, size):
        if begins and path == begins[0]:
            begins.pop(0)
            stages.append(0)
        stages[-1] += cost
    assert not begins
    return max(stages)


def test_equal_blocks_make_equal_stages():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), *[Ways(3) for _ in range(4)], nn.Conv2d(3, 3, 1))
    assert balanced_splits(model, 2, 8) == ["3"]
    assert largest(model, balanced_splits(model, 5, 8), 8) == 3 * 9 * 64


def test_it_cuts_where_a_block_begins_not_within():
    model = nn.Sequential(Ways(3), block(3), Ways(3))
    assert balanced_splits(model, 3, 8) == ["1", "2"]
    with pytest.raises(UsageError, match="into 3 stages at most, not into 4"):
        balanced_splits(model, 4, 8)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_no_other_cut_of_resnet18_has_a_smaller_largest_stage(stages):
    spec = registry().get_typed(ModelSpec, "resnet18")
    model = outline(spec, registry())
    blocks = ["layer1", *(f"layer{i}/{j}" for i in range(1, 5) for j in range(2)), "fc"]
    blocks = [path for path in blocks if path not in ("layer1/0",)]
    best = min(largest(model, cut, 224) for cut in combinations(blocks, stages - 1))
    splits = model_balance("resnet18", stages)
    assert len(splits) == stages - 1
    assert largest(model, splits, 224) == best


@pytest.mark.parametrize("name", ["resnet50", "resnext101_32x4d", "mobilenet",
                                  "mobilenet-v3-small", "efficientnet-b0", "resnet110-cifar"])
def test_every_family_can_be_cut(name):
    spec = registry().get_typed(ModelSpec, name)
    splits = model_balance(name, 4)
    model = outline(spec, registry())
    assert resolve_splits(model, splits, spec.input_size) == splits
    whole = sum(cost for _, cost in costs(model, spec.input_size))
    assert largest(model, splits, spec.input_size) < 0.34 * whole


def test_options_of_the_model_count():
    plain = model_balance("efficientnet-b0", 2)
    assert plain == model_balance("efficientnet-b0", 2, options=EfficientNetOptions())
    spec = registry().get_typed(ModelSpec, "efficientnet-b0")
    narrow = EfficientNetOptions(efficientnet_expand_ratio=1, efficientnet_group_dim=1)
    splits = model_balance("efficientnet-b0", 2, options=narrow)
    assert splits != plain
    model = outline(spec, registry(), narrow)
    assert largest(model, splits, 224) < largest(model, plain, 224)


def test_nothing_is_computed():
    model = nn.Sequential(Ways(3), Ways(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert balanced_splits(model, 2, 8) == ["1"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
