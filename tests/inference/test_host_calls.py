"""Host calls of inference: several in flight, and errors of images between them."""

from __future__ import annotations

from contextlib import nullcontext

import numpy
import pytest

from ipucnn.core.errors import DataError, PluginError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.loader import Batch
from ipucnn.inference.host_calls import HostCalls, batches


class Session:
    """Gives each batch back when its result is read."""

    samples_per_call = 1

    def __init__(self, in_flight):
        self.in_flight = in_flight

    def start(self, images):
        return lambda: images

    def device_latency(self):
        return None


def images(count, broken=None):
    for number in range(count):
        if number == broken:
            raise DataError(f"image {number} cannot be read", "")
        yield Batch(f"image {number}", [number], [None])


def deliver_all(calls, done):
    while calls.execute(lambda batch, logits: done.append(logits)):
        pass


@pytest.mark.parametrize("in_flight", [1, 2, 3, 8])
@pytest.mark.parametrize("broken", [0, 1, 4])
def test_results_before_an_image_that_cannot_be_read_are_delivered(in_flight, broken):
    calls = HostCalls(ExecutionPlan(), Session(in_flight), images(5, broken), None, lambda _: None)
    done = []
    with pytest.raises(DataError, match=f"image {broken} "):
        deliver_all(calls, done)
    assert done == [f"image {number}" for number in range(broken)]
    assert calls.images == broken


@pytest.mark.parametrize("in_flight", [1, 3, 8])
def test_all_results_are_delivered_in_order(in_flight):
    calls = HostCalls(ExecutionPlan(), Session(in_flight), images(5), None, lambda _: None)
    done = []
    deliver_all(calls, done)
    assert done == [f"image {number}" for number in range(5)]


@pytest.mark.parametrize("broken", [None, 6])
def test_the_results_of_a_combined_batch_are_delivered_at_once(broken):
    def numbers():
        for number, batch in enumerate(images(7, broken)):
            yield Batch(numpy.full((1, 2), number), batch.indices, [10 + number])

    calls = HostCalls(ExecutionPlan(micro_batch=4), Session(3), numbers(), None, lambda _: None)
    found = []

    def deliver(batch, logits):
        found.append((batch.indices, batch.labels, logits[:, 0].tolist()))

    with pytest.raises(DataError) if broken else nullcontext():
        while calls.execute(deliver):
            pass
    second = list(range(4, broken or 7))
    assert found == [(numbers, [10 + number for number in numbers], numbers)
                     for numbers in ([0, 1, 2, 3], second)]


@pytest.mark.parametrize("logits", [None, numpy.zeros((1, 4), "float32")])
def test_logits_of_generated_images_are_checked(logits):
    session = Session(1)
    session.start = lambda _: lambda: logits
    calls = HostCalls(ExecutionPlan(), session, batches(None, 3, 1), None, lambda _: None, 5,
                      "backend 'x' of y")
    with pytest.raises(PluginError, match="the session of backend 'x' of y returned"):
        calls.execute(lambda *_: None)
