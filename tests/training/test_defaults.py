"""Defaults chosen from the images: batch, epochs, rate, warm-up, crop, input size."""

from __future__ import annotations

import pytest
import torch

from ipucnn.core.errors import DataError
from ipucnn.core.options.building import build
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import ImageDataset
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.defaults import base_rate, decided, followed_size

FOLDER = DatasetSpec(name="folder", summary="x", target="x:y", labelled=True)


def options(**given):
    return build(TrainOptions, {"data": "shapes", **given})


@pytest.mark.parametrize(("images", "batch", "epochs"), [
    (1440, 32, 21), (200, 8, 100), (24, 2, 100), (50_000, 32, 10), (2, 2, 100), (1, 1, 100)])
def test_batch_and_epochs_follow_the_number_of_images(images, batch, epochs):
    values = decided(options(), images, registry()).values
    assert (values["batch_size"], values["epoch"]) == (batch, epochs)
    assert values["warmup_epoch"] == min(5, epochs / 10)


def test_replicas_and_accumulation_leave_room_for_updates():
    values = decided(options(replicas=4, gradient_accumulation=2), 1440, registry()).values
    assert values["batch_size"] * 8 * 20 <= 1440


def test_mixing_has_enough_images():
    for mixing, batch in (({"mixup_alpha": 0.2}, 2), ({"cutmix_lambda_high": 0.5}, 4),
                          ({"mixup_alpha": 0.2, "cutmix_lambda_high": 0.5}, 4)):
        assert decided(options(**mixing), 24, registry()).values["batch_size"] == batch


@pytest.mark.parametrize(("given", "rate"), [
    ({"batch_size": 256}, 0.1), ({"batch_size": 64}, 0.05), ({"batch_size": 1024}, 0.4),
    ({"batch_size": 32, "replicas": 4, "gradient_accumulation": 2}, 0.1),
    ({"batch_size": 128, "replicas": 2, "gradient_accumulation": 4,
      "accumulation_reduction": "sum"}, 0.1),
    ({"batch_size": 1024, "optimizer": "adamw"}, 0.001)])
def test_the_rate_is_the_optimizers_for_the_samples_of_an_update(given, rate):
    assert base_rate(options(**given), registry()) == pytest.approx(rate, rel=1e-2)


def test_what_is_given_stays():
    given = {"batch_size": 3, "epoch": 7, "lr": 0.3, "warmup_epoch": 0.0, "min_crop_area": 0.5}
    decisions = decided(options(**given), 1000, registry())
    assert (decisions.values, decisions.note) == ({}, "")


def test_batches_of_a_profile_that_exceed_the_dataset_are_replaced():
    profile = resolve(TrainOptions, {"config": "cpu", "data": "shapes"}, "train")
    assert decided(profile, 27, registry()).values["batch_size"] == 2
    assert "batch_size" not in decided(profile, 270, registry()).values


def test_a_restored_training_keeps_the_crops_of_its_time():
    assert "min_crop_area" in decided(options(), 1000, registry()).values
    assert "min_crop_area" not in decided(options(), 1000, registry(), restored=True).values
    assert "min_crop_area" not in decided(options(), 1_281_167, registry()).values


class Pictures(ImageDataset):
    def __init__(self, *sides):
        self.sides = sides

    def __len__(self):
        return len(self.sides)

    def image(self, index):
        return torch.zeros(3, self.sides[index], self.sides[index] + 9, dtype=torch.uint8)

    def name(self, index):
        return str(index)


@pytest.mark.parametrize(("sides", "size"), [
    ((96, 96, 96), 96), ((100, 90, 97), 128), ((28, 28), 64), ((500, 96, 400), None), ((), None)])
def test_the_input_follows_small_pictures(sides, size):
    assert followed_size(options(), FOLDER, Pictures(*sides), 224) == size


def test_an_unreadable_picture_has_no_size():
    class Damaged(Pictures):
        def image(self, index):
            if self.sides[index] == 500:
                raise DataError("cannot decode image '0'")
            return super().image(index)

    pictures = Damaged(500, 96, 500)
    assert followed_size(options(skip_bad_samples=True), FOLDER, pictures, 224) == 96
    with pytest.raises(DataError, match="cannot decode"):
        followed_size(options(), FOLDER, pictures, 224)
    assert followed_size(options(skip_bad_samples=True), FOLDER, Damaged(500), 224) is None


def test_given_sizes_and_weights_keep_theirs():
    for given in ({"input_size": 224}, {"weights": "pretrained"}):
        assert followed_size(options(**given), FOLDER, Pictures(64, 64), 224) is None


def test_a_folder_alone_is_trained_with_adamw(tmp_path):
    (tmp_path / "a").mkdir()
    given = {"data_dir": str(tmp_path)}
    for more, optimizer in (({}, "adamw"), ({"lr": 0.1}, "sgd"), ({"momentum": 0.5}, "sgd"),
                            ({"optimizer": "lamb"}, "lamb")):
        assert build(TrainOptions, {**given, **more}).optimisation.optimizer == optimizer
