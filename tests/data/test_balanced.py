"""Classes that differ in size: counts, notes, weights, and the balanced sampler."""

from __future__ import annotations

from collections import Counter

import numpy
import pytest
import torch

from ipucnn.core.errors import DataError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset
from ipucnn.data.balanced import BalancedImages
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.labels import class_counts, imbalance, label_tensor
from ipucnn.plugins.losses._class_weights import balanced_weights


class Uneven(ImageDataset):
    """Images whose pixels are their index; some cannot be read."""

    def __init__(self, counts, bad=()):
        self._labels = [label for label, count in enumerate(counts) for _ in range(count)]
        self.bad = bad
        self.class_names = tuple("abcdefgh"[:len(counts)])
        self.reads = Counter()

    def __len__(self):
        return len(self._labels)

    def image(self, index):
        self.reads[index] += 1
        if index in self.bad:
            raise DataError(f"image {index} is bad")
        return torch.full((3, 8, 8), index, dtype=torch.uint8)

    def name(self, index):
        return f"uneven/{index}"

    def label(self, index):
        return self._labels[index]


@pytest.mark.parametrize("counts", [(40, 4, 1), (5, 5), (1, 1, 30), (3,), (7, 2, 2, 2, 50)])
def test_every_class_is_as_frequent(counts):
    plain = Uneven(counts)
    dataset = BalancedImages(plain)
    seen = Counter()
    total = Counter()
    for epoch in range(6):
        order = dataset.order(0, epoch).tolist()
        assert len(order) == len(set(order)) == len(plain)
        by_class = Counter(dataset.label(index) for index in order)
        assert max(by_class.values()) - min(by_class.values()) <= 1
        assert len(by_class) == len(counts)
        total.update(by_class)
        assert max(total.values()) - min(total.values()) <= 1  # classes take turns
        seen.update(dataset.original(index) for index in order)
        for label in range(len(counts)):  # an image again only after all of its class
            repeats = [seen[i] for i in range(len(plain)) if plain.label(i) == label]
            assert max(repeats) - min(repeats) <= 1
        assert [dataset.name(i) for i in order] == [f"uneven/{i % len(plain)}" for i in order]


def test_an_order_depends_on_seed_and_epoch_only():
    dataset = BalancedImages(Uneven((9, 3)))
    orders = {(seed, epoch): dataset.order(seed, epoch).tolist()
              for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    again = BalancedImages(Uneven((9, 3)))
    assert all(again.order(*key).tolist() == order for key, order in orders.items())


def test_repetitions_are_augmented_differently():
    from ipucnn.data.augment import TrainTransform

    dataset = BalancedImages(Uneven((20, 1)))
    noise = numpy.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=numpy.uint8)
    transform = TrainTransform(16, 0, dataset)
    rare = [index for index in dataset.order(0, 0).tolist() if dataset.label(index) == 1]
    assert len(rare) >= 10
    assert len({transform.draw(index, 0)(noise).tobytes() for index in rare}) == len(rare)


def test_a_bad_image_is_counted_and_tried_once():
    plain = Uneven((20, 2), bad=(21,))
    dataset = BalancedImages(plain)
    order = dataset.order(0, 0).tolist()
    with HostLoader(dataset, Preprocessing(8), 1, order, workers=1, skip_bad=True) as loader:
        batches = list(loader)
    assert loader.skipped_count == 1
    assert loader.bad == (21,)
    assert loader.skipped == [("uneven/21", "image 21 is bad")]
    assert len(batches) == sum(dataset.original(index) != 21 for index in order)
    before = plain.reads[21]
    with HostLoader(dataset, Preprocessing(8), 1, dataset.order(0, 1).tolist(), workers=1,
                    skip_bad=True, bad=loader.bad) as loader:
        list(loader)
    assert plain.reads[21] == before


def test_weights_are_those_of_scikit_learn():
    # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=...)
    assert balanced_weights([6, 3, 1]) == pytest.approx((10 / 18, 10 / 9, 10 / 3))
    assert balanced_weights([4, 0, 4]) == (1.0, 1.0, 1.0)


def test_imbalance_is_noted_from_three_times_on():
    assert class_counts(Uneven((7, 2)), 3) == [7, 2, 0]
    assert imbalance("abc", [7, 2, 0]) == (
        "classes differ in size: 'a' has 7 images and 'b' 2; '--class-weights balanced' weights "
        "them, '--sampler balanced' draws from all alike")
    assert imbalance("ab", [6, 2]) is None
    assert imbalance("ab", [0, 0]) is None


def test_labels_as_tensors():
    assert label_tensor([2, None, 0], 3).tolist() == [2, -1, 0]
    assert label_tensor([(0, 2), (), (1,)], 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("given", [{}, {"sampler": "balanced"}, {"class_weights": "balanced"}])
def test_classes_without_training_images_are_named(given):
    from ipucnn.core.options.building import build
    from ipucnn.core.registry.registry import registry
    from ipucnn.models.class_names import ClassMatch
    from ipucnn.training.options.train_options import TrainOptions
    from ipucnn.training.setup.class_balance import balanced
    from ipucnn.training.setup.loss_of_training import make_loss

    options = build(TrainOptions, {"data": "shapes", **given})
    dataset = Uneven((4, 0, 4, 0))  # as of a list of images whose others are for validation
    dataset.labels_in_memory = True
    _, _, notes = balanced(options, dataset, ClassMatch((0, 1, 2, 3)),
                           make_loss(options, registry()), 4)
    assert notes == ["there are no training images of 'b', 'd': the model gets outputs for them "
                     "that it does not learn to use"]
