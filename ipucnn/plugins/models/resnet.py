"""ResNet, from torchvision."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec
from ipucnn.plugins.models._torchvision import Network, Published, model

_V1 = {
    18: ("resnet18-f37072fd.pth", 69.758, 89.078),
    34: ("resnet34-b627a593.pth", 73.314, 91.42),
    50: ("resnet50-0676ba61.pth", 76.13, 92.862),
    101: ("resnet101-63fe2227.pth", 77.374, 93.546),
    152: ("resnet152-394f9c45.pth", 78.312, 94.046),
}
_V2 = {
    50: ("resnet50-11ad3fa6.pth", 80.858, 95.434),
    101: ("resnet101-cd907fc2.pth", 81.886, 95.78),
    152: ("resnet152-f82ba261.pth", 82.284, 96.002),
}


def _record(depth: int, v1: Published) -> ModelSpec:
    return model(f"resnet{depth}", f"ResNet with {depth} layers", "resnet",
                 Network(f"resnet{depth}", v1, _V2.get(depth), residual=True),
                 aliases=(f"resnet-{depth}",))


@hookimpl
def ipucnn_models() -> List[ModelSpec]:
    """Return the records of ResNets of five depths."""
    return [_record(depth, v1) for depth, v1 in _V1.items()]
