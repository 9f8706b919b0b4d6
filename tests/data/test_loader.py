import itertools
import os
import threading
import time

import numpy
import pytest
import torch

from ipucnn.core.errors import DataError, PluginError, UsageError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset
from ipucnn.data import workers as workers_module
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.loader import MAX_REPORTED, order
from ipucnn.data.normalisation import normalise


class Numbers(ImageDataset):
    """Image i is filled with i; some are bad, and some take longer than the ones after them."""

    ready = True

    def __init__(self, length, size=4, bad=(), seconds=0.0):
        self.length = length
        self.size = size
        self.bad = set(bad)
        self.seconds = seconds
        self.made = 0

    def __len__(self):
        return self.length

    def image(self, index):
        self.made += 1
        if self.seconds:
            time.sleep(self.seconds if index % 3 == 0 else 0)
        if index in self.bad:
            raise DataError(f"image 'n/{index}' is bad")
        return torch.full((3, self.size, self.size), index % 256, dtype=torch.uint8)

    def name(self, index):
        return f"n/{index}"

    def label(self, index):
        return index % 5


def decoding_threads():
    return [t for t in threading.enumerate() if t.name.startswith("ipucnn-decode")]


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
def test_order_and_contents_do_not_depend_on_the_workers(workers):
    wanted = [*range(20, 0, -1), 7, 7]
    with HostLoader(Numbers(30, seconds=0.002), Preprocessing(4), 5, wanted,
                    workers=workers) as loader:
        batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 2]
    assert [i for batch in batches for i in batch.indices] == wanted
    for batch in batches:
        assert batch.images.shape == (len(batch), 3, 4, 4)
        assert batch.images.dtype == torch.uint8
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices
        assert batch.labels == [i % 5 for i in batch.indices]


def test_without_workers_images_are_made_in_the_calling_thread():
    dataset = Numbers(9)
    with HostLoader(dataset, Preprocessing(4), 3, range(9), workers=0) as loader:
        batches = iter(loader)
        next(batches)
        assert dataset.made == 3  # none ahead
        assert decoding_threads() == []
        assert [batch.indices for batch in batches] == [[3, 4, 5], [6, 7, 8]]


def test_batches_are_channels_last_in_memory():
    (batch,) = HostLoader(Numbers(3), Preprocessing(4), 3, range(3), workers=1)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_images_are_brought_to_the_input_size_unless_ready():
    dataset = Numbers(2, size=50)
    dataset.ready = False
    (batch,) = HostLoader(dataset, Preprocessing(16), 2, range(2), workers=2)
    assert batch.images.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(("batch", "ahead"), [(4, 32), (8, 32), (20, 40)])
def test_only_a_few_batches_are_prepared_ahead(batch, ahead):
    dataset = Numbers(10**9)
    with HostLoader(dataset, Preprocessing(4), batch, itertools.count(), workers=2) as loader:
        next(iter(loader))
        until = time.monotonic() + 20
        while dataset.made < batch + ahead and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)
        assert dataset.made == batch + ahead


