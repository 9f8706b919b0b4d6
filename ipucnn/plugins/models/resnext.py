"""ResNeXt, from torchvision and, for the 32x4d network of 101 layers, from pretrainedmodels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, List

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec, PublishedWeights
from ipucnn.plugins.models._torchvision import Network, model

if TYPE_CHECKING:
    import torch


def build_resnext101_32x4d(num_classes: int) -> torch.nn.Module:
    """Return the ResNeXt-101 32x4d of pretrainedmodels with random weights, nothing downloaded."""
    import torch

    device = torch.empty(0).device
    # The library makes its layers when it is imported: on the CPU then, whatever the device in
    # force, and without drawing from the seed, or a process's first network would differ.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        from pretrainedmodels.models.resnext import resnext101_32x4d

        # It makes them once per process: without the copy, all models would share their weights.
        network: torch.nn.Module = copy.deepcopy(resnext101_32x4d(pretrained=None))
    network.to_empty(device=device)
    network.last_linear = torch.nn.Linear(2048, num_classes)
    network.num_classes = num_classes  # type: ignore[assignment]
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d)):
            module.reset_parameters()
    return network


@hookimpl
def ipucnn_models() -> List[ModelSpec]:
    """Return the records of ResNeXt-50 and two networks that are both called ResNeXt-101."""
    return [
        model("resnext50", "ResNeXt with 50 layers, 32 groups of width 4", "resnext",
              Network("resnext50_32x4d", ("resnext50_32x4d-7cdf4587.pth", 77.618, 93.698),
                      ("resnext50_32x4d-1a0047aa.pth", 81.198, 95.34), residual=True),
              aliases=("resnext50_32x4d",)),
        model("resnext101", "ResNeXt with 101 layers, 32 groups of width 8", "resnext",
              Network("resnext101_32x8d", ("resnext101_32x8d-8ba56ff5.pth", 79.312, 94.526),
                      ("resnext101_32x8d-110c445d.pth", 82.834, 96.228), residual=True),
              aliases=("resnext101_32x8d",)),
        ModelSpec(
            name="resnext101_32x4d", summary="ResNeXt with 101 layers, 32 groups of width 4",
            target="ipucnn.plugins.models.resnext:build_resnext101_32x4d", family="resnext",
            source="pretrainedmodels", zero_init_residual=True,
            # the library's settings of this network: 224 of 256 pixels, ImageNet's mean and std
            preprocessing=Preprocessing(), input_sizes=(193, 224),  # pools exactly 7x7 values
            requires=(Requirement("pretrainedmodels", "pip install pretrainedmodels"),
                      Requirement("six", "pip install six")),
            weights=(PublishedWeights(
                tag="imagenet", sha256="29e315fa", licence="BSD-3-Clause",
                url="http://data.lip6.fr/cadene/pretrainedmodels/resnext101_32x4d-29e315fa.pth",
                source="pretrainedmodels", top1=78.188, top5=93.886),)),
    ]
