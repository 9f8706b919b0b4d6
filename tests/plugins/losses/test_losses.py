"""The built-in losses against torch's own and against their formulas, gradients too."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.losses import CrossEntropyForm, Loss
from ipucnn.core.execution.mixing import Mixing, MixOptions, mixed_labels
from ipucnn.core.options.declaration import declared
from ipucnn.data.mixup import draw
from ipucnn.plugins.losses.binary_cross_entropy import (
    BinaryCrossEntropy,
    BinaryCrossEntropyOptions,
)
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions
from ipucnn.plugins.losses.focal import Focal, FocalOptions

WEIGHTS = (0.5, 1.0, 2.0, 3.0, 0.25)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
SEVERAL = (torch.rand(8, 5, generator=torch.Generator().manual_seed(2)) < 0.4).float()
MIXINGS = {"mixup": MixOptions(mixup_alpha=0.4), "cutmix": MixOptions(0, 0.2, 0.8),
           "both": MixOptions(0.4, 0.2, 0.8)}
LOSSES = {
    "cross-entropy": CrossEntropy(), "smoothed": CrossEntropy(CrossEntropyOptions(0.1)),
    "weighted": CrossEntropy(CrossEntropyOptions(0.1, WEIGHTS)),
    "binary": BinaryCrossEntropy(BinaryCrossEntropyOptions(0.1, WEIGHTS)),
    "focal": Focal(FocalOptions(2.0, WEIGHTS))}


def logits(seed=4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(8, 5, generator=generator)).requires_grad_()


def assert_same(loss, expected, exactly=False):
    """Require the same value and the same gradient of the logits."""
    found = []
    for function in (loss, expected):
        given = logits()
        value = function(given)
        value.backward()
        found.append((value.detach(), given.grad))
    (value, gradient), (wanted, wanted_gradient) = found
    assert value.dtype == torch.float32
    assert value.dim() == 0
    if exactly:
        assert torch.equal(value, wanted)
        assert torch.equal(gradient, wanted_gradient)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)


def mixing(name, micro_batch=4):
    return draw(MIXINGS[name], 3, 2, [7, 3, 12, 5, 0, 9, 4, 1], micro_batch, 16)


def mixed_target(target, mixed, micro_batch=4):
    """Return the label distributions of mixed images, from the definitions of mixup and cutmix."""
    rows = target.view(-1, micro_batch, 5)
    if mixed.coefficients is not None:
        c = mixed.coefficients.view(-1, micro_batch, 1)
        rows = c * rows + (1 - c) * rows.roll(1, 1)
    if mixed.kept is not None:
        kept = mixed.kept.view(-1, 1, 1)
        rows = kept * rows + (1 - kept) * rows.roll(2, 1)
    return rows.reshape(-1, 5)


# -- cross-entropy -----------------------------------------------------------------------------


def first_version(x, labels, smoothing, mixed, micro_batch):
    """Return the loss as it was computed before losses were plugins, bit for bit."""
    log_p = torch.log_softmax(x.float(), dim=1)
    terms = []
    for target, share in mixed_labels(labels, mixed, micro_batch):
        picked = functional.nll_loss(log_p, target, reduction="none")
        terms.append(picked if share is None else share * picked)
    loss = sum(terms[1:], terms[0]).mean()
    return loss if not smoothing else (1 - smoothing) * loss - smoothing * log_p.mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("name", [None, *MIXINGS])
def test_without_weights_the_bits_are_those_of_the_first_version(smoothing, name):
    mixed = mixing(name) if name else None
    loss = CrossEntropy(CrossEntropyOptions(smoothing))
    assert_same(lambda x: loss(x, LABELS, mixed, 4),
                lambda x: first_version(x, LABELS, smoothing, mixed, 4), exactly=True)


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_cross_entropy_is_torch_s(smoothing, weights):
    loss = CrossEntropy(CrossEntropyOptions(smoothing, weights))
    weight = torch.tensor(weights) if weights else None
    assert_same(lambda x: loss(x, LABELS), lambda x: functional.cross_entropy(
        x, LABELS, weight=weight, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_label_smoothing(smoothing):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(6, 5, generator=generator)
    labels = torch.randint(0, 5, (6,), generator=generator)
    log_p = x.double().log_softmax(1)
    expected = -sum((smoothing / 5 * log_p[b].sum() + (1 - smoothing) * log_p[b, labels[b]])
                    for b in range(6)) / 6
    loss = CrossEntropy(CrossEntropyOptions(smoothing))
    assert float(loss(x, labels)) == pytest.approx(float(expected), abs=1e-5)


def test_equal_weights_change_nothing():
    weighted = CrossEntropy(CrossEntropyOptions(0.1, (2.0,) * 5))
    for mixed in (None, mixing("both")):
        assert_same(lambda x, m=mixed: weighted(x, LABELS, m, 4),
                    lambda x, m=mixed: LOSSES["smoothed"](x, LABELS, m, 4))


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_mixed_images_are_those_of_their_labels(name, smoothing):
    mixed, weights = mixing(name), torch.tensor(WEIGHTS)
    target = mixed_target(functional.one_hot(LABELS, 5).float(), mixed)

    def expected(x):
        log_p = x.log_softmax(1)
        losses = -(((1 - smoothing) * target + smoothing / 5) * weights * log_p).sum(1)
        return (losses.view(2, 4).sum(1) / (target * weights).sum(1).view(2, 4).sum(1)).mean()

    loss = CrossEntropy(CrossEntropyOptions(smoothing, WEIGHTS))
    assert_same(lambda x: loss(x, LABELS, mixed, 4), expected)


# -- validation --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_validation_is_that_of_all_images_whatever_the_batches(name):
    x, loss = logits().detach(), LOSSES[name]
    parts = [loss.total(x[start:start + 3], LABELS[start:start + 3]) for start in (0, 3, 6)]
    total, weight = (sum(column) for column in zip(*parts))
    if isinstance(loss, CrossEntropy):  # smoothing is a means of training
        weights = loss.device_form().class_weights
        loss = CrossEntropy(CrossEntropyOptions(0.0, weights))
    if isinstance(loss, BinaryCrossEntropy):
        loss = BinaryCrossEntropy(BinaryCrossEntropyOptions(0.0, WEIGHTS))
    assert total / weight == pytest.approx(float(loss(x, LABELS)), abs=1e-5)
    assert (total, weight) == pytest.approx(loss.total(x, LABELS), abs=1e-9)


def test_a_third_partys_loss_is_the_mean_of_the_images():
    class Squares(Loss):
        def __call__(self, logits, labels, mixing=None, micro_batch=0):
            return functional.mse_loss(logits, functional.one_hot(labels, 5).float())

    x = logits().detach()
    total, weight = Squares().total(x, LABELS)
    assert total / weight == pytest.approx(float(Squares()(x, LABELS)))


# -- binary cross-entropy ----------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_binary_cross_entropy_of_several_labels_is_torch_s(weights):
    loss = BinaryCrossEntropy(BinaryCrossEntropyOptions(0.0, weights))
    assert_same(lambda x: loss(x, SEVERAL), lambda x: functional.binary_cross_entropy_with_logits(
        x, SEVERAL, pos_weight=torch.tensor(weights) if weights else None))


def test_binary_cross_entropy_of_one_label_is_that_of_the_one_hot_target():
    hot = functional.one_hot(LABELS, 5).float()
    assert_same(lambda x: BinaryCrossEntropy()(x, LABELS),
                lambda x: functional.binary_cross_entropy_with_logits(x, hot))


def test_binary_label_smoothing():
    target = 0.7 * SEVERAL + 0.3 / 5

    def expected(x):
        p = x.sigmoid()
        return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

    assert_same(lambda x: BinaryCrossEntropy(BinaryCrossEntropyOptions(0.3))(x, SEVERAL), expected)


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("one_each", [True, False])
def test_binary_cross_entropy_of_mixed_images(name, one_each):
    mixed = mixing(name)
    given = LABELS if one_each else SEVERAL
    target = mixed_target(functional.one_hot(LABELS, 5).float() if one_each else SEVERAL, mixed)
    assert_same(lambda x: BinaryCrossEntropy()(x, given, mixed, 4),
                lambda x: functional.binary_cross_entropy_with_logits(x, target))


# -- focal loss --------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_its_formula(gamma):
    def expected(x):
        p = x.softmax(1).gather(1, LABELS[:, None])[:, 0]
        return -(torch.tensor(WEIGHTS)[LABELS] * (1 - p) ** gamma * p.log()).mean()

    assert_same(lambda x: Focal(FocalOptions(gamma, WEIGHTS))(x, LABELS), expected)


def test_focal_loss_with_gamma_0_is_cross_entropy():
    mixed = mixing("both")
    assert_same(lambda x: Focal(FocalOptions(0.0))(x, LABELS, mixed, 4),
                lambda x: CrossEntropy()(x, LABELS, mixed, 4))


def test_focal_loss_of_mixed_images_is_the_sum_by_shares():
    coefficients = torch.full((8,), 0.75)
    assert_same(lambda x: Focal()(x, LABELS, Mixing(coefficients), 4),
                lambda x: 0.75 * Focal()(x, LABELS)
                + 0.25 * Focal()(x, LABELS.view(2, 4).roll(1, 1).reshape(-1)))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_finite_gradient_where_an_image_is_certain(gamma):
    x = torch.tensor([[200.0, 0.0], [0.0, 200.0], [0.0, 0.0]], requires_grad=True)
    Focal(FocalOptions(gamma))(x, torch.zeros(3, dtype=torch.int64)).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[1].abs().max() > 0.1
    assert x.grad[0].abs().max() == 0


# -- what they have in common ------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mixed", [None, *MIXINGS])
def test_several_micro_batches_have_the_mean_of_their_losses(name, mixed):
    loss, given = LOSSES[name], mixing(mixed, 2) if mixed else None

    def one_by_one(x):
        return sum(loss(x[first:first + 2], LABELS[first:first + 2],
                        given and given.part(first // 2, 1, 2), 2) for first in range(0, 8, 2)) / 4

    assert_same(lambda x: loss(x, LABELS, given, 2), one_by_one)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_with_in_single_precision(name, dtype):
    x = logits().detach().to(dtype)
    assert torch.equal(LOSSES[name](x, LABELS), LOSSES[name](x.float(), LABELS))


@pytest.mark.parametrize("loss", [
    CrossEntropy(CrossEntropyOptions(class_weights=WEIGHTS)),
    BinaryCrossEntropy(BinaryCrossEntropyOptions(class_weights=WEIGHTS)),
    Focal(FocalOptions(class_weights=WEIGHTS))], ids=lambda loss: loss.name)
def test_there_is_a_weight_for_each_class(loss):
    loss.check(5)
    type(loss)().check(3)
    with pytest.raises(UsageError, match="5 weights for 3 classes"):
        loss.check(3)


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy(), Focal()],
                         ids=lambda loss: loss.name)
def test_balanced_weights_are_set_from_counts(loss):
    own = type(loss)(dataclasses.replace(loss._options, class_weights=("balanced",)))
    assert own.needs_counts
    assert not loss.needs_counts
    own.check(3)
    own.count_classes([6, 3, 1])
    weighted = type(loss)(dataclasses.replace(
        loss._options, class_weights=(10 / 18, 10 / 9, 10 / 3)))
    x, labels = logits()[:, :3], LABELS % 3
    assert torch.allclose(own(x, labels), weighted(x, labels))
    assert not torch.allclose(own(x, labels), loss(x, labels))
    with pytest.raises(UsageError, match="'balanced' and other weights"):
        type(loss)(dataclasses.replace(loss._options, class_weights=("balanced", 2.0))).check(2)


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal()], ids=lambda loss: loss.name)
def test_several_labels_are_refused_where_there_must_be_one(loss):
    with pytest.raises(UsageError, match=f"loss '{loss.name}' takes one label per image"):
        loss(logits(), SEVERAL)


def test_what_a_device_needs_to_know():
    assert LOSSES["weighted"].device_form() == CrossEntropyForm(0.1, WEIGHTS)
    assert LOSSES["binary"].device_form() is LOSSES["focal"].device_form() is None


def test_options_are_declared():
    for options, names in ((CrossEntropyOptions, ["label_smoothing", "class_weights"]),
                           (BinaryCrossEntropyOptions, ["label_smoothing", "class_weights"]),
                           (FocalOptions, ["focal_gamma", "class_weights"])):
        items = {item.name: item for item in declared(options)}
        assert list(items) == names
        assert items["class_weights"].coerce("0.5 2") == (0.5, 2.0)
        assert items["class_weights"].coerce("Balanced") == ("balanced",)
        with pytest.raises(UsageError, match="'even' is not a number or 'balanced'"):
            items["class_weights"].coerce("even")
        with pytest.raises(UsageError, match="too small"):
            items["class_weights"].coerce("0 1")


def test_importing_them_is_light():
    modules = ", ".join(f"ipucnn.plugins.losses.{name}" for name in (
        "cross_entropy", "binary_cross_entropy", "focal"))
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}, "
                           "ipucnn.core.execution.losses, ipucnn.core.execution.mixing; "
                           "assert 'torch' not in sys.modules"], stderr=subprocess.PIPE)
    assert not done.returncode, done.stderr.decode()
