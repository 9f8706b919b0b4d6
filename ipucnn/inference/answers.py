"""The first predictions of a run, and how often each class was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from ipucnn.data import ImageDataset, Label

FIRST = 10
"""Number of images with predictions in a result."""

Rows = List[Dict[str, Any]]


class Answer(NamedTuple):
    """The prediction for one image.

    Attributes:
        output: the most probable class, an index.
        probability: of this class.
        label: of the image in its dataset, or all of its labels; None when it is not known.
        correct: whether the class is that of the label; None without a label.
    """

    output: int
    probability: float
    label: Optional[Label] = None
    correct: Optional[bool] = None


class Answers:
    """Collects the predictions for the display of a result.

    Args:
        names: class names of the model.

    Attributes:
        labelled: whether the images have labels, which are compared with the predictions.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.labelled = False
        self._names = names
        self._first: List[Tuple[int, Dict[str, Any]]] = []
        self._counts: Dict[int, List[int]] = {}

    def add(self, dataset: ImageDataset, index: int, answer: Answer) -> None:
        """Add the prediction for image `index` of a dataset."""
        count = self._counts.setdefault(answer.output, [0, 0])
        count[0] += 1
        count[1] += bool(answer.correct)
        if len(self._first) < FIRST:
            row: Dict[str, Any] = {
                "path": dataset.name(index), "class": answer.output,
                "name": self._names[answer.output], "probability": round(answer.probability, 6)}
            if self.labelled:
                row["label_name"] = _named(answer.label, dataset.class_names)
                row["correct"] = answer.correct
            self._first.append((index, row))

    def as_plain(self) -> List[Any]:
        """Return what this process has collected as plain types, for `together`."""
        return [[list(entry) for entry in self._first],
                [[output, *count] for output, count in self._counts.items()], self.labelled]

    def together(self, parts: Sequence[Any]) -> Tuple[Rows, Rows]:
        """Return the rows and the classes of all instances; see `RunResult`."""
        collected = [part for part in parts if part]
        first = sorted((entry for entries, _, _ in collected for entry in entries),
                       key=lambda entry: entry[0])
        counts: Dict[int, List[int]] = {}
        for _, counted, _ in collected:
            for output, images, correct in counted:
                count = counts.setdefault(output, [0, 0])
                count[0] += images
                count[1] += correct
        labelled = any(part[2] for part in collected)
        classes = [{"class": output, "name": self._names[output], "images": images,
                    **({"correct": correct} if labelled else {})}
                   for output, (images, correct) in sorted(
                       counts.items(), key=lambda item: (-item[1][0], item[0]))]
        return [row for _, row in first[:FIRST]], classes


def _named(label: Optional[Label], names: Sequence[str]) -> Optional[str]:
    """Return the name of a label, or the names of several with `|` between them, as predictions."""
    if isinstance(label, tuple):
        return "|".join(names[number] for number in label)
    return None if label is None else names[label]
