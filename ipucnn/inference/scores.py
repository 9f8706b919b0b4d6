"""Computes top-k accuracy and predictions, and matches labels with the classes of the model."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

import numpy

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.accuracy import UNKNOWN, TopK
from ipucnn.data import ImageDataset, Label
from ipucnn.data.labels import id_of, labels_of_batch
from ipucnn.inference import predictions
from ipucnn.inference.answers import Answer, Answers
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch, labels_by_output
from ipucnn.reports.evidence import Evidence
from ipucnn.reports.thumbnails import of_dataset, with_thumbnails

if TYPE_CHECKING:
    from ipucnn.data.loader import Batch

    Array = numpy.ndarray[Any, Any]


class Scores:
    """Scores each image once, even if it is classified repeatedly.

    Args:
        dataset: the images to classify.
        card: of the model.
        match: the model's class of each label; None where the dataset has no labels.
        top_k: classes per image in the predictions.
        writer: writes the predictions; None writes none.
        own: the images of this process; see `ExecutionPlan.own`.

    Attributes:
        answers: the first predictions, and how often each class was predicted.
        evidence: collects data for a report, or None.
    """

    evidence: Optional[Evidence] = None

    def __init__(self, dataset: ImageDataset, card: ModelCard,
                 match: Optional[ClassMatch], top_k: int,
                 writer: Optional[predictions.PredictionWriter] = None,
                 own: range = range(0)) -> None:
        self._dataset = dataset
        self._card, self._match = card, match
        self._top_k = min(top_k, card.classes)
        self._writer = writer
        self._class_names = card.names
        self._first_pass = True
        self._next, self._stride = own.start, own.step
        self._count = TopK()
        self.answers = Answers(self._class_names)
        self._labels = 0  # images with a label, also of classes that the model does not have
        self._failed = 0
        self._first_failed = ""

    def add(self, batch: Batch, outputs: Any) -> None:
        """Score a batch; the model's outputs are `(n, num_outputs)`, an array or a tensor."""
        fresh = self._fresh(batch.indices)
        if not fresh:
            return
        names = [self._dataset.name(batch.indices[row]) for row in fresh]
        labels = [batch.labels[row] for row in fresh]
        outputs = numpy.asarray(outputs, numpy.float32)[fresh]
        probabilities = self._card.probabilities(outputs)
        finite = numpy.isfinite(probabilities).all(1)
        if not bool(finite.all()):
            failed = [name for name, good in zip(names, finite.tolist()) if not good]
            self._first_failed = self._first_failed or failed[0]
            self._failed += len(failed)
        if self._writer is not None:
            indices = [batch.indices[row] for row in fresh]
            self._writer.write(self._lines(names, indices, labels, probabilities, finite), indices)
        # the order of logits; probabilities close to 1 are rounded
        ranked = outputs if outputs.shape[1] > 1 else probabilities
        ranked = numpy.where(finite[:, None], ranked, 0)
        known: Optional[Array] = None
        if self._match is not None:
            self._labels += sum(label is not None for label in labels)
            known = labels_of_batch(labels_by_output(self._match, labels),
                                    len(self._class_names))
            self._count.add(ranked, known * finite[:, None] if known.ndim > 1 else numpy.where(
                finite | (known == UNKNOWN), known, len(self._class_names)))
        if self.evidence is not None:
            self.evidence.add([batch.indices[row] for row in fresh], probabilities, known)
        best = ranked.argmax(1)
        self._keep(batch, fresh, best, _picked(probabilities, best), known)

    def _fresh(self, indices: Sequence[int]) -> List[int]:
        """Return the rows of a batch with images of the first pass over the data.

        A run longer than its data repeats it in order; in the second pass an index is lower than
        the next one of the first pass, which lacks only images that cannot be read.
        """
        fresh: List[int] = []
        for row, index in enumerate(indices):
            self._first_pass = self._first_pass and index >= self._next
            self._next = index + self._stride
            if self._first_pass:
                fresh.append(row)
        return fresh

    def _lines(self, names: Sequence[str], indices: Sequence[int],
               labels: Sequence[Optional[Label]], probabilities: Array,
               finite: Array) -> List[Dict[str, Any]]:
        """Return the lines of images in the file of predictions."""
        dataset = self._dataset
        one = self._match is not None and not dataset.multi_label
        lines = predictions.described(predictions.rows(
            names, [label if isinstance(label, int) else None for label in labels] if one
            else None, probabilities, self._class_names, self._top_k,
            [id_of(dataset, index) for index in indices] if dataset.has_image_ids else None),
            dataset.class_names, dataset.split)
        for line, good, label in zip(lines, finite.tolist(), labels):
            if not good:
                line.update(dict.fromkeys(predictions.columns(self._top_k, False)[1:]))
            if one and isinstance(label, int) and self._match is not None:
                # the number of the model's class, to compare with `class_1`
                line["label"] = self._match.outputs[label]
            if isinstance(label, tuple):
                line["labels"] = "|".join(dataset.class_names[number] for number in label)
        return lines

    def _keep(self, batch: Batch, fresh: Sequence[int], best: Array, certain: Array,
              known: Optional[Array]) -> None:
        """Add the predictions with finite outputs to `answers`."""
        correct: List[Optional[bool]] = [None] * len(fresh)
        if known is not None and known.ndim > 1:
            correct = [value > 0 for value in _picked(known, best).tolist()]
        elif known is not None:
            correct = [None if wanted == UNKNOWN else wanted == found
                       for wanted, found in zip(known.tolist(), best.tolist())]
        self.answers.labelled = known is not None
        for row, output, probability, right in zip(fresh, best.tolist(), certain.tolist(), correct):
            if isfinite(probability):
                self.answers.add(self._dataset, batch.indices[row], Answer(
                    output, probability, batch.labels[row], right))

    def shown(self) -> Optional[Dict[str, Any]]:
        """Return the evidence of this process, or None without a report."""
        return None if self.evidence is None else self.evidence.reduced(self._dataset.name)

    def pictured(self, evidence: Dict[str, Any]) -> Dict[str, Any]:
        """Return evidence with thumbnails of the selected images, whose files are read again."""
        return with_thumbnails(evidence, of_dataset(self._dataset))

    def as_plain(self) -> Dict[str, Any]:
        """Return the counts of this process, for `together`."""
        return {"top": self._count.as_plain(), "labels": self._labels, "failed": self._failed,
                "first_failed": self._first_failed}

    def together(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Set the counts to the sum over all instances."""
        self._count = TopK.merged([part["top"] for part in parts])
        self._labels = sum(part["labels"] for part in parts)
        self._failed = sum(part["failed"] for part in parts)
        self._first_failed = next((part["first_failed"] for part in parts
                                   if part["first_failed"]), "")

    @property
    def failure(self) -> Optional[IpucnnError]:
        """The error for outputs that are not finite, or None."""
        if not self._failed:
            return None
        return IpucnnError(
            f"the model's outputs for {self._failed} images are not finite; the first is "
            f"{self._first_failed!r}", "the weights are damaged or diverged in training, or the "
            "precision is too low: try '--precision full'")

    @property
    def note(self) -> str:
        """How many images have a class of the model; empty if all have."""
        if self._match is None or self._count.images == self._labels:
            return ""
        return (f"{self._count.images} of {self._labels} images have a class of the model; "
                "the accuracy is that of these images")

    def accuracy(self) -> Optional[Dict[str, float]]:
        """Return top-1 and top-5 in per cent and the images counted, or None without labels."""
        return self._count.accuracy()


def _picked(values: Array, columns: Array) -> Array:
    """Return one value of each row."""
    return numpy.take_along_axis(values, columns[:, None], 1)[:, 0]
