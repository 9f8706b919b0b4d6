"""Scores of a run: names, accuracy, each image once."""

from __future__ import annotations

import pytest
import torch

from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import ImageDataset
from ipucnn.data.loader import Batch
from ipucnn.inference.scores import Scores
from ipucnn.models.class_names import class_names, label_map

LABELLED = DatasetSpec(name="x", summary="x", target="x:y", labelled=True)


class Classes(ImageDataset):
    def __init__(self, *names: str) -> None:
        self.class_names = names

    def __len__(self) -> int:
        return 0

    def image(self, index: int) -> torch.Tensor:
        raise NotImplementedError

    def name(self, index: int) -> str:
        return str(index)


def _batch(indices, labels):
    return Batch(images=torch.zeros(len(indices), 3, 1, 1, dtype=torch.uint8),
                 indices=indices, labels=labels)


def test_outputs_are_named_by_the_dataset_by_imagenet_or_by_number():
    assert class_names(2, Classes("cat", "dog")) == ["cat", "dog"]
    imagenet = class_names(1000, Classes("cat", "dog"))
    assert (imagenet[340], imagenet[954]) == ("zebra", "banana")
    assert class_names(3, Classes()) == ["class 0", "class 1", "class 2"]


def test_labels_compare_by_count_or_by_name():
    imagenet = class_names(1000, Classes())
    assert label_map(Classes("b", "a"), ["x", "y"]) == [0, 1]
    assert label_map(Classes("Zebra", "polar_bear"), [n.replace("ice bear", "polar bear")
                                                      for n in imagenet]) == [340, 296]
    assert label_map(Classes("zebra", "unheard of"), imagenet) is None


def test_accuracy_counts_each_image_once():
    scores = Scores(Classes("a", "b"), LABELLED, ["a", "b"], 5)
    right, wrong = [2.0, 1.0], [1.0, 2.0]
    scores.add(_batch([0, 1], [0, 0]), torch.tensor([right, wrong]))
    scores.add(_batch([2, 0], [0, 0]), torch.tensor([right, wrong]))  # 0 comes round again
    scores.add(_batch([1, 2], [0, 0]), torch.tensor([wrong, wrong]))
    assert scores.accuracy() == {"top1": pytest.approx(200 / 3), "top5": 100.0, "images": 3}


def test_labels_that_cannot_be_compared_are_told():
    scores = Scores(Classes("a", "b"), LABELLED, class_names(5, Classes()), 1)
    scores.add(_batch([0], [1]), torch.zeros(1, 5))
    assert scores.accuracy() is None
    assert "the model has 5 classes" in scores.note
