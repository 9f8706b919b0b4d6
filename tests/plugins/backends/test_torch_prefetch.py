"""Prefetching to a CUDA device, tested on a fake one whose copies complete on request."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time

import pytest
import torch
from test_torch_training import network, session

from ipucnn.core.errors import DataError, IpucnnError, OutOfMemoryError
from ipucnn.core.execution.feeding import FeedRequest
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset
from ipucnn.data.host_loader import HostLoader
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.inference import TorchInferenceSession
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.prefetch import DeviceLoader

CPU = Device(torch.device("cpu"), "CPU", torch.bfloat16, torch.float32)
CARD = Device(torch.device("cuda"), "Card", torch.float16, torch.float16)


class Numbers(ImageDataset):
    """Image i is filled with i; some are bad."""

    ready = True

    def __init__(self, length, bad=()):
        self.length, self.bad = length, bad

    def __len__(self):
        return self.length

    def image(self, index):
        if index in self.bad:
            raise DataError(f"image {index} is bad")
        return torch.full((3, 4, 4), index, dtype=torch.uint8)

    def name(self, index):
        return str(index)


class Card:
    """A CUDA device that copies only in `run`, in order, from whatever the memory then holds.

    An eager one has done so when computations begin to wait for it.
    """

    eager = False

    def __init__(self):
        self.waiting, self.begun, self.ran, self.pinned, self.orders = [], 0, 0, 0, []
        self.contexts = []

    @contextlib.contextmanager
    def within(self, what):
        self.contexts.append(what)
        yield
        self.contexts.append(("end", what))

    def copy(self, host):
        target = torch.full_like(host, 255)
        # an address, as a real one has: it does not keep the source from being used again
        self.waiting.append((target, host.data_ptr(), host.numel() * host.element_size()))
        self.begun += 1
        return target

    def run(self):
        for target, source, size in self.waiting:
            ctypes.memmove(target.data_ptr(), source, size)
        self.ran, self.waiting = self.begun, []


class Stream:
    card = None

    def __init__(self, *_):
        pass

    def wait_event(self, event):
        self.card.orders.append(("wait for copy", event.number))
        if self.card.eager:
            self.card.run()


class Event:
    card = None

    def record(self, _):
        self.number = self.card.begun

    def query(self):
        return self.card.ran >= self.number

    def synchronize(self):
        self.card.run()


@pytest.fixture
def card(monkeypatch):
    """The pretended device, in the place of torch's interface to CUDA."""
    made = Stream.card = Event.card = Card()
    to, empty = torch.Tensor.to, torch.empty

    def moved(tensor, *rest, **named):
        if CARD.place not in rest:
            return to(tensor, *rest, **named)
        assert named["non_blocking"]
        return made.copy(tensor)

    def allocated(*shape, pin_memory=False, **named):
        made.pinned += pin_memory
        return empty(*shape, **named)

    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: made.orders.append("keep"))
    monkeypatch.setattr(torch, "empty", allocated)
    for name, value in (("Stream", Stream), ("Event", Event),
                        ("stream", lambda _: made.within("stream")),
                        ("device", made.within), ("current_stream", Stream)):
        monkeypatch.setattr(torch.cuda, name, value)
    return made


def feeding(dataset, size=4, **how):
    """A training session on the card, and its loader of all images."""
    made = session(network(), micro_batch=4)
    made._device = CARD
    return made, made.feed(FeedRequest(dataset, Preprocessing(4), size, range(len(dataset)),
                                       {"workers": 2, **how}))


def after_the_workers(loader):
    """Wait until the next batch is prepared on the host."""
    until = time.monotonic() + 20
    while loader._coming and not all(task.done() for _, tasks in loader._coming
                                     for task in tasks):
        assert time.monotonic() < until
        time.sleep(0.001)


def test_pinned_memory_is_filled_again_only_behind_its_copy(card):
    made, loader = feeding(Numbers(40))
    batches = list(loader)  # faster than the device, which has copied nothing until the end
    assert card.waiting == []  # the end of the loader waits for the copies
    assert card.pinned == 10
    for batch in batches:
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices
    assert made._pinned is not None


