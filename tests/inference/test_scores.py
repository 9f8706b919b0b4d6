"""Scores of a run: names, accuracy, each image once."""

from __future__ import annotations

import pytest
import torch

from ipucnn.data import ImageDataset
from ipucnn.data.loader import Batch
from ipucnn.inference.scores import Scores
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch

CARD = ModelCard(model="m", num_outputs=2, class_names=("a", "b"))
SAME = ClassMatch((0, 1))


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


def test_accuracy_counts_each_image_once():
    scores = Scores(Classes("a", "b"), CARD, SAME, 5)
    right, wrong = [2.0, 1.0], [1.0, 2.0]
    scores.add(_batch([0, 1], [0, 0]), torch.tensor([right, wrong]))
    scores.add(_batch([2, 0], [0, 0]), torch.tensor([right, wrong]))  # 0 comes round again
    scores.add(_batch([1, 2], [0, 0]), torch.tensor([wrong, wrong]))
    assert scores.accuracy() == {"top1": pytest.approx(200 / 3), "top5": 100.0, "images": 3}
    assert scores.note == ""


def test_classes_that_the_model_lacks_are_noted_and_not_scored():
    scores = Scores(Classes("b", "unheard", "a"), CARD, ClassMatch((1, None, 0)), 1)
    scores.add(_batch([0, 1, 2], [0, 1, 2]), torch.tensor([[0.0, 1.0], [9.0, 0.0], [1.0, 0.0]]))
    assert scores.accuracy() == {"top1": 100.0, "top5": 100.0, "images": 2}
    assert scores.note.startswith("2 of 3 images have a class of the model")


def test_outputs_that_are_not_finite_are_an_error_and_never_right():
    nan, inf = float("nan"), float("inf")
    scores = Scores(Classes("a", "b"), CARD, SAME, 1)
    scores.add(_batch([0, 1, 2], [0, 0, 0]),
               torch.tensor([[2.0, 1.0], [nan, nan], [inf, 1.0]]))
    assert scores.accuracy() == {"top1": pytest.approx(100 / 3), "top5": pytest.approx(100 / 3),
                                 "images": 3}
    assert scores.failure.message == ("the model's outputs for 2 images are not finite; the first "
                                      "is '1'")


def test_counts_of_several_processes_add_up():
    def counted(outputs):
        scores = Scores(Classes("a", "b"), CARD, SAME, 1)
        scores.add(_batch([0], [0]), torch.tensor([outputs]))
        return scores.as_plain()

    together = Scores(Classes("a", "b"), CARD, SAME, 1)
    together.together([counted([1.0, 0.0]), counted([float("nan"), 0.0])])
    assert together.accuracy()["top1"] == 50.0
    assert "for 1 images" in together.failure.message


def test_images_of_several_classes_are_scored_by_one_output():
    dataset = Classes("a", "b")
    dataset.multi_label = True
    card = ModelCard(model="m", num_outputs=1, class_names=("a", "b"))
    scores = Scores(dataset, card, SAME, 1)
    scores.add(_batch([0, 1, 2], [(0,), (0, 1), (0,)]), torch.tensor([[-1.0], [2.0], [2.0]]))
    assert scores.accuracy()["top1"] == pytest.approx(200 / 3)
