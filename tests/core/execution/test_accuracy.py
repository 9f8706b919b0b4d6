"""Top-k accuracy: counts, unknown and multiple labels, sums over batches and processes."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

from ipucnn.core.execution.accuracy import UNKNOWN, TopK, is_correct, per_cent

LOGITS = torch.randn(40, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.randint(0, 8, (40,), generator=torch.Generator().manual_seed(4))


def by_hand(logits, labels, k):
    ranked = [sorted(range(len(row)), key=lambda c, row=row: -row[c]) for row in logits.tolist()]
    return sum(label in order[:k] for order, label in zip(ranked, labels.tolist()))


def test_counts_are_those_of_the_definition():
    top = TopK()
    best = top.add(LOGITS, LABELS)
    assert top.as_plain() == [40, by_hand(LOGITS, LABELS, 1), by_hand(LOGITS, LABELS, 5)]
    assert best.shape == (40, 5)
    assert best[:, 0].tolist() == LOGITS.argmax(1).tolist()
    assert 0 < top.top1 < top.top5 < 40
    assert top.accuracy() == {"top1": 100 * top.top1 / 40, "top5": 100 * top.top5 / 40,
                              "images": 40}


def test_batches_and_processes_add_up():
    whole = TopK()
    whole.add(LOGITS, LABELS)
    batches, first, second = TopK(), TopK(), TopK()
    for start in range(0, 40, 7):
        batches.add(LOGITS[start:start + 7], LABELS[start:start + 7])
    first.add(LOGITS[:13], LABELS[:13])
    second.add(LOGITS[13:], LABELS[13:])
    merged = TopK.merged([first.as_plain(), second.as_plain(), TopK().as_plain()])
    assert whole.as_plain() == batches.as_plain() == merged.as_plain()


def test_images_of_unknown_class_are_not_counted():
    labels = LABELS.clone()
    labels[::2] = UNKNOWN
    top, known = TopK(), TopK()
    assert len(top.add(LOGITS, labels)) == 40
    known.add(LOGITS[1::2], LABELS[1::2])
    assert top.as_plain() == known.as_plain()
    assert top.images == 20


def test_without_images_there_is_no_accuracy():
    top = TopK()
    top.add(LOGITS, torch.full((40,), UNKNOWN))
    assert top.accuracy() is None
    assert per_cent(0, 0) == 0


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_with_few_classes_all_are_among_the_first_five(classes):
    top = TopK()
    top.add(LOGITS[:, :classes], LABELS % classes)
    assert top.top5 == top.images == 40


def test_any_of_several_labels_is_correct():
    one_hot = torch.nn.functional.one_hot(LABELS, 8).float()
    single, several, both = TopK(), TopK(), TopK()
    single.add(LOGITS, LABELS)
    several.add(LOGITS, one_hot)
    assert single.as_plain() == several.as_plain()
    assert torch.equal(is_correct(LOGITS, LABELS), is_correct(LOGITS, one_hot))
    two = one_hot + torch.nn.functional.one_hot(LOGITS.argmax(1), 8)
    both.add(LOGITS, two)
    assert both.top1 == both.images == 40
    assert is_correct(LOGITS, two).all()


def test_a_device_can_trace_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch deprecates it
        traced = torch.jit.trace(lambda logits, labels: is_correct(logits, labels).float().sum(),
                                 (LOGITS[:4], LABELS[:4]))
    assert int(traced(LOGITS, LABELS)) == by_hand(LOGITS, LABELS, 1)


def test_it_is_light():
    done = subprocess.run([sys.executable, "-c", "import sys, ipucnn.core.execution.accuracy; "
                           "assert 'torch' not in sys.modules"], stderr=subprocess.PIPE)
    assert not done.returncode, done.stderr.decode()
