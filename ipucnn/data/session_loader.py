"""Selects the data loader for a session: the session's own, or threads of this process."""

from __future__ import annotations

from typing import Any, Iterable, cast
from weakref import WeakKeyDictionary

from ipucnn.core.execution.feeding import Fed, FeedRequest
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data import ImageDataset
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.loader import Loader
from ipucnn.data.workers import Memory

_memories: WeakKeyDictionary[Fed, Memory] = WeakKeyDictionary()
"""Batch memory by session, reused by its loaders, of which there is one per epoch."""


def feed(session: Fed, dataset: ImageDataset, plan: ExecutionPlan, batch_size: int,
         indices: Iterable[int], **how: Any) -> Loader:
    """Return the loader that decodes and batches images for a session.

    Args:
        session: the session to feed; it may have its own loader.
        dataset: the images.
        plan: of the session; it defines the preprocessing and the pixel format.
        batch_size: images per batch.
        indices: which images, in which order; may be a generator.
        **how: further arguments of a `Loader`.
    """
    how.update(pixels=plan.pixels, arrays=session.takes_arrays)
    own = session.feed(FeedRequest(dataset, plan.preprocessing, batch_size, indices, how))
    if own is not None:
        return cast(Loader, own)
    memory = _memories.setdefault(session, Memory())
    return HostLoader(dataset, plan.preprocessing, batch_size, indices, memory=memory, **how)
