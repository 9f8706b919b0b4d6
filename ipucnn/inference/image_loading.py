"""Loads the images of a run; the first ones while its network is compiled."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from itertools import islice
from threading import Thread
from typing import Optional, Tuple

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.session_checks import compiled
from ipucnn.data.dataset_checks import file_of
from ipucnn.data.loader import Loader, order
from ipucnn.data.opening import as_opened
from ipucnn.data.session_loader import feed
from ipucnn.inference.automatic_tuning import may_measure
from ipucnn.inference.prepared_run import Job

_FEW_IMAGES, _MANY_BYTES = 32, 200 << 20
"""Number of images, and minimum size of all of them in bytes, for which torch is imported only for
resizing. Importing it takes as long as it saves for two thousand images of 500x375 pixels, compared
with numpy; the pixels are the same."""


def own_part(job: Job) -> range:
    """Return the positions of this process's images."""
    return job.plan.own(job.instances.index, job.images)


def loader_of(job: Job, session: InferenceSession) -> Loader:
    """Return the loader of this process's part of the images."""
    part, several = own_part(job), job.instances.count > 1
    own = islice(order(len(job.dataset), job.images), part.start, part.stop, part.step)
    return feed(session, job.dataset, job.executed, session.samples_per_call, own,
                workers=job.options.dataset.dataloader_worker,
                skip_bad=job.options.dataset.skip_bad_samples, part=several,
                finish=not (several and job.instances.in_step))  # a call is one of all instances


def compiled_ahead(session: InferenceSession, job: Job,
             stack: ExitStack) -> Tuple[float, Optional[Loader]]:
    """Compile a session; prepare the first images meanwhile if it does not need torch.

    Returns:
        The duration of compilation in seconds, and the loader that has begun to prepare images,
        which `stack` closes. None if torch was imported instead, for resizing many images, or if
        the loader is created after compilation.
    """
    plugin = job.chosen.plugin
    if not session.takes_arrays or as_opened(job.data, job.dataset).on_device:
        return compiled(session, plugin), None
    if _much_to_resize(job):
        thread = Thread(target=import_module, args=("torch",), daemon=True)
        thread.start()
        seconds = compiled(session, plugin)
        thread.join()
        return seconds, None
    if job.options.execution.compile_only or may_measure(job):
        return compiled(session, plugin), None
    loader = stack.enter_context(loader_of(job, session))
    loader.begin()
    return compiled(session, plugin), loader


def _much_to_resize(job: Job) -> bool:
    """Return whether there are so many images that importing torch for resizing is faster."""
    total = job.images
    if total < _FEW_IMAGES or job.dataset.ready:
        return False
    try:
        first = file_of(job.dataset, 0)
    except IpucnnError:  # reported or skipped when its turn comes
        return True
    return first is None or total * len(first) > _MANY_BYTES
