"""Orders training samples and feeds them to a session as combined batches.

With several instances, each prepares its own part of every host call.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy
import torch

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingBatch, TrainingSession
from ipucnn.data.augment import TrainTransform
from ipucnn.data.dataset_checks import order_of
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.labels import label_tensor
from ipucnn.data.loader import Batch, Loader
from ipucnn.data.mixup import draw
from ipucnn.data.session_loader import feed
from ipucnn.models.class_names import labels_by_output
from ipucnn.training.setup.class_balance import without_label
from ipucnn.training.setup.preparation import Prepared


def own_part(order: numpy.ndarray[Any, Any], plan: ExecutionPlan,
             index: int) -> numpy.ndarray[Any, Any]:
    """Return the samples of an order that belong to an instance.

    Each host call takes the next B x D x R x G of them; within a call the replica varies faster
    than accumulation step and iteration (`TrainingBatch`). So the instances together train on the
    same samples as one process with all replicas.

    Args:
        order: indices of samples, a numpy array; an incomplete last host call is left out.
        plan: of all instances.
        index: of the instance.
    """
    if plan.instances == 1:
        return order
    whole = len(order) // plan.combined_batch * plan.combined_batch
    first = index * plan.local_replicas
    return order[:whole].reshape(-1, plan.replicas, plan.micro_batch)[
        :, first:first + plan.local_replicas].reshape(-1)


class Feed:
    """Combined batches of one epoch, from any position in it.

    Args:
        prepared: the training.
        session: the session to feed.
        epoch: the epoch, from 0.
        consumed: samples of the epoch's order that were used before, by all instances.
        bad: samples known to be unreadable.

    Attributes:
        bad: those up to the last batch, too.
    """

    def __init__(self, prepared: Prepared, session: TrainingSession, epoch: int,
                 consumed: int = 0, bad: Sequence[int] = ()) -> None:
        self._prepared = prepared
        self._epoch = epoch
        self._start, self._left = consumed, 0
        self.loader: Optional[Loader] = None
        self.bad = list(bad)
        options = prepared.options
        self._mix = prepared.setup.mix
        # processes of later pipeline stages receive no images
        if not prepared.data.on_device and prepared.instances.index < prepared.plan.instances:
            self._left = len(prepared.dataset) - consumed
            order = own_part(order_of(prepared.dataset, options.dataset.seed, epoch)[consumed:],
                             prepared.plan, prepared.instances.index)
            self.loader = feed(
                session, prepared.dataset, prepared.plan, prepared.plan.local_batch,
                (int(index) for index in order), workers=options.dataset.dataloader_worker,
                skip_bad=options.dataset.skip_bad_samples, transform=transform_of(prepared),
                bad=bad, epoch=epoch, cache=prepared.cache)

    def begin(self) -> None:
        """Let threads prepare the first images before the iteration; see `Loader.begin`."""
        if self.loader is not None:
            self.loader.begin()

    def close(self) -> None:
        """Stop preparing images."""
        if self.loader is not None:
            self.loader.close()

    def __iter__(self) -> Iterator[Tuple[TrainingBatch, int]]:
        """Yield each whole batch, and the number of samples of the order used so far."""
        plan = self._prepared.plan
        size = plan.combined_batch
        if self.loader is None:
            for consumed in range(self._start + size, len(self._prepared.dataset) + 1, size):
                yield TrainingBatch(None, None), consumed
            return
        if self._left < size:
            return
        with self.loader as loader:
            for batch in loader:
                if len(batch) < plan.local_batch:
                    return
                self.bad = loader.bad_within(batch.consumed)
                yield self._made(batch), self._start + batch.consumed * plan.instances

    def _made(self, batch: Batch) -> TrainingBatch:
        prepared, plan = self._prepared, self._prepared.plan
        labels = _labels(batch, prepared)
        mixing = draw(self._mix, prepared.options.dataset.seed, self._epoch, batch.indices,
                      plan.micro_batch, prepared.built.input_size) if self._mix.enabled else None
        return TrainingBatch(batch.images, labels, mixing)


def still_bad(prepared: Prepared, bad: Sequence[int]) -> List[int]:
    """Try to read unreadable images again; return those that still cannot be read.

    Args:
        prepared: the training.
        bad: indices of the images.
    """
    if not prepared.options.dataset.skip_bad_samples:
        return list(bad)
    images = [index for index in bad if index < len(prepared.dataset)]
    with HostLoader(prepared.dataset, prepared.plan.preprocessing, 1, images,
                    workers=prepared.options.dataset.dataloader_worker, skip_bad=True, part=True,
                    transform=transform_of(prepared), pixels=prepared.plan.pixels,
                    cache=prepared.cache) as loader:
        for _ in loader:
            pass
        return list(loader.bad)


def _labels(batch: Batch, prepared: Prepared) -> torch.Tensor:
    classes = prepared.built.num_outputs
    if prepared.match is not None:
        if None in batch.labels:
            raise without_label(prepared.dataset, batch.indices[batch.labels.index(None)])
        return label_tensor(labels_by_output(prepared.match, batch.labels), classes)
    # generated images: labels are arbitrary
    return torch.tensor([index % classes for index in batch.indices])


def transform_of(prepared: Prepared) -> Optional[TrainTransform]:
    """Return the random augmentation of the training images, or None."""
    options, changes = prepared.options, prepared.options.augmentation
    if changes.augmentation == "none" or not prepared.data.labelled:
        return None
    return TrainTransform(
        prepared.built.input_size, options.dataset.seed, prepared.dataset,
        rand_augment=changes.rand_augment, magnitude=changes.rand_augment_magnitude,
        use_boxes=changes.use_bbox_info, min_area=changes.least_area)