def test_bad_image_raises_at_its_batch():
    with HostLoader(Numbers(12, bad=[6]), Preprocessing(4), 2, range(12), workers=3) as loader:
        batches = iter(loader)
        assert [next(batches).indices for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
        with pytest.raises(DataError, match="'n/6' is bad"):
            next(batches)
    assert decoding_threads() == []


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize(("bad", "batches"), [
    ([6], [[0, 1, 2, 3], [4, 5]]), ([4, 9], [[0, 1, 2, 3]]), ([0], [])])
def test_the_images_before_a_bad_one_are_kept(workers, bad, batches):
    with HostLoader(Numbers(12, bad=bad), Preprocessing(4), 4, range(12), workers=workers,
                    finish=True) as loader:
        running = iter(loader)
        found = [next(running) for _ in batches]
        with pytest.raises(DataError, match=f"'n/{bad[0]}' is bad"):
            next(running)
    assert [batch.indices for batch in found] == batches
    assert [batch.images[:, 0, 0, 0].tolist() for batch in found] == batches


def test_skipping_refills_and_counts():
    loader = HostLoader(Numbers(10, bad=[0, 3, 4]), Preprocessing(4), 3, range(10), workers=2,
                        skip_bad=True)
    assert [batch.indices for batch in loader] == [[1, 2, 5], [6, 7, 8], [9]]
    assert loader.skipped_count == 3
    assert loader.skipped == [(f"n/{i}", f"image 'n/{i}' is bad") for i in (0, 3, 4)]


def test_a_bad_image_counts_once_however_often_it_comes_round():
    dataset = Numbers(3, bad=[1])
    loader = HostLoader(dataset, Preprocessing(4), 2, order(3, 300), workers=2, skip_bad=True)
    assert sum(len(batch) for batch in loader) == 200
    assert loader.skipped_count == len(loader.skipped) == 1


def test_remembered_names_are_bounded():
    bad = range(1, 300)
    loader = HostLoader(Numbers(300, bad=bad), Preprocessing(4), 2, range(300), workers=2,
                        skip_bad=True)
    assert [batch.indices for batch in loader] == [[0]]
    assert loader.skipped_count == 299
    assert len(loader.skipped) == MAX_REPORTED


@pytest.mark.parametrize("indices", [range(4), itertools.cycle(range(4))])
def test_nothing_but_bad_images_is_an_error(indices):
    loader = HostLoader(Numbers(4, bad=range(4)), Preprocessing(4), 2, indices, workers=2,
                        skip_bad=True)
    with pytest.raises(DataError, match="none of the images can be read; the first is 'n/0'"):
        list(loader)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_leaving_early_ends_the_threads_without_finishing_the_queue(error):
    dataset = Numbers(10_000, seconds=0.02)
    started = time.perf_counter()
    try:
        with HostLoader(dataset, Preprocessing(4), 200, range(10_000), workers=2) as loader:
            batches = iter(loader)
            next(batches)
            assert decoding_threads()
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert decoding_threads() == []
    assert dataset.made < 602  # the queue held that many
    assert time.perf_counter() - started < 20


def test_closing_the_iterator_ends_the_threads():
    batches = iter(HostLoader(Numbers(100), Preprocessing(4), 2, range(100), workers=2))
    next(batches)
    batches.close()
    assert decoding_threads() == []


def test_images_are_prepared_before_an_iteration_that_has_begun():
    dataset = Numbers(9)
    with HostLoader(dataset, Preprocessing(4), 3, range(9), workers=2) as loader:
        loader.begin()
        deadline = time.monotonic() + 20
        while dataset.made < 9 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert dataset.made == 9
        batches = list(loader)
    assert [batch.indices for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert dataset.made == 9
    assert decoding_threads() == []


@pytest.mark.parametrize("iterated", [False, True])
def test_closing_ends_an_iteration_that_has_begun(iterated):
    loader = HostLoader(Numbers(100), Preprocessing(4), 2, range(100), workers=2)
    loader.begin()
    if iterated:
        iter(loader)
    assert decoding_threads()
    loader.close()
    assert decoding_threads() == []
    assert len(list(loader)) == 50


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_iteration_continues_where_a_batch_ended(workers):
    """Resuming after any batch gives the batches that would have followed."""
    bad = [0, 5, 6, 12, 19]
    indices = [*range(3, 20), *range(3)]

    def batches(start, known):
        with HostLoader(Numbers(20, bad=bad), Preprocessing(4), 3, indices[start:], workers=workers,
                        skip_bad=True, bad=known) as loader:
            for batch in loader:
                yield batch.indices, start + batch.consumed, loader.bad

    whole = list(batches(0, ()))
    assert [batch for batch, _, _ in whole] == [[3, 4, 7], [8, 9, 10], [11, 13, 14], [15, 16, 17],
                                                [18, 1, 2]]
    # bad images are used up by the batch that they would have been in
    assert [consumed for _, consumed, _ in whole] == [5, 8, 12, 15, 20]
    for position, (_, consumed, known) in enumerate(whole[:-1]):
        rest = list(batches(consumed, known))
        assert [batch[:2] for batch in rest] == [batch[:2] for batch in whole[position + 1:]]
        assert rest[-1][2] == whole[-1][2] == tuple(bad)


def test_images_known_to_be_bad_are_not_tried_again():
    dataset = Numbers(6)
    loader = HostLoader(dataset, Preprocessing(4), 2, range(6), workers=2, skip_bad=True,
                        bad=[4, 1])
    assert [batch.indices for batch in loader] == [[0, 2], [3, 5]]
    assert dataset.made == 4
    assert loader.bad == (1, 4)
    assert loader.skipped_count == 2


def test_known_bad_images_are_errors_again_without_skipping():
    loader = HostLoader(Numbers(3, bad=[1]), Preprocessing(4), 3, range(3), workers=1, bad=[1])
    with pytest.raises(DataError, match="'n/1' is bad"):
        list(loader)


def test_a_transform_gets_every_image_its_index_and_the_epoch():
    class Tens:
        def draw(self, index, epoch):
            assert epoch == 6
            return lambda image, size: self.changed(image, index)

        def changed(self, image, index):
            assert image.shape == (7, 7, 3)
            return numpy.full((4, 4, 3), 10 * index + int(image[0, 0, 0]), dtype=numpy.uint8)

    for ready in (False, True):
        dataset = Numbers(9, size=7)
        dataset.ready = ready
        loader = HostLoader(dataset, Preprocessing(4), 5, range(9), workers=3, transform=Tens(),
                            epoch=6)
        values = torch.cat([batch.images[:, 0, 0, 0] for batch in loader])
        assert values.tolist() == [11 * i for i in range(9)]


def test_nothing_to_do():
    assert list(HostLoader(Numbers(3), Preprocessing(4), 2, [], workers=2)) == []


@pytest.mark.parametrize("image", [
    torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8),
    torch.zeros(3, 5, 4, dtype=torch.uint8)])
def test_a_dataset_that_breaks_the_contract_is_named(image):
    dataset = Numbers(2)
    dataset.image = lambda index: image
    with pytest.raises(PluginError, match=r"returned .*'n/0'"):
        list(HostLoader(dataset, Preprocessing(4), 2, range(2), workers=1))


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 1), (1, -1)])
def test_impossible_sizes(batch_size, workers):
    with pytest.raises(UsageError, match="smallest value"):
        HostLoader(Numbers(2), Preprocessing(4), batch_size, range(2), workers=workers)


