"""The validation of a training's checkpoints in several instances."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import torch

from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.progress import Listener
from ipucnn.training.checkpoints.averaging import average
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, save
from ipucnn.training.validator import Validator


class One(Instances):
    """The first instance, which records what it sends, or another one, which receives that."""

    count = 2

    def __init__(self, index, sent):
        self.index, self._sent = index, sent

    def gather(self, value):
        if not self.index:
            self._sent.append([value, None])
        return self._sent.pop(0) if self.index else [value, None]

    def share(self, weights):
        if not self.index:
            self._sent.append({name: value.clone() for name, value in weights.items()})
            return
        for name, value in self._sent.pop(0).items():
            weights[name].copy_(value)


class Scores:
    """A validation with what the evaluator was called with."""

    label, top1 = "", 0.0

    def __init__(self, found):
        self.found = found

    def figures(self):
        return {"found": self.found}


class Evaluated:
    """An evaluator that returns the weights."""

    def example(self):
        return {"w": torch.zeros(2)}

    def __call__(self, weights, epoch, kind, checkpoint, listener):
        found = weights["w"].tolist(), epoch, kind, checkpoint
        return Scores(found)


def validated(folder, instances):
    validator = Validator(SimpleNamespace(validation=None, options=None, instances=instances),
                          Listener())
    validator._evaluator = Evaluated()
    rows = []
    validator.validate_folder(folder, lambda one, update: rows.append((one.found, update)))
    assert [found for found, _ in rows] == [one["found"] for one in validator.figures]
    return rows


def test_a_host_without_the_checkpoints_validates_those_of_the_first(tmp_path):
    for epoch in (1, 2):
        weights = {"w": torch.full((2,), float(epoch))}
        save(Checkpoint("m", "d", Position(epoch, update=epoch), weights,
                        ema={"w": weights["w"] / 2} if epoch == 2 else None,
                        session={"optimizer": {}}), tmp_path)
    average(tmp_path, "mean", 0.9, -1)
    sent = []
    first = validated(tmp_path, One(0, sent))
    assert first == [(([1.0, 1.0], 1, "raw", "m_d_1.pt"), 1),
                     (([2.0, 2.0], 2, "raw", "m_d_2.pt"), 2),
                     (([1.0, 1.0], 2, "ema", "m_d_2.pt"), 2),
                     (([1.5, 1.5], 2, "raw", "m_d_2_averaged.pt"), 2)]
    assert validated(tmp_path / "not here", One(1, sent)) == first
    assert not sent


def test_earlier_validations_of_a_long_training_are_not_kept(tmp_path):
    for epoch in (1, 2, 3):
        save(Checkpoint("m", "d", Position(epoch), {"w": torch.zeros(2)},
                        session={"optimizer": {}}), tmp_path)
    validator = Validator(SimpleNamespace(validation=None, options=None, instances=ALONE),
                          Listener())
    validator._evaluator = Evaluated()
    made = []
    validator.validate_folder(tmp_path, lambda one, _: made.append(weakref.ref(one)))
    assert [one() is None for one in made] == [True, True, False]
    assert len(validator.figures) == 3
