"""The residual networks for small images, and the types of shortcuts. It is not a plugin.

Kaiming He et al., "Deep Residual Learning for Image Recognition" (2015). Names of modules are
torchvision's, and so are its blocks.
"""

from __future__ import annotations

from typing import Any, List

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock


class PaddedShortcut(nn.Module):
    """Option A of the paper: every `stride`-th pixel, and zeros as the further channels."""

    def __init__(self, further: int, stride: int) -> None:
        super().__init__()
        self.further = further
        self.stride = stride

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return `(n, c + further, h / stride, w / stride)` of `(n, c, h, w)`."""
        return nn.functional.pad(images[:, :, ::self.stride, ::self.stride],
                                 (0, 0, 0, 0, 0, self.further))


class CifarResNet(nn.Module):
    """The networks of 6n+2 layers in section 4.2 of the paper.

    Blocks that change the shape have no shortcut until `set_shortcuts` is called.

    Args:
        blocks: n, of each of the three stages.
        num_classes: outputs of the last layer.
    """

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        _initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits `(n, num_classes)` of images `(n, 3, h, w)`."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.avgpool(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(torch.flatten(x, 1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride),
                         *[BasicBlock(outputs, outputs) for _ in range(blocks - 1)])


def keep_resolution(model: nn.Module) -> None:
    """Replace a torchvision network's stem for small images: 3x3, stride 1, no pooling."""
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    _initialise(model.conv1)


def set_shortcuts(model: nn.Module, kind: str) -> None:
    """Set the shortcut of every block of a residual network.

    Args:
        model: a network of torchvision's blocks.
        kind: section 4.1 of the paper: A pads with zeros where shapes differ, B projects there,
            C projects everywhere.
    """
    blocks: List[Any] = [module for module in model.modules() if hasattr(module, "downsample")]
    for block in blocks:
        inputs = block.conv1.in_channels
        outputs = [m for m in block.children() if isinstance(m, nn.Conv2d)][-1].out_channels
        stride = block.stride
        differs = (stride, inputs) != (1, outputs)
        if kind == "C" or (kind == "B" and differs):
            block.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            _initialise(block.downsample)
        elif differs:
            block.downsample = PaddedShortcut(outputs - inputs, stride)
        else:
            block.downsample = None


def _initialise(model: nn.Module) -> None:
    """Draw the weights of convolutions as torchvision does: He et al., by fan-out."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
