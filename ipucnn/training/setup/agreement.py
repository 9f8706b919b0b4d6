"""Checks that the processes of a training do the same work."""

from __future__ import annotations

import re
from typing import Any, Dict, Optional

from ipucnn.core.environment import describe
from ipucnn.core.execution.instances import Instances, check_equal
from ipucnn.core.options.composition import settings
from ipucnn.training.checkpoints.checkpoint import Checkpoint
from ipucnn.training.options.train_options import TrainOptions

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
    check_equal(instances, own, "start the same command, with the same versions, on every host")


def check_start(instances: Instances, restored: Optional[Checkpoint]) -> None:
    """Raise an error in processes that continue from another checkpoint; collective.

    Hosts that do not share the folder of checkpoints may have those of different trainings, or
    none. Each process reads its checkpoint by itself.

    Raises:
        UsageError: names the first process that differs, and the checkpoints.
    """
    own = "none" if restored is None else f"{restored.name}, update {restored.position.update}"
    check_equal(instances, {"checkpoint to continue from": own},
                "all hosts must share the folder of checkpoints, which can be on a store")
