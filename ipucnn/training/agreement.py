"""Checks that the processes of a training do the same work."""

from __future__ import annotations

import re
from typing import Any, Dict

from ipucnn.core.environment import describe
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.options.composition import settings
from ipucnn.data import ImageDataset
from ipucnn.training.options import TrainOptions

_PATHS = ("DIR", "FILE")
"""First placeholders of paths in help; paths may differ between hosts."""


def check_options(instances: Instances, options: TrainOptions) -> None:
    """Raise an error in processes that differ from the first in options or versions; collective.

    The seed is not compared, because all processes use that of the first one.

    Raises:
        UsageError: names the first process that differs, and the difference.
    """
    versions = describe()["packages"]
    own: Dict[str, Any] = {name: versions.get(name) for name in ("ipucnn", "torch")}
    saved = options.as_dict()
    own.update((item.flag, saved[name]) for name, (item, _) in settings(options).items()
               if name in saved and not item.option.machine and name != "seed"
               and re.split("[.|]", item.option.metavar)[0] not in _PATHS)
    _compare(instances, own, "start the same command, with the same versions, on every host")


def check_images(instances: Instances, dataset: ImageDataset) -> None:
    """Raise an error in processes with other training images than the first; collective.

    Raises:
        UsageError: names the first process that differs, and the difference.
    """
    if instances.count > 1:
        _compare(instances, {
            "number of images": len(dataset), "classes": list(dataset.class_names),
            "list of images": dataset.fingerprint()},
            "give every host the same files, under the same names")


def _compare(instances: Instances, own: Dict[str, Any], hint: str) -> None:
    first, *others = instances.gather(own)
    for number, other in enumerate(others, 2):
        for name in first:
            if other.get(name) != first[name]:
                raise UsageError(
                    f"instance {number} of {instances.count} has {name} {other.get(name)!r}, and "
                    f"the first one {first[name]!r}", hint)
