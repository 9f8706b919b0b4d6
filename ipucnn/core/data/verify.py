"""Whether a dataset on disk is complete and unchanged."""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import List, Optional

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.registry import registry
from ipucnn.core.specs import DatasetSpec


def verify(path: str, name: Optional[str] = None) -> List[str]:
    """Return the problems of a dataset on disk, one line each.

    Args:
        path: its folder.
        name: its format; recognised by its layout when None.

    Raises:
        DataError: there is no such folder.
        UsageError: the format is unknown or cannot be verified.
    """
    if not os.path.isdir(path):
        raise DataError(f"folder {path!r} does not exist", "check its name")
    spec = registry().get_typed(DatasetSpec, name or recognised(path))
    if not spec.verify:
        able = [other for other in registry().names("dataset")
                if registry().get_typed(DatasetSpec, other).verify]
        raise UsageError(f"dataset {spec.name!r} cannot be verified",
                         "datasets that can: " + ", ".join(able))
    module, _, attribute = spec.verify.partition(":")
    problems: List[str] = getattr(import_module(module), attribute)(path)
    return problems


def recognised(path: str) -> str:
    """Return the name of the dataset that a folder looks like."""
    train = os.path.join(path, "train")
    if os.path.isdir(train) and any(re.fullmatch(r"n\d{8}", name) for name in os.listdir(train)):
        return "imagenet"
    inside = set(os.listdir(path))
    if inside & {"cifar-10-batches-py", "cifar-10-batches-bin", "data_batch_1", "data_batch_1.bin"}:
        return "cifar10"
    if inside & {"cifar-100-python", "cifar-100-binary", "train.bin"} or os.path.isfile(train):
        return "cifar100"
    return "image_folder"
