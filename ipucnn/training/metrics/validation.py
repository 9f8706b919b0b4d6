"""Validation: counts every sample of a dataset exactly once, over all instances."""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.execution.accuracy import UNKNOWN, TopK, per_cent
from ipucnn.core.execution.backend import Backend, InferenceSession
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.losses import Loss, total_of
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.session_checks import compiled, logits_of, opened
from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.progress import Listener, Status
from ipucnn.core.showing import Blocks, Shown, ShownList, Table
from ipucnn.data import ImageDataset
from ipucnn.data.labels import label_tensor
from ipucnn.data.loader import Batch, Loader
from ipucnn.data.pixel_cache import PixelCache
from ipucnn.data.session_loader import feed
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_content import load_state
from ipucnn.models.class_names import ClassMatch, labels_by_output
from ipucnn.models.target_checks import copied
from ipucnn.reports.evidence import Evidence, merged
from ipucnn.reports.thumbnails import of_dataset, with_thumbnails


class Interrupted(Exception):
    """The listener of a validation has requested a stop."""


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """The scores of a model on a dataset.

    Attributes:
        epoch: number of epochs the model was trained for.
        weights: `raw`, or `ema` for the moving average.
        images: images counted, each once.
        loss: mean of the loss that the training minimises, without label smoothing.
        top1, top5: per cent of the images whose class is the first, or among the first five; of
            several classes, any.
        skipped: images that could not be read.
        checkpoint: file of the weights, if any.
        confusion: images by true class (row) and predicted class; empty where images may have
            several classes.
        class_names: of rows and columns.
        unknown: images of classes that the model does not have; they are not counted.
        evidence: data for a report on the predictions, see `ipucnn.reports.evidence.merged`.
    """

    epoch: int
    weights: str
    images: int
    loss: float
    top1: float
    top5: float
    skipped: int = 0
    checkpoint: str = ""
    confusion: List[List[int]] = field(default_factory=list)
    class_names: List[str] = field(default_factory=list)
    unknown: int = 0
    evidence: Dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The weights, for a line of results; empty for those of the model itself."""
        return " (moving average)" if self.weights == "ema" else ""

    def per_class(self) -> List[Dict[str, Any]]:
        """Return name, number of images and accuracy in per cent of every class."""
        rows = []
        for name, row, index in zip(self.class_names, self.confusion, range(len(self.confusion))):
            total = sum(row)
            rows.append({"class": name, "images": total,
                         "top1": 100 * row[index] / total if total else None})
        return rows

    def figures(self) -> Dict[str, Any]:
        """Return the scores as plain types, without the confusion matrix and the evidence."""
        return {item.name: getattr(self, item.name) for item in fields(self)
                if item.name not in ("confusion", "class_names", "evidence")}

    def document(self, dataset: Optional[ImageDataset] = None) -> Dict[str, Any]:
        """Return the scores and the evidence as plain types, for a report.

        Args:
            dataset: the images, to add thumbnails of the selected ones; None adds none.
        """
        evidence = self.evidence if dataset is None else with_thumbnails(
            self.evidence, of_dataset(dataset))
        return {"format": "ipucnn.validation/1", **self.figures(), "evidence": evidence}

    def blocks(self) -> Blocks:
        """Return the scores; see `Shown`."""
        return [_scores([self])]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per class."""
        return self.per_class()


