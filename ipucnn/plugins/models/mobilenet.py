"""MobileNet versions 2 and 3, from torchvision."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec
from ipucnn.plugins.models._torchvision import Network, model


@hookimpl
def ipucnn_models() -> List[ModelSpec]:
    """Return the records of MobileNet-V2 and both sizes of MobileNet-V3."""
    return [
        model("mobilenet", "MobileNet-V2", "mobilenet",
              Network("mobilenet_v2", ("mobilenet_v2-b0353104.pth", 71.878, 90.286),
                      ("mobilenet_v2-7ebf99e0.pth", 72.154, 90.822)),
              aliases=("mobilenet-v2", "mobilenetv2")),
        model("mobilenet-v3-small", "MobileNet-V3 small", "mobilenet",
              Network("mobilenet_v3_small", ("mobilenet_v3_small-047dcff4.pth", 67.668, 87.402)),
              aliases=("mobilenetv3-small",)),
        model("mobilenet-v3-large", "MobileNet-V3 large", "mobilenet",
              Network("mobilenet_v3_large", ("mobilenet_v3_large-8738ca79.pth", 74.042, 91.34),
                      ("mobilenet_v3_large-5c1a4163.pth", 75.274, 92.566)),
              aliases=("mobilenetv3-large",)),
    ]