def test_pinned_memory_is_used_again(card):
    made, loader = feeding(Numbers(160))
    for batch in loader:
        after_the_workers(loader)
        card.run()
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices
        del batch
    assert card.pinned <= 13  # of 40
    before = card.pinned
    again = made.feed(FeedRequest(Numbers(12), Preprocessing(4), 4, range(12), {"workers": 2}))
    assert [batch.indices[0] for batch in again] == [0, 4, 8]
    assert card.pinned == before


def test_the_next_batch_is_copied_while_the_last_one_is_used(card):
    _, loader = feeding(Numbers(24))
    running = iter(loader)
    next(running)
    after_the_workers(loader)
    for number in range(2, 6):
        next(running)
        assert card.begun == number + 1  # this one, and the next
        assert card.orders[-2:] == [("wait for copy", number), "keep"]
        after_the_workers(loader)
    loader.close()
    assert card.waiting == []
    assert loader._coming == loader._leaving == type(loader._coming)()


def test_a_copy_makes_its_device_the_current_one_before_its_stream(card):
    """The end of a stream would set the device before, and so make a context of CUDA 12 there."""
    list(feeding(Numbers(4))[1])
    place = CARD.place
    assert card.contexts == [place, "stream", ("end", "stream"), ("end", place)]


@pytest.mark.parametrize(("text", "kind", "words"), [
    ("CUDA out of memory. Tried to allocate 2.00 GiB", OutOfMemoryError, "a micro-batch of 4"),
    ("CUDA error: an illegal memory access was encountered", IpucnnError, "the GPU failed: CUDA")])
def test_a_copy_that_fails_is_an_error_of_the_device(card, monkeypatch, text, kind, words):
    def fails(_):
        raise RuntimeError(text)

    _, loader = feeding(Numbers(8))
    monkeypatch.setattr(card, "copy", fails)
    with pytest.raises(kind, match=words):
        list(loader)


