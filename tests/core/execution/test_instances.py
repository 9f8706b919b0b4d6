"""Which samples an instance has, and when all instances stop."""

from __future__ import annotations

import numpy
import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.instances import ALONE, Agreement, Instances
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import StepResult
from ipucnn.training.feed import own_part
from ipucnn.training.metrics.figures import Figures


def test_instances_take_the_samples_of_their_replicas():
    plan = ExecutionPlan(micro_batch=2, device_iterations=2, replicas=4, gradient_accumulation=3,
                         training=True, instances=2)
    order = numpy.random.default_rng(0).permutation(2 * plan.combined_batch + 7)
    parts = [own_part(order, plan, index) for index in range(2)]
    calls = order[:2 * plan.combined_batch].reshape(2, 2, 3, 4, 2)  # call, D, G, R, B
    for index, part in enumerate(parts):
        assert len(part) == 2 * plan.local_batch
        expected = calls[:, :, :, 2 * index:2 * index + 2]
        assert part.tolist() == expected.reshape(-1).tolist()
    assert sorted(numpy.concatenate(parts)) == sorted(order[:2 * plan.combined_batch])


def test_one_process_has_the_whole_order():
    order = numpy.arange(11)
    assert own_part(order, ExecutionPlan(micro_batch=4), 0) is order


def test_replicas_must_divide_among_instances():
    with pytest.raises(UsageError, match="6 replicas cannot be divided among 4 instances"):
        ExecutionPlan(replicas=6, instances=4)


class Pair(Instances):
    """One of two, which receives what the other sends."""

    count = 2

    def __init__(self, other, index=0):
        self.other, self.index, self.exchanges = other, index, 0

    def gather(self, value):
        self.exchanges += 1
        values = [value, self.other]
        return values if self.index == 0 else values[::-1]


def test_all_stop_and_save_when_one_requests_it():
    assert Agreement(ALONE)("SIGINT", False) == ("SIGINT", False)
    assert Agreement(Pair(["SIGTERM", False, 0.1]))("", False) == ("SIGTERM", False)
    assert Agreement(Pair(["", True, 0.1]))("", False) == ("", True)
    assert Agreement(Pair(["", False, 0.1]))("", True) == ("", True)


def test_they_exchange_about_once_in_a_second():
    other = Pair(["", False, 0.1], index=1)  # the first instance measures 0.1 seconds a call
    agree = Agreement(other)
    for _ in range(31):
        agree("", False)
    assert other.exchanges == 4
    assert agree("SIGINT", False) == ("", False)  # not yet
    assert agree("SIGINT", False, now=True) == ("SIGINT", False)


def figures():
    made = Figures()
    made.add(StepResult(loss=2.0, samples=4, correct=1))
    return made


def test_rows_and_epochs_are_of_all_instances():
    mine = figures()
    assert mine.window(Pair([4.0, 4, 3])) == {"loss": 1.5, "accuracy": 50.0}
    assert mine.row_samples == 0
    mine.end_epoch(Pair([4.0, 4, 3]))
    assert (mine.loss(), mine.accuracy()) == (1.5, 50.0)


def test_a_checkpoint_keeps_the_sums_of_each_instance():
    theirs = [1.0, 4, 2, 1.0, 4, 2]
    plain = figures().as_plain(Pair(theirs))
    again = Figures.from_plain(plain, Pair(None, index=1))
    assert [again.loss_sum, again.samples, again.row_correct] == [1.0, 4, 2]
    alone = Figures.from_plain(plain)
    assert [alone.loss_sum, alone.samples, alone.correct] == [9.0, 8, 3]
