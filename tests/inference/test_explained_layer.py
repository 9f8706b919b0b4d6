"""The module and the classes that `ipucnn explain` shows."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from ipucnn.core.errors import UsageError
from ipucnn.inference.explaining import _class, _layer


@pytest.mark.parametrize("projected", [False, True])
def test_the_default_layer_is_the_last_block_with_its_shortcut(projected):
    shortcut = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) if projected else None
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), BasicBlock(4, 4, downsample=shortcut),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    path, module = _layer(model, torch.zeros(1, 3, 8, 8), None)
    assert (path, module) == ("1", model[1])


def test_a_model_without_maps_needs_a_named_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())
    with pytest.raises(UsageError, match="no convolution"):
        _layer(model, torch.zeros(1, 3, 8, 8), None)


def test_a_class_is_found_by_its_exact_name_before_others():
    names = ["O", "o", "crane", "crane", "golden_retriever", "1", "2"]
    found = [_class(word, names) for word in ("O", "o", "Golden Retriever", "01", "2", "3")]
    assert found == [0, 1, 4, 5, 6, 3]
    with pytest.raises(UsageError, match="'crane' is the name of 2 classes") as error:
        _class("crane", names)
    assert error.value.hint == "give a number: 2 or 3"