def test_the_end_of_a_loader_does_not_hide_why_the_device_failed(card, monkeypatch):
    def fails(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    _, loader = feeding(Numbers(24))
    next(iter(loader))
    monkeypatch.setattr(Event, "synchronize", fails)
    loader.close()


def test_batches_are_right_after_a_start_that_was_abandoned(card):
    _, loader = feeding(Numbers(24))
    loader.begin()
    loader.close()
    card.eager = True
    running = []
    for batch in loader:
        after_the_workers(loader)  # so that the next one is copied ahead
        running.append((batch.indices, batch.images[:, 0, 0, 0].tolist()))
    assert [indices for indices, _ in running] == [found for _, found in running]


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("pixels", ["uint8", "normalised"])
def test_batches_are_those_of_the_host(card, workers, pixels):
    dataset = Numbers(23, bad={0, 6, 7, 21})
    how = {"workers": workers, "skip_bad": True, "pixels": pixels}
    _, loader = feeding(dataset, 5, **how)
    assert isinstance(loader, DeviceLoader)
    card.eager = True  # batches are joined from what the device has
    found = list(loader)
    expected = HostLoader(dataset, Preprocessing(4), 5, range(23), **how)
    wanted = list(expected)
    assert [(batch.indices, batch.labels, batch.consumed) for batch in found] \
        == [(batch.indices, batch.labels, batch.consumed) for batch in wanted]
    assert loader.skipped == expected.skipped
    assert all(torch.equal(mine.images, other.images) for mine, other in zip(found, wanted))


def test_without_pinned_memory_images_are_copied_all_the_same(card, monkeypatch, caplog):
    def fails(*_, pin_memory=False, **__):
        raise RuntimeError("CUDA error: out of memory\nmore")

    _, loader = feeding(Numbers(8))
    monkeypatch.setattr(torch, "empty", fails)
    batches = list(loader)
    assert [batch.images[0, 0, 0, 0].item() for batch in batches] == [0, 4]
    assert "not pinned, which takes longer: CUDA error: out of memory" in caplog.text
    assert caplog.text.count("not pinned") == 1


def test_nothing_changes_on_a_cpu_and_with_images_of_the_device(card):
    training = session(network(), micro_batch=4)
    inference = TorchInferenceSession(network(), ExecutionPlan(micro_batch=4, precision="32.32"),
                                      8, CPU, TorchOptions())
    request = FeedRequest(Numbers(8), Preprocessing(4), 4, range(8), {})
    assert training.feed(request) is inference.feed(request) is None
    inference._device = CARD
    assert isinstance(inference.feed(request), DeviceLoader)
    inference._plan = ExecutionPlan(micro_batch=4, precision="32.32", synthetic=True)
    assert inference.feed(request) is None


def inference(**options):
    """An inference session on the card; its model computes on the host."""
    plan = ExecutionPlan(micro_batch=4, precision="32.32", synthetic=False)
    made = TorchInferenceSession(network(), plan, 8, CPU, TorchOptions(**options))
    made._device, made.in_flight = CARD, 2
    return made


def test_answers_are_read_while_the_next_call_is_on_its_way(card, monkeypatch):
    def copied(target, source, non_blocking=False):
        if not non_blocking:
            return copy(target, source)
        kept.append(source.clone())
        target.fill_(-1)
        card.waiting.append((target, kept[-1].data_ptr(), 4 * source.numel()))
        card.begun += 1
        return target

    copy, kept = torch.Tensor.copy_, []
    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    made = inference()
    found = [torch.full((4, 5), value) for value in (1.0, 2.0, 3.0)]
    remaining = iter(found)
    monkeypatch.setattr(made, "_run", lambda _: next(remaining))
    images = torch.zeros((4, 3, 8, 8))
    assert made.in_flight == 2
    begun = [made.start(images), made.start(images)]
    assert card.ran == 0  # nothing has waited for the device
    assert torch.equal(begun[0](), found[0])
    begun.append(made.start(images[:3]))
    assert torch.equal(begun[1](), found[1])
    assert torch.equal(begun[2](), found[2][:3])


def test_a_failure_of_the_first_call_is_an_error_of_the_device(monkeypatch):
    def fails(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    with pytest.raises(IpucnnError, match="the GPU failed: CUDA error: an illegal"):
        inference()._wait()


def compiling(monkeypatch, size=4, device=CARD):
    """Return a session on a device that compiles nothing, the modes, and the sizes of calls."""
    modes, calls = [], []

    def compiled(model, dynamic, mode):
        modes.append(mode)
        return lambda images: calls.append(len(images)) or model(images)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    plan = ExecutionPlan(micro_batch=size, precision="32.32")
    made = TorchInferenceSession(network(), plan, 8, CPU, TorchOptions(compile=True))
    images = made._example()
    made._device = device
    monkeypatch.setattr(made, "_example", lambda: images)
    return made, modes, calls


@pytest.mark.skipif(torch.__version__ < "2.1", reason="torch 2.0 does not compile these models")
@pytest.mark.parametrize(("size", "graphs"), [(4, True), (64, False)])
def test_small_compiled_calls_are_one_graph(monkeypatch, size, graphs):
    for device, expected in ((CARD, graphs), (CPU, False)):
        made, modes, calls = compiling(monkeypatch, size, device)
        made.compile()
        assert made.facts["cuda_graphs"] == expected
        assert modes == ["reduce-overhead" if expected else None]
        assert len(calls) == (2 if expected else 1)  # the second one records


@pytest.mark.skipif(torch.__version__ < "2.1", reason="torch 2.0 does not compile these models")
def test_calls_of_several_threads_are_no_graph(monkeypatch):
    made, modes, _ = compiling(monkeypatch)
    made.any_thread = True
    made.compile()
    other, of_thread, _ = compiling(monkeypatch)
    thread = threading.Thread(target=other.compile)
    thread.start()
    thread.join()
    assert modes == of_thread == [None]
    assert made.facts["cuda_graphs"] is other.facts["cuda_graphs"] is False
