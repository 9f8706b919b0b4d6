"""Names of a model's outputs, and the match between the classes of a dataset and of a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.execution.accuracy import UNKNOWN
from ipucnn.core.names import class_key, listed
from ipucnn.data import Label

IMAGENET_CLASSES = 1000


def imagenet_names() -> Tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes in the order of published networks."""
    # they are part of torchvision's weights' metadata; nothing is downloaded
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


@dataclass(frozen=True)
class ClassMatch:
    """The class of a model for each class of a dataset.

    Attributes:
        outputs: index of the model's class, by label; None for a class that the model lacks.
        note: note for the user about missing classes or an assumption; may be empty.
    """

    outputs: Tuple[Optional[int], ...]
    note: str = ""


def match_classes(dataset: Sequence[str], model: Sequence[str], count: int, how: str = "name",
                  what: str = "the dataset", new: bool = False) -> ClassMatch:
    """Match the classes of a dataset with those of a model, by name.

    Names are compared without regard to case, and `_`, `-` and blanks are one, as are the ways to
    write an accented letter. Folders named `0`, `1` ... are the model's classes with these numbers,
    and folders named by WordNet identifiers are ImageNet's classes (`n01440764` is class 0, tench).

    Args:
        dataset: names of its classes, in the order of labels.
        model: names of the model's classes; empty when they are unknown.
        count: number of the model's classes.
        how: `name`, or `position` to match by position whatever the names.
        what: the dataset, for messages.
        new: whether `--num-classes` determines the number of the model's outputs.

    Raises:
        DataError: no class is known to the model, numbers begin with 1, or the positions do not
            fit.
    """
    same_number = len(dataset) == count
    if how == "position":
        if len(dataset) > count:
            raise DataError(f"{what} has {len(dataset)} classes and the model {count}: they cannot "
                            "be matched by position", "leave '--match-classes' out")
        return ClassMatch(tuple(range(len(dataset))))
    outputs = known_outputs(dataset, model, count)
    notes = []
    if _numeric(dataset) and set(_by_name(dataset, model)) <= {None}:
        _check_from_zero(dataset, count, what)
        known = [(name, output) for name, output in zip(dataset, outputs) if output is not None]
        if known and model and not same_number:
            name, output = known[0]
            notes.append(f"the classes of {what} are taken for numbers of the model's classes: "
                         f"{name!r} is {model[output]!r}")
    missing = [name for name, output in zip(dataset, outputs) if output is None]
    if len(missing) < len(dataset):
        notes += _merged(dataset, outputs, model, what)
        if missing:
            notes.append(f"{len(missing)} of the {len(dataset)} classes of {what} are unknown to "
                         f"the model and are not scored: {listed(missing)}")
        return ClassMatch(outputs, "; ".join(notes))
    if not model and same_number:
        return ClassMatch(tuple(range(count)), "the model does not name its classes: those of "
                          f"{what} are assumed, in the same order")
    if not model:
        hints = ["use weights that name their classes, such as a checkpoint of 'ipucnn train'"]
        if new:
            hints.append(f"'--num-classes {len(dataset)}' makes a model of as many")
        if len(dataset) < count:
            hints.append("'--match-classes position' leaves the last outputs unused")
        raise DataError(f"{what} has {len(dataset)} classes and the model {count}, which it does "
                        "not name", "; ".join(hints))
    raise DataError(
        f"none of the classes of {what} is one of the model's: {what} has {listed(dataset)}, the "
        f"model {listed(model)}",
        "use a model that was trained on these classes, 'ipucnn run --data real' to classify "
        "images without scoring, or '--match-classes position' if only the names differ")


def known_outputs(dataset: Sequence[str], model: Sequence[str],
                  count: int) -> Tuple[Optional[int], ...]:
    """Return the model's class for each class of a dataset; None if the model does not have it.

    Classes are matched as by `match_classes`, where some must be known.
    """
    outputs = _by_name(dataset, model)
    if any(output is not None for output in outputs):
        return outputs
    return _by_convention(dataset, count) or outputs


