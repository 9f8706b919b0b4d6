"""Calibration images, and the report on the quantised network."""

from __future__ import annotations

import pytest
import torch

from ipucnn.core.errors import DataError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset
from ipucnn.data.normalisation import fed, normalise
from ipucnn.inference.calibration_images import CalibrationImages, calibration_of
from ipucnn.inference.options import RunDataset
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch

CLASSES = ("a", "b", "c", "d")
MATCH = ClassMatch((0, 1, 2, 3))
CARD = ModelCard(model="m", num_outputs=4, preprocessing=Preprocessing(8))


class Numbered(ImageDataset):
    """Images whose pixels all are their index, in the order of their classes."""

    ready = True
    class_names = CLASSES

    def __init__(self, count: int, bad: int = -1) -> None:
        self._count, self._bad = count, bad

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> torch.Tensor:
        if index == self._bad:
            raise DataError(f"image {index} is bad")
        return torch.full((3, 8, 8), index, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return str(index)

    def label(self, index: int) -> int:
        return index * len(CLASSES) // self._count


def indices(images: torch.Tensor) -> list:
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(("there", "samples", "calibrating", "compared"), [
    (200, 30, 30, 30),    # as many again
    (200, 150, 150, 50),  # what is left
    (200, 195, 160, 40),  # a fifth at least
    (200, None, 160, 40),
    (50, 300, 40, 10),
    (49, 300, 49, 49),    # too few for others: the same ones
    (45, 40, 40, 40),
    (10, 10, 10, 10)])
def test_some_images_are_kept_for_the_comparison(there, samples, calibrating, compared):
    made = calibration_of(Numbered(there), CARD, MATCH,
                          RunDataset(calibration_samples=samples))
    assert (len(made.calibrating), len(made.compared)) == (calibrating, compared)
    first, second = indices(made.calibrating), indices(made.compared)
    assert len(set(first)) == calibrating
    assert first == second if there < 50 else not set(first) & set(second)


def test_images_are_drawn_from_everywhere_and_by_the_seed():
    made, again, other = (calibration_of(Numbered(200), CARD, MATCH,
                                         RunDataset(calibration_samples=20, seed=seed))
                          for seed in (0, 0, 1))
    assert set(made.labels[:20]) == set(range(4))
    assert torch.equal(made.images, again.images)
    assert not torch.equal(made.images, other.images)


def test_labels_are_outputs_of_the_model():
    made = calibration_of(Numbered(40), CARD, ClassMatch((4, 3, 2, 1)), RunDataset())
    for index, label in zip(indices(made.images), made.labels):
        assert label == 4 - index // 10
    unknown = calibration_of(Numbered(40), CARD, None, RunDataset())
    assert set(unknown.labels) == {None}


def test_fewer_than_ten_images_are_refused():
    with pytest.raises(DataError, match="9 images are too few"):
        calibration_of(Numbered(9), CARD, MATCH, RunDataset())


def test_bad_images_are_refused_or_left_out():
    with pytest.raises(DataError, match="image 3 is bad"):
        calibration_of(Numbered(20, bad=3), CARD, MATCH, RunDataset())
    made = calibration_of(Numbered(20, bad=3), CARD, MATCH,
                          RunDataset(skip_bad_samples=True))
    assert sorted(indices(made.images)) == [i for i in range(20) if i != 3]
    with pytest.raises(DataError, match="9 images are too few"):
        calibration_of(Numbered(10, bad=3), CARD, MATCH,
                       RunDataset(skip_bad_samples=True))


def test_the_report_counts_answers():
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    full = torch.eye(4)[[0, 1, 2, 3]]
    quantised = torch.eye(4)[[0, 1, 2, 0]]
    report = CalibrationImages(images, [9, 9, 0, 1, None, 0], 2).report(full, quantised)
    assert report == {
        "calibration_images": 2, "compared_images": 4, "held_out": True, "agreement": 75.0,
        "top1_full": pytest.approx(200 / 3), "top1_int8": 100.0,
        "top1_difference": pytest.approx(100 / 3)}
    assert CalibrationImages(images[:4], [None] * 4, 4).report(full, full) == {
        "calibration_images": 4, "compared_images": 4, "held_out": False, "agreement": 100.0}


def test_one_output_distinguishes_two_classes():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    full, quantised = torch.tensor([[[-2.0], [3.0], [-1.0], [4.0]], [[-2.0], [3.0], [1.0], [4.0]]])
    card = ModelCard(model="m", num_outputs=1)
    report = CalibrationImages(images, [0, 1, 0, 0], 4, card).report(full, quantised)
    assert (report["agreement"], report["top1_full"], report["top1_int8"]) == (75.0, 75.0, 50.0)


@pytest.mark.parametrize(("place", "eight_bit"), [
    ("device", True), ("device", False), ("host", False), ("none", True)])
def test_images_are_fed_according_to_the_plan(place, eight_bit):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    given = fed(images, ExecutionPlan(normalisation=place, eight_bit_io=eight_bit))
    wanted = normalise(images) if place == "host" else images if eight_bit else images.float()
    assert given.dtype == wanted.dtype
    assert torch.equal(given, wanted)
