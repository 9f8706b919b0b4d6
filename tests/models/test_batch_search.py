"""The search for the fastest micro-batch, with calls of known length, and stored results."""

import time

import pytest
import torch

from ipucnn.core.errors import (
    BatchTooSmallError,
    IpucnnError,
    OutOfMemoryError,
    TooLargeError,
    UnsupportedNetworkError,
    UsageError,
)
from ipucnn.models import batch_search
from ipucnn.models.batch_search import Found, Record, search


@pytest.fixture
def clock(monkeypatch):
    """A clock that only calls move."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def calls(clock, seconds, fits=10**9, times=1):
    """Return a caller of calls of some micro-batches that take `seconds(size)`."""

    def caller(size):
        if size > fits:
            raise OutOfMemoryError("no place for it")

        def call():
            clock[0] += seconds(size)

        return call, times * size

    return caller


@pytest.mark.parametrize(("seconds", "limits", "size", "measured", "why"), [
    # a fixed cost beside that of each image: gains fall below 2 % after 32 (1.5 %)
    (lambda n: 0.001 + 0.002 * n, (1, 1024), 16, [1, 2, 4, 8, 16, 32, 64], "are not faster"),
    (lambda n: 0.002 * n, (1, 1024), 1, [1, 2, 4], "are not faster"),
    (lambda n: 0.01, (1, 20), 16, [1, 2, 4, 8, 16], "20 is the largest possible size"),
    (lambda n: 0.01, (4, 4), 4, [4], "4 is the largest possible size"),
    # one size that is slower does not end the search
    (lambda n: 0.02 if n == 4 else 0.01, (1, 8), 8, [1, 2, 4, 8], "8 is the largest possible size"),
    (lambda n: 1 + n, (1, 1024), 1, [1], "takes too long")])
def test_the_fastest_size_is_found(clock, seconds, limits, size, measured, why):
    found = search(calls(clock, seconds), *limits)
    assert (found.size, list(found.rates)) == (size, measured)
    assert why in found.why
    assert clock[0] < 20
    assert found.note.endswith(f"reproduce with '--batch-size {size}'")


def test_a_size_that_does_not_fit_ends_the_search(clock):
    found = search(calls(clock, lambda _: 0.01, fits=7), 1, 1024)
    assert (found.size, found.why) == (4, "8 does not fit into memory")
    with pytest.raises(IpucnnError, match="no place"):
        search(calls(clock, lambda _: 0.01, fits=0), 1, 1024)


def test_a_size_that_is_refused_ends_the_search_with_the_reason(clock, tmp_path):
    fitting = calls(clock, lambda _: 0.01)

    def caller(size):
        if size > 2:
            raise UsageError(f"'--images-per-call 3' does not divide a micro-batch of {size}")
        return fitting(size)

    found = search(caller, 1, 1024)
    assert (found.size, found.why) == (2, "4 is not possible: '--images-per-call 3' does not "
                                          "divide a micro-batch of 4")
    record = Record(tmp_path / "batch.json")
    assert record.result(lambda: found) is found
    assert record.result(lambda: FOUND) is FOUND


def test_a_norm_layer_may_need_two_images(clock):
    fitting = calls(clock, lambda _: 0.01)

    def caller(size):
        if size < 2:
            raise BatchTooSmallError("a norm layer sees a single value per channel")
        return fitting(size)

    found = search(caller, 1, 4)
    assert (found.size, list(found.rates)) == (4, [2, 4])
    with pytest.raises(BatchTooSmallError, match="a norm layer"):
        search(caller, 1, 1)


@pytest.mark.parametrize("kind", [TooLargeError, UnsupportedNetworkError, UsageError])
def test_what_two_images_do_not_change_ends_the_search(kind):
    sizes = []

    def caller(size):
        sizes.append(size)
        raise kind("not here")

    with pytest.raises(kind):
        search(caller, 1, 4)
    assert sizes == [1]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_missing_memory_of_the_host_ends_the_search(clock, error):
    fitting = calls(clock, lambda _: 0.01, times=3)

    def caller(size):
        if size > 2:
            raise error
        return fitting(size)

    found = search(caller, 1, 1024)
    assert (found.size, found.why) == (2, "4 does not fit into memory")
    assert found.rates[2] == pytest.approx(600)  # of three micro-batches in each call
    with pytest.raises(RuntimeError, match="wrong"):
        search(lambda _: (_ for _ in ()).throw(RuntimeError("wrong")), 1, 4)


FOUND = Found(8, {4: 10.0, 8: 20.5}, "larger ones are not faster")


def never():
    raise AssertionError("it is measured again")


def test_a_result_is_remembered_for_the_same_network_and_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))

    def result(measured, structure="network", precision="32.32"):
        return Record.of(structure, {"precision": precision, "device": "CPU"}).result(measured)

    assert result(lambda: FOUND) is FOUND
    again = result(never)
    assert (again.size, again.rates, again.remembered) == (8, {4: 10.0, 8: 20.5}, True)
    assert "20.5 images/s, measured in an earlier run" in again.note
    assert not result(lambda: FOUND, precision="16.16").remembered
    assert not result(lambda: FOUND, structure="other").remembered
    with monkeypatch.context() as other:
        other.setattr(batch_search, "nvidia_cards", lambda: ["NVIDIA H200"])
        assert not result(lambda: FOUND).remembered
    monkeypatch.setattr(batch_search, "compute_threads", lambda: 99)
    assert not result(lambda: FOUND).remembered


def test_a_result_that_memory_limited_applies_while_as_much_is_free(clock, tmp_path, monkeypatch):
    record = Record(tmp_path / "batch.json")
    free = [10 << 30]
    monkeypatch.setattr(batch_search, "available_memory", lambda: free[0])

    def measured(fits):
        return record.result(lambda: search(calls(clock, lambda _: 0.01, fits), 1, 64)).size

    assert measured(fits=7) == 4
    free[0] = 9 << 30
    assert measured(fits=100) == 4
    # another program has ended
    free[0] = 20 << 30
    assert measured(fits=20) == 16
    free[0] = 5 << 30
    assert measured(fits=3) == 2
    # nothing but the speed limits it
    assert measured(fits=100) == 2
    free[0] = 40 << 30
    assert measured(fits=100) == 64
    free[0] = 1 << 30
    assert measured(fits=1) == 64


@pytest.mark.parametrize(("place", "index"), [(None, None), ("cuda", None), ("cuda:1", 1)])
def test_free_memory_is_that_of_the_device_in_use(tmp_path, monkeypatch, place, index):
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (devices.append(device) or 1, 2))
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    Record.of("network", {"device": "Card"}, place).result(lambda: FOUND)
    assert devices == [index]


def test_a_gpu_whose_free_memory_is_unknown_is_measured(tmp_path, monkeypatch):
    """The measurement then reports the GPU, not the machine, as out of memory."""
    def fails(_):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", fails)
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    assert Record.of("network", {"device": "Card"}).result(lambda: FOUND) is FOUND


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"size": 8, "rates": {"4": 1}, "why": ""}',
                                     '{"size": 8, "rates": {"8": 0}, "why": ""}',
                                     '{"size": "8", "rates": {"8": 1}, "why": ""}',
                                     '{"size": 8, "rates": {"8": 1}, "why": "", "free": ""}'])
def test_a_damaged_record_is_measured_again(tmp_path, monkeypatch, content):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    record = Record.of("network", {"device": "CPU"})
    record.path.parent.mkdir()
    record.path.write_text(content)
    assert record.result(lambda: FOUND) is FOUND