class Validations(ShownList[Validation]):
    """The validations of the checkpoints of a training, in the order of its epochs.

    Attributes:
        stopped_by: a signal such as `SIGINT` when not all were validated.
        details: of the last one, for a report: model, dataset, backend, options, environment and
            card, and the evidence with thumbnails.
    """

    stopped_by: Optional[str] = None
    details: Dict[str, Any] = {}

    def as_dict(self, per_class: bool = False) -> Dict[str, Any]:
        """Return the validations as plain types, for JSON; on request with those of each class."""
        return {"format": "ipucnn.validate/1", "validations": [
            {**one.figures(), **({"per_class": one.per_class()} if per_class else {})}
            for one in self]}

    def picture(self, dataset: ImageDataset) -> None:
        """Add the evidence of the last validation to the details, with thumbnails."""
        if self:
            self.details = {**self.details, "evidence": self[-1].document(dataset)["evidence"]}

    def document(self, per_class: bool = False) -> Dict[str, Any]:
        """Return the validations and their details as plain types, for a file and a report."""
        return {**self.as_dict(per_class), **self.details}

    def tables(self, per_class: bool = False) -> List[Table]:
        """Return the scores; on request also those of each class in the last validation."""
        return [_scores(self), *([_classes(self[-1])] if per_class else [])]

    def blocks(self) -> Blocks:
        """Return the scores; see `Shown`."""
        return self.tables()

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per validation."""
        return [validation.figures() for validation in self]


def _scores(found: Sequence[Validation]) -> Table:
    return Table(("checkpoint", "epoch", "weights", "images", "loss", "top-1 %", "top-5 %"),
                 [(os.path.basename(v.checkpoint), str(v.epoch), v.weights, str(v.images),
                   f"{v.loss:.4f}", f"{v.top1:.2f}", f"{v.top5:.2f}") for v in found])


def _classes(found: Validation) -> Table:
    return Table(("class", "images", "top-1 %"), [
        (row["class"], str(row["images"]), "" if row["top1"] is None else f"{row['top1']:.2f}")
        for row in found.per_class()])


@dataclass
class Evaluator:
    """Evaluates weights of one model on one dataset; close it when done.

    If the session can load other weights, the model is compiled once for all evaluations.

    Attributes:
        module: the model; it is copied for each evaluation.
        backend: the backend that runs it.
        loss: the loss that is reported.
        plan: of the inference.
        dataset: the images.
        card: of the model.
        match: the model's class for each label of the dataset; None if labels are used unchanged.
        workers, skip_bad: as in `Loader`.
        instances: the processes that share the images; all return the same result.
        cache: a cache of images at the input size.
        plugin: a third-party backend in words; what it returns is checked.
    """

    module: nn.Module
    backend: Backend
    loss: Loss
    plan: ExecutionPlan
    dataset: ImageDataset
    card: ModelCard
    match: Optional[ClassMatch]
    workers: Optional[int] = None
    skip_bad: bool = False
    instances: Instances = ALONE
    cache: Optional[PixelCache] = None
    plugin: str = ""
    _kept: Optional[InferenceSession] = field(default=None, init=False)

    def close(self) -> None:
        """Free the device."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def example(self) -> StateDict:
        """Return weights of the model that may be replaced in place."""
        return {name: value.clone() for name, value in self.module.state_dict().items()}

    @contextmanager
    def _session(self, weights: StateDict, checkpoint: str) -> Iterator[InferenceSession]:
        if self._kept is None:
            module = copied(self.module)
            load_state(module, weights, checkpoint)
            made = self.backend.inference(module, self.plan, self.plan.preprocessing.input_size)
            session = opened(made, InferenceSession, self.plugin)
            if not session.reloadable:
                with session:
                    compiled(session, self.plugin)
                    yield session
                return
            self._kept = session
            compiled(session, self.plugin)
        else:
            self._kept.load(weights)
        yield self._kept
        self._kept.pause()

    def __call__(self, weights: StateDict, epoch: int, kind: str = "raw", checkpoint: str = "",
                 listener: Optional[Listener] = None) -> Validation:
        """Evaluate `weights`.

        Raises:
            Interrupted: the listener of any instance requests a stop.
            DataError: an image cannot be read, or has no label.
            CheckpointError: the weights are of another network.
        """
        total = len(self.dataset)
        # images are interleaved over the instances, so that their parts differ by one at most
        own = self.plan.own(self.instances.index, total)
        count, stopped = _Count(self.loss), ""
        evidence = Evidence(self.card.names)
        with self._session(weights, checkpoint) as session, \
                feed(session, self.dataset, self.plan, session.samples_per_call, own,
                     workers=self.workers, skip_bad=self.skip_bad, cache=self.cache) as loader:
            for batch, logits in self._classified(session, loader):
                labels = self._labels(batch, logits.shape[1])
                count.add(logits, labels)
                evidence.add(batch.indices, self.card.probabilities(logits.float()), labels)
                if listener:
                    done = count.top.images * self.plan.instances
                    listener.status(Status("validating", epoch, done=done, total=total))
                    stopped = listener.stop()
                    if stopped:
                        break
            session.finish()
            count.skipped = loader.skipped_count
        stopped = next((reason for reason in self.instances.gather(stopped) if reason), "")
        if stopped:
            raise Interrupted(stopped)
        count.share(self.instances)
        skipped = count.skipped
        images = count.top.images
        if count.not_finite:
            raise IpucnnError(
                f"the outputs of the model after epoch {epoch} are not finite for "
                f"{count.not_finite} images", "its weights have diverged: use an earlier "
                "checkpoint, or a lower '--lr'")
        if images + skipped + count.unknown != total:
            raise DataError(f"{images} of {total} validation images were counted",
                            "this is a fault of the dataset or of ipucnn; please report it")
        shown = merged(self.instances.gather(evidence.reduced(self.dataset.name)))
        return Validation(epoch, kind, images, count.mean_loss(), per_cent(count.top.top1, images),
                          per_cent(count.top.top5, images), skipped, checkpoint, count.matrix(),
                          self.card.names, count.unknown, shown)

    def _classified(self, session: InferenceSession,
                    loader: Loader) -> Iterator[Tuple[Batch, torch.Tensor]]:
        """Yield the batches of a loader with their logits; calls are started before others end."""
        started: Deque[Tuple[Batch, Callable[[], Any]]] = deque()

        def first() -> Tuple[Batch, torch.Tensor]:
            batch, wait = started.popleft()
            logits = logits_of(wait, len(batch), self.card.num_outputs, self.plugin)
            return batch, torch.as_tensor(logits)  # engines that take arrays return arrays

        for batch in loader:
            started.append((batch, session.start(batch.images)))
            if len(started) >= session.in_flight:
                yield first()
        while started:
            yield first()

    def _labels(self, batch: Batch, classes: int) -> torch.Tensor:
        if self.match is None:
            return torch.tensor([index % classes for index in batch.indices])
        if None in batch.labels:
            name = self.dataset.name(batch.indices[batch.labels.index(None)])
            raise DataError(f"image {name!r} has no label", "validation needs one of each")
        return label_tensor(labels_by_output(self.match, batch.labels), classes)