def _numeric(names: Sequence[str]) -> bool:
    return all(name.isdecimal() and name.isascii() for name in names)


def _check_from_zero(dataset: Sequence[str], count: int, what: str) -> None:
    """Raise an error for numbers that begin with 1 and end with the number of classes.

    Raises:
        DataError: each class would be taken for the next one.
    """
    numbers = [int(name) for name in dataset]
    if numbers and min(numbers) > 0 and max(numbers) == count:
        raise DataError(
            f"the classes of {what} are numbers up to {count}, and those of the model are numbered "
            f"from 0 to {count - 1}", f"subtract 1: number them from 0 to {count - 1}, or use the "
            "names of the classes")


def _by_name(dataset: Sequence[str], model: Sequence[str]) -> Tuple[Optional[int], ...]:
    """Return the model's class for each name; None for a name that is unknown or ambiguous.

    If several classes have names of the same form, the exact spelling is compared.
    """
    exact, forms = _unique(model), _unique([class_key(name) for name in model])
    return tuple(exact.get(name, forms.get(class_key(name))) for name in dataset)


def _merged(dataset: Sequence[str], outputs: Sequence[Optional[int]], model: Sequence[str],
            what: str) -> List[str]:
    """Return a note for each class of the model that several classes of a dataset match."""
    names: Dict[int, List[str]] = {}
    for name, output in zip(dataset, outputs):
        if output is not None:
            names.setdefault(output, []).append(name)
    return [f"{listed(several)} of {what} are one class of the model: "
            f"{model[output] if model else output!r}"
            for output, several in names.items() if len(several) > 1]


def similar_names(dataset: Sequence[str], match: ClassMatch) -> List[str]:
    """Return a note for classes of a training whose names `match_classes` takes for the same.

    Args:
        dataset: names of its classes.
        match: the model's class of each.
    """
    forms: Dict[str, Dict[Optional[int], str]] = {}
    for name, output in zip(dataset, match.outputs):
        forms.setdefault(class_key(name), {})[output] = name
    return [f"{listed(list(alike.values()))} are {len(alike)} classes of the model, and their "
            "names differ only in case, separators, leading zeros or the encoding of accents: if "
            "they are one class, give it one name"
            for alike in forms.values() if len(alike) > 1]


def _unique(names: Sequence[str]) -> Dict[str, int]:
    """Return the index of each name that occurs once."""
    counts = Counter(names)
    return {name: index for index, name in enumerate(names) if counts[name] == 1}


def _by_convention(dataset: Sequence[str], count: int) -> Optional[Tuple[Optional[int], ...]]:
    """Return the classes of numeric names, or of ImageNet's identifiers; None for others."""
    if _numeric(dataset):
        numbers = tuple(int(name) if int(name) < count else None for name in dataset)
        return numbers if any(number is not None for number in numbers) else None
    if count == IMAGENET_CLASSES and all(_is_synset(name) for name in dataset):
        from ipucnn.models.imagenet_synsets import synsets

        known = {name: index for index, name in enumerate(synsets())}
        return tuple(known.get(name) for name in dataset)
    return None


def _is_synset(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdecimal()


def labels_by_output(match: ClassMatch, labels: Sequence[Optional[Label]]) -> List[Label]:
    """Return the model's class of each label; `UNKNOWN` where there is none.

    Of several classes of an image, those that the model lacks are left out.

    Args:
        match: of the dataset's classes.
        labels: of images; None for unknown labels.
    """
    found: List[Label] = []
    for label in labels:
        if isinstance(label, tuple):
            found.append(tuple(output for number in label
                               for output in [match.outputs[number]] if output is not None))
        else:
            output = None if label is None else match.outputs[label]
            found.append(UNKNOWN if output is None else output)
    return found
