"""Collects data on predictions for a report: counts of classes, calibration, selected images.

Each process adds its own images and reduces them to sums and a few candidates, which are merged.
"""

from __future__ import annotations

from array import array
from typing import Any, Callable, Dict, List, Optional, Sequence

from ipucnn.core.execution.accuracy import UNKNOWN

BINS = 15
"""Equal ranges of the probability in which calibration is counted (Guo et al., "On Calibration of
Modern Neural Networks", 2017)."""

SHOWN = 12
"""Number of images of each selection."""

MOST_LATENCIES = 2000
"""Maximum number of stored latencies; of more, order statistics at equal distances are stored."""

SELECTIONS = ("wrong", "right", "doubtful", "certain")
"""The selections of images: wrong and right answers of the highest probability, the answers least
ahead of the second class, and, where no label is known, those of the highest probability."""

_FIELDS = ("index", "answer", "second", "truth", "right", "probability", "second_probability")
_REAL = ("probability", "second_probability")


class Evidence:
    """Collects predictions of one process.

    Args:
        names: class names of the model.
        shown: images of each selection.
    """

    def __init__(self, names: Sequence[str], shown: int = SHOWN) -> None:
        self._names, self._shown = list(names), shown
        # arrays of numpy for each batch would take many times as much with small batches
        self._columns = {name: array("f" if name in _REAL else "q") for name in _FIELDS}

    def add(self, indices: Sequence[int], probabilities: Any, labels: Optional[Any]) -> None:
        """Add a batch; images without finite probabilities are left out.

        Args:
            indices: of the images in their dataset.
            probabilities: `(n, classes)`, of numpy or torch.
            labels: the classes, int64 `(n,)` with `UNKNOWN` where there is none, or `(n, classes)`
                with a value above 0 for each class of an image; None without labels.
        """
        import numpy

        values = _array(probabilities)
        rows, answer = numpy.arange(len(values)), values.argmax(1)
        others = values.copy()
        others[rows, answer] = -numpy.inf
        second = others.argmax(1)
        truth = numpy.full(len(answer), UNKNOWN)
        right = numpy.full(len(answer), UNKNOWN)
        if labels is not None and labels.ndim == 1:
            truth = _array(labels)
            right = numpy.where(truth == UNKNOWN, UNKNOWN, truth == answer)
        elif labels is not None:
            right = _array(labels)[rows, answer] > 0
        self.add_arrays(index=indices, answer=answer, second=second, truth=truth, right=right,
                        probability=values[rows, answer], second_probability=values[rows, second])

    def add_arrays(self, **columns: Any) -> None:
        """Add images by columns, those of `_FIELDS`."""
        import numpy

        finite = numpy.isfinite(numpy.asarray(columns["probability"], dtype=numpy.float32))
        for name, kept in self._columns.items():
            column = numpy.asarray(columns[name], dtype=kept.typecode)
            kept.frombytes(column[finite].tobytes())

    def reduced(self, name_of: Callable[[int], str]) -> Dict[str, Any]:
        """Return counts and the selected images as plain types; see `merged`.

        Args:
            name_of: returns the name of an image of the dataset.
        """
        import numpy

        columns = {name: numpy.array(kept, dtype=kept.typecode)
                   for name, kept in self._columns.items()}
        answer, truth, right = columns["answer"], columns["truth"], columns["right"]
        known, one, count = right != UNKNOWN, truth != UNKNOWN, len(self._names)
        pairs, images = numpy.unique(truth[one] * count + answer[one], return_counts=True)
        answers, answered = numpy.unique(answer, return_counts=True)
        return {
            "images": len(answer), "labelled": int(known.sum()),
            "correct": int((right == 1).sum()), "classes": self._names,
            "confusion": [[int(pair) // count, int(pair) % count, int(number)]
                          for pair, number in zip(pairs, images)],
            "answers": [[int(number), int(times)] for number, times in zip(answers, answered)],
            "calibration": _calibration(columns["probability"], right, known),
            "shown": {name: [self._described(columns, int(place), name_of) for place in places]
                      for name, places in self._selected(columns).items()}}

    def _selected(self, columns: Dict[str, Any]) -> Dict[str, Any]:
        import numpy

        right, probability = columns["right"], columns["probability"]
        order = numpy.lexsort((columns["index"], -probability))
        margin = numpy.lexsort((columns["index"], probability - columns["second_probability"]))
        labelled = bool((right != UNKNOWN).any())
        return {"wrong": order[right[order] == 0][:self._shown],
                "right": order[right[order] == 1][:self._shown],
                "doubtful": margin[:self._shown] if len(self._names) > 1 else margin[:0],
                "certain": order[:0 if labelled else self._shown]}

    def _described(self, columns: Dict[str, Any], place: int,
                   name_of: Callable[[int], str]) -> Dict[str, Any]:
        row = {name: columns[name][place].item() for name in _FIELDS}
        named = {what: self._names[int(row[what])] for what in ("answer", "second")}
        return {"index": int(row["index"]), "name": name_of(int(row["index"])), **named,
                "label": None if row["truth"] == UNKNOWN else self._names[int(row["truth"])],
                "right": None if row["right"] == UNKNOWN else bool(row["right"]),
                "probability": round(row["probability"], 6),
                "second_probability": round(row["second_probability"], 6)}


def _array(value: Any) -> Any:
    """Return a tensor of torch as an array of numpy, which is returned as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "cpu") else value


def _calibration(probability: Any, right: Any, known: Any) -> List[List[float]]:
    """Return images, sum of probabilities and right answers per range of the probability."""
    import numpy

    ranges = numpy.clip((probability * BINS).astype(numpy.int64), 0, BINS - 1)[known]
    columns = [numpy.bincount(ranges, weights, BINS) for weights in (
        None, probability[known], (right[known] == 1).astype(float))]
    return [[int(images), round(float(total), 4), int(correct)]
            for images, total, correct in zip(*columns)]


def merged(parts: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Return the evidence of several processes together.

    Args:
        parts: what `Evidence.reduced` returned in each, of the same classes.
    """
    if len(parts) < 2:
        return dict(parts[0]) if parts else {}
    together: Dict[str, Any] = {name: sum(part[name] for part in parts)
                                for name in ("images", "labelled", "correct")}
    together["classes"] = parts[0]["classes"]
    for name in ("confusion", "answers"):
        sums: Dict[Any, int] = {}
        for *place, number in (entry for part in parts for entry in part[name]):
            sums[tuple(place)] = sums.get(tuple(place), 0) + number
        together[name] = [[*place, number] for place, number in sorted(sums.items())]
    together["calibration"] = [[sum(column) for column in zip(*rows)]
                               for rows in zip(*(part["calibration"] for part in parts))]
    together["shown"] = {name: sorted(
        (row for part in parts for row in part["shown"][name]),
        key=_by_margin if name == "doubtful" else _by_probability)[:SHOWN] for name in SELECTIONS}
    return together


def _by_probability(row: Dict[str, Any]) -> Any:
    return -row["probability"], row["index"]


def _by_margin(row: Dict[str, Any]) -> Any:
    return row["probability"] - row["second_probability"], row["index"]


def kept_latencies(seconds: Sequence[float]) -> List[float]:
    """Return latencies in milliseconds, in ascending order, at most `MOST_LATENCIES`."""
    ranked = sorted(1000 * value for value in seconds)
    if len(ranked) > MOST_LATENCIES:
        last, most = len(ranked) - 1, MOST_LATENCIES - 1
        ranked = [ranked[round(place * last / most)] for place in range(most + 1)]
    return [round(value, 4) for value in ranked]
