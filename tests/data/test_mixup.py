"""Mixup and cutmix against what their papers say, and their independence of the batching."""

from __future__ import annotations

import pytest
import torch

from ipucnn.core.execution.mixing import Mixing, MixOptions
from ipucnn.data.mixup import draw, mix_images
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions

INDICES = [7, 3, 12, 5, 0, 9, 4, 1]
BOTH = MixOptions(mixup_alpha=0.4, cutmix_low=0.2, cutmix_high=0.8)


def images(count: int = 8, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def by_hand(batch: torch.Tensor, mixing: Mixing, micro_batch: int) -> torch.Tensor:
    """Mix image by image: mixup with the one before, then cut from the second one before."""
    result = batch.clone()
    for first in range(0, len(batch), micro_batch):
        rows = list(batch[first:first + micro_batch])
        if mixing.coefficients is not None:
            share = mixing.coefficients[first:first + micro_batch]
            rows = [c * row + (1 - c) * batch[first + (i - 1) % micro_batch]
                    for i, (row, c) in enumerate(zip(rows, share))]
        for i, row in enumerate(rows):
            result[first + i] = row
            if mixing.boxes is not None:
                top, left, bottom, right = mixing.boxes[first // micro_batch]
                result[first + i, :, top:bottom, left:right] = \
                    rows[(i - 2) % micro_batch][:, top:bottom, left:right]
    return result


@pytest.mark.parametrize("options", [
    MixOptions(mixup_alpha=0.4), MixOptions(cutmix_low=0.2, cutmix_high=0.8), BOTH],
    ids=["mixup", "cutmix", "both"])
def test_images_are_mixed_within_their_micro_batch(options):
    batch = images()
    before = batch.clone()
    mixing = draw(options, 3, 2, INDICES, 4, 16)
    torch.testing.assert_close(mix_images(batch, mixing, 4), by_hand(batch, mixing, 4))
    assert torch.equal(batch, before)


def test_the_draw_depends_on_seed_epoch_and_sample_only():
    whole = draw(BOTH, 3, 2, INDICES, 4, 16)
    parts = [draw(BOTH, 3, 2, INDICES[:4], 4, 16), draw(BOTH, 3, 2, INDICES[4:], 4, 16)]
    for number, part in enumerate(parts):
        taken = whole.part(number, 1, 4)
        for field in ("coefficients", "boxes", "kept"):
            assert torch.equal(getattr(part, field), getattr(taken, field))
    alone = draw(MixOptions(mixup_alpha=0.4), 3, 2, [12], 1, 16).coefficients
    assert alone[0] == whole.coefficients[2]
    for other in (draw(BOTH, 4, 2, INDICES, 4, 16), draw(BOTH, 3, 1, INDICES, 4, 16)):
        assert not torch.equal(other.coefficients, whole.coefficients)
        assert not torch.equal(other.boxes, whole.boxes)
    assert len(set(whole.coefficients.tolist())) == len(INDICES)


def test_shares_match_the_drawn_boxes():
    mixing = draw(BOTH, 0, 0, list(range(400)), 4, 32)
    assert mixing.coefficients.min() >= 0.5
    assert mixing.coefficients.max() < 1
    top, left, bottom, right = mixing.boxes.T
    assert (mixing.boxes >= 0).all()
    assert (mixing.boxes <= 32).all()
    torch.testing.assert_close(mixing.kept, 1 - (bottom - top) * (right - left) / 32**2)
    assert 0.15 < mixing.kept.min() < mixing.kept.max() < 0.85  # boxes end at whole pixels


def test_probability_of_no_cut():
    cuts = MixOptions(cutmix_low=0.2, cutmix_high=0.8, cutmix_disable_prob=1.0)
    assert torch.equal(draw(cuts, 0, 0, INDICES, 4, 16).kept, torch.ones(2))
    some = MixOptions(cutmix_low=0.2, cutmix_high=0.8, cutmix_disable_prob=0.5)
    kept = draw(some, 0, 0, list(range(800)), 4, 16).kept
    assert 70 < int((kept == 1).sum()) < 130


@pytest.mark.parametrize("options", [MixOptions(), MixOptions(cutmix_low=1, cutmix_high=1)])
def test_off_by_default(options):
    assert not options.enabled


def test_loss_is_that_of_the_mixed_labels():
    mixing = draw(BOTH, 3, 2, INDICES, 4, 16)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    hot = torch.nn.functional.one_hot(labels, 5).float().view(2, 4, 5)
    share = mixing.coefficients.view(2, 4, 1)
    target = share * hot + (1 - share) * hot.roll(1, 1)
    kept = mixing.kept.view(2, 1, 1)
    target = (kept * target + (1 - kept) * target.roll(2, 1)).view(8, 5)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(CrossEntropy()(logits, labels, mixing, 4), expected)
    smoothed = 0.9 * target + 0.1 / 5
    expected = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    loss = CrossEntropy(CrossEntropyOptions(0.1))
    torch.testing.assert_close(loss(logits, labels, mixing, 4), expected)


@pytest.mark.parametrize("options", [
    MixOptions(mixup_alpha=0.4), MixOptions(cutmix_low=0.2, cutmix_high=0.8), BOTH],
    ids=["mixup", "cutmix", "both"])
def test_a_part_is_a_slice_and_gives_the_same_images_and_loss(options):
    batch, labels = images(), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    whole = draw(options, 3, 2, INDICES, 2, 16)
    part = whole.part(1, 2, 2)
    for field, one in (("coefficients", 2), ("boxes", 1), ("kept", 1)):
        full = getattr(whole, field)
        assert (full is None) == (getattr(part, field) is None)
        assert full is None or torch.equal(getattr(part, field), full[one:3 * one])
    assert torch.equal(mix_images(batch[2:6], part, 2), mix_images(batch, whole, 2)[2:6])
    losses = [CrossEntropy()(logits[i:i + 2], labels[i:i + 2], whole.part(i // 2, 1, 2), 2)
              for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.stack(losses).mean(), CrossEntropy()(logits, labels, whole, 2))


def test_loss_of_mixup_alone_and_of_cutmix_alone():
    labels = torch.tensor([0, 1, 2, 3])
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(5))
    hot = torch.nn.functional.one_hot(labels, 5).float()
    share = torch.tensor([[0.5], [0.6], [0.7], [1.0]])
    for mixing, target in (
            (Mixing(coefficients=share[:, 0]), share * hot + (1 - share) * hot.roll(1, 0)),
            (Mixing(boxes=torch.tensor([[0, 0, 8, 8]]), kept=torch.tensor([0.75])),
             0.75 * hot + 0.25 * hot.roll(2, 0))):
        expected = -(target * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(CrossEntropy()(logits, labels, mixing, 4), expected)
