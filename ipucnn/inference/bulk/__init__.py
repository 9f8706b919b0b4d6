"""`--instances N`: one run shared by N processes on this machine.

The parent starts the processes, listens and makes one result; each child executes the same job as a
run of one process, with its share of the images and of the cores.
"""

from __future__ import annotations

from typing import Optional

from ipucnn.core.execution.instances import launched
from ipucnn.core.options import RunOptions
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.inference import job as inference
from ipucnn.inference.bulk import parent
from ipucnn.inference.run_result import RunResult

__all__ = ["run"]


def run(options: RunOptions, registry: Optional[Registry] = None,
        progress: Optional[inference.Progress] = None) -> RunResult:
    """Run inference in as many processes as the options say.

    Args:
        options: what to run.
        registry: where names are looked up; this process's when not given.
        progress: told how far the run is.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry = registry or current_registry()
    if options.instances == 1 or launched() is not None:
        return inference.run(options, registry, progress)
    inference.prepare(options, registry)  # to find mistakes, and to fetch weights once
    return parent.run(options, registry.settings, progress or (lambda *_: None))
