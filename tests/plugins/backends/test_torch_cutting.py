"""Models cut into the modules of pipeline stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.tracing import resolve_splits
from ipucnn.plugins.backends.torch.cutting import Cut


def through(stages, images):
    """Call stages one after another."""
    values = (images,)
    for stage in stages:
        values = stage(*values)
        values = values if isinstance(values, tuple) else (values,)
    return values[0]


@pytest.mark.parametrize(("name", "splits"), [
    ("resnet18", ["layer1/1", "layer1/1/conv2", "layer2/0/downsample/0", "layer4"]),
    ("efficientnet-b0", ["_blocks/7", "_blocks/8"]),
    ("mobilenet-v3-small", ["features/2", "features/11"]),
])
def test_stages_one_after_another_are_the_model(name, splits):
    torch.manual_seed(0)
    model = registry().make(registry().get_typed(ModelSpec, name), num_classes=10, options=None)
    model.eval()
    splits = resolve_splits(model, splits, 64)
    cut = Cut(model, splits)
    stages = [cut.stage(number) for number in range(len(splits) + 1)]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(through(stages, images.clone()), model(images.clone()))
    own = [list(stage.state_dict()) for stage in stages]
    assert [sorted(names) for names in own] == [sorted(names) for names in cut.names]
    assert sorted(name for names in own for name in names) == sorted(model.state_dict())
    for name, value in model.named_parameters():  # stages train the model's own parameters
        assert any(value is other for stage in stages for own, other in stage.named_parameters()
                   if own == name)


class Skipping(nn.Module):
    """A value of the first stage is needed by the last one, and changed in place between."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.act = nn.ReLU(inplace=True)
        self.never = nn.Linear(2, 2)

    def forward(self, images):
        first = self.a(images)
        second = self.b(first + 1)
        return self.c(self.act(second)) + first


def test_values_pass_through_stages_and_gradients_come_back():
    torch.manual_seed(0)
    model = Skipping()
    cut = Cut(model, ["b", "act"])
    stages = [cut.stage(number) for number in range(2)] + [cut.stage(2)]
    images = torch.randn(2, 3, 4, 4)
    model(images).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()
                if parameter.grad is not None]
    model.zero_grad()
    passed = []
    values = (images,)
    for stage in stages:  # as processes do: each has a graph of its own
        inputs = tuple(value.detach().requires_grad_() for value in values)
        values = stage(*inputs)
        values = values if isinstance(values, tuple) else (values,)
        passed.append((inputs, values))
    assert len(passed[1][1]) == 2
    gradients = [2 * values[0].detach()]
    for inputs, outputs in reversed(passed):
        torch.autograd.backward(outputs, gradients)
        gradients = [value.grad for value in inputs]
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) == 6
    for one, two in zip(found, expected):
        assert torch.allclose(one, two)
    assert cut.names == [[f"{name}.weight", f"{name}.bias"] for name in "abc"]


class Shared(nn.Module):
    """Two layers have one weight; how often they run depends on the images."""

    def __init__(self, depends):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.b.weight = self.a.weight
        self.depends = depends

    def forward(self, images):
        images = self.a(images)
        if self.depends and images.sum() > 0:
            images = images * 2
        return self.b(images)


@pytest.mark.parametrize(("model", "splits", "message"), [
    (Shared(False), ["b"], "stages 1 and 2 share the parameter 'a.weight'"),
    (Shared(True), ["b"], "cannot be cut into stages"),
    (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)), ["1", "2"],
     "the pipeline stage that begins at '1' has no parameters"),
])
def test_models_that_cannot_be_cut_are_refused(model, splits, message):
    with pytest.raises(UsageError, match=message):
        Cut(model, splits)
