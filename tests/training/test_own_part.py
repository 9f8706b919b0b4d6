"""What an epoch's order costs each of many ranks."""

from __future__ import annotations

import tracemalloc

import numpy
import pytest

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data import ImageDataset
from ipucnn.training.feed import own_part

SAMPLES = 1_000_000


class Numbers(ImageDataset):
    def __len__(self):
        return SAMPLES

    def image(self, index):
        raise NotImplementedError

    def name(self, index):
        return str(index)


@pytest.mark.parametrize("ranks", [1, 4, 256])
def test_a_rank_keeps_its_share_of_a_million_samples(ranks):
    plan = ExecutionPlan(micro_batch=8, replicas=ranks, instances=ranks, training=True)
    tracemalloc.start()
    try:
        own = own_part(Numbers().order(7, 3), plan, ranks - 1)
        kept, peak = tracemalloc.get_traced_memory()
        assert len(own)
    finally:
        tracemalloc.stop()
    assert kept < 8 * SAMPLES / ranks + 100_000
    assert peak < 8 * SAMPLES * (1 + 1 / ranks) + 100_000


def test_all_ranks_together_have_the_order_of_one():
    order = Numbers().order(7, 3)
    plan = ExecutionPlan(micro_batch=8, replicas=16, instances=16, training=True)
    parts = [own_part(order, plan, rank) for rank in range(16)]
    whole = len(order) // 128 * 128
    together = numpy.stack([part.reshape(-1, 8) for part in parts], axis=1).reshape(-1)
    assert numpy.array_equal(together, order[:whole])
