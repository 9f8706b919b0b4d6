"""`--instances N`: splits a run over N processes on this machine.

The parent starts the processes, receives their messages and combines their results; each child
executes the same job as a run of one process, with its share of the images and of the cores.
"""

from __future__ import annotations

from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import launched
from ipucnn.core.progress import Progress
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import ImageDataset
from ipucnn.inference import job as inference
from ipucnn.inference.bulk import parent
from ipucnn.inference.bulk.fit import check_fit
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import prepare
from ipucnn.inference.run_result import RunResult

__all__ = ["run"]


def run(options: RunOptions, registry: Optional[Registry] = None,
        progress: Optional[Progress] = None, images: Optional[ImageDataset] = None) -> RunResult:
    """Run inference in the number of processes that the options state.

    Args:
        options: what to run.
        registry: where names are looked up; this process's when not given.
        progress: receives the progress of the run.
        images: the images, instead of those that the options name; one process classifies them.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry = registry or current_registry()
    if options.execution.instances == 1 or launched() is not None:
        return inference.run(options, registry, progress, images)
    if images is not None:
        raise UsageError(f"'--instances {options.execution.instances}' starts processes, which do "
                         "not have this process's images",
                         "leave it out, or name a folder with 'data_dir'")
    if not options.execution.oversubscribe:
        check_fit(options.execution.instances)
    options.results.check_places(options)
    prepare(options, registry)  # to find errors early, and to fetch weights once
    return parent.run(options, registry.settings, progress or (lambda *_: None))