def test_order():
    assert list(order(3, 3)) == [0, 1, 2]
    assert list(order(3, 7)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(order(3, 2)) == [0, 1]
    assert next(order(5, 10**12)) == 0  # lazy


def test_memory_is_used_again_once_the_batch_is_released():
    places = [batch.images.data_ptr() for batch in HostLoader(
        Numbers(240), Preprocessing(4), 8, range(240), workers=2)]
    assert len(places) == 30
    assert len(set(places)) < 10


def test_a_batch_that_is_kept_stays_as_it_is():
    dataset = Numbers(60)
    kept = [batch.images[1:] for batch in HostLoader(dataset, Preprocessing(4), 3, range(60),
                                                     workers=2)]
    for number, images in enumerate(kept):
        for row, image in enumerate(images):
            assert torch.equal(image, dataset.image(3 * number + 1 + row))


@pytest.mark.parametrize("pixels", ["uint8", "float", "normalised"])
def test_pixels_come_in_the_given_format(pixels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=generator)
    dataset = Numbers(6, size=12)
    dataset.image = lambda index: images[index]
    dataset.ready = True
    (batch,) = HostLoader(dataset, Preprocessing(12), 6, range(6), workers=2, pixels=pixels)
    expected = {"uint8": images, "float": images.float(), "normalised": normalise(images)}[pixels]
    assert batch.images.dtype == expected.dtype
    assert torch.equal(batch.images, expected)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_what_is_stuck_does_not_keep_a_loader_from_ending(monkeypatch):
    """As where a disk or server does not answer."""
    monkeypatch.setattr(workers_module, "PATIENCE", 0.2)
    answer = threading.Event()
    dataset = Numbers(20)
    image = dataset.image
    dataset.image = lambda index: image(index) if index < 8 or answer.wait(60) else None
    batches = iter(HostLoader(dataset, Preprocessing(4), 4, range(20), workers=2))
    assert next(batches).indices == [0, 1, 2, 3]
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 20
    answer.set()
    for thread in decoding_threads():
        thread.join(20)
    assert not decoding_threads()


def test_workers_compute_alone_and_the_host_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = set()
    dataset = Numbers(12)
    image = dataset.image
    dataset.image = lambda index: seen.add(torch.get_num_threads()) or image(index)
    try:
        assert len(list(HostLoader(dataset, Preprocessing(4), 4, range(12), workers=2))) == 3
        assert seen == {1}
        assert torch.get_num_threads() == 3
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="a policy of Linux")
def test_workers_do_not_interrupt_the_thread_that_computes():
    seen = set()
    dataset = Numbers(8)
    image = dataset.image
    dataset.image = lambda index: seen.add(os.sched_getscheduler(0)) or image(index)
    before = os.sched_getscheduler(0)
    assert len(list(HostLoader(dataset, Preprocessing(4), 4, range(8), workers=2))) == 2
    assert seen == {os.SCHED_BATCH if before == os.SCHED_OTHER else before}
    assert os.sched_getscheduler(0) == before