class _Count:
    """Sums over batches, in double precision, so that the results do not depend on the batching."""

    def __init__(self, loss: Loss) -> None:
        self.top, self.skipped = TopK(), 0
        self.unknown, self.not_finite = 0, 0
        self._function = loss
        self._loss, self._weight = 0.0, 0.0
        self._matrix: Optional[torch.Tensor] = None

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        classes = logits.shape[1]
        self.not_finite += int((~logits.isfinite().all(1)).sum())
        if labels.dim() == 1:
            known = labels != UNKNOWN
            self.unknown += int((~known).sum())
            logits, labels = logits[known], labels[known]
        if not len(labels):
            return
        loss, weight = total_of(self._function, logits, labels)
        self._loss += loss
        self._weight += weight
        best = self.top.add(logits, labels)
        if labels.dim() > 1:
            return
        if self._matrix is None:
            self._matrix = torch.zeros(classes * classes, dtype=torch.int64)
        self._matrix += torch.bincount(labels * classes + torch.from_numpy(best[:, 0]),
                                       minlength=classes**2)

    def share(self, instances: Instances) -> None:
        """Reduce the sums over all instances."""
        if instances.count == 1:
            return
        matrix = torch.zeros(0, dtype=torch.int64) if self._matrix is None else self._matrix
        entries = max(instances.gather(len(matrix)))  # an instance without images has no classes
        if entries:
            self._matrix = instances.sum(nn.functional.pad(matrix, (0, entries - len(matrix))))
        self.top = TopK.merged(instances.gather(self.top.as_plain()))
        skipped, unknown, not_finite, self._loss, self._weight = instances.totals(
            [self.skipped, self.unknown, self.not_finite, self._loss, self._weight])
        self.skipped, self.unknown = int(skipped), int(unknown)
        self.not_finite = int(not_finite)

    def mean_loss(self) -> float:
        return self._loss / self._weight if self._weight else 0.0

    def matrix(self) -> List[List[int]]:
        if self._matrix is None:
            return []
        classes = round(len(self._matrix) ** 0.5)
        rows: List[List[int]] = self._matrix.view(classes, classes).tolist()
        return rows
