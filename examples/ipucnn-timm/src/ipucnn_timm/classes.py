"""The names of the outputs of networks for more than ImageNet's 1000 classes."""

from __future__ import annotations

from typing import Tuple

_SUBSETS = {"imagenet_11221": "imagenet-21k-miil", "imagenet_11821": "imagenet-12k",
            "imagenet_21841": "imagenet-22k", "imagenet_21842": "imagenet-22k-ms",
            "imagenet_21843": "imagenet-21k-goog"}


def __getattr__(name: str) -> Tuple[str, ...]:
    if name not in _SUBSETS:
        raise AttributeError(name)
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(_SUBSETS[name]).label_descriptions())
