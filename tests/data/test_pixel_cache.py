"""Samples prepared from kept pixels are those prepared from files, to the bit."""

import io
import os
import pickle
import resource

import numpy
import pytest
from PIL import Image

from ipucnn.core.errors import DataError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data.augment import TrainTransform
from ipucnn.data.balanced import BalancedImages
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.image_files import FileImages
from ipucnn.data.pixel_cache import PixelCache, sampled
from ipucnn.data.pixel_store import PixelStore, in_folder, in_memory, remove
from ipucnn.data.prepare import Preparation

KEY = b"0123456789abcdef"
SIZES = [(40, 30), (33, 64), (300, 210), (90, 400), (520, 500), (16, 16)]


def picture(number, size):
    random = numpy.random.default_rng(number)
    small = random.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=numpy.uint8)
    return Image.fromarray(small).resize(size, Image.BICUBIC)


def encoded(number, size, form="JPEG", **how):
    file = io.BytesIO()
    picture(number, size).save(file, form, **how)
    return file.getvalue()


def damaged(number, what=b"\xff\xd0"):
    """Return a file of which libjpeg complains, which training crops above the fault do not see."""
    content = bytearray(encoded(number, (160, 120)))
    place = len(content) * 4 // 5
    content[place:place + len(what)] = what
    return bytes(content)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of files of all kinds; the last two are damaged."""
    folder = tmp_path_factory.mktemp("images")
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = [encoded(n, size) for n, size in enumerate(SIZES)]
    contents += [encoded(10, (300, 220), progressive=True),
                 encoded(11, (300, 220), exif=exif.tobytes()),
                 encoded(12, (220, 300), subsampling=0),
                 encoded(13, (300, 220), "PNG"), encoded(14, (120, 90), "WEBP"),
                 damaged(15), damaged(16, 4 * b"\xff\0")]
    paths = []
    for number, content in enumerate(contents):
        paths.append(str(folder / f"{number:02}.img"))
        with open(paths[-1], "wb") as file:
            file.write(content)
    return paths


def dataset_of(paths):
    return FileImages(paths, [n % 2 for n in range(len(paths))], ("a", "b"))


def batches(dataset, cache, epochs=3, size=32, workers=2, transform=True, **how):
    found = []
    for epoch in range(epochs):
        changes = TrainTransform(size, 1, dataset, **how) if transform else None
        with HostLoader(dataset, Preprocessing(size), 4, dataset.order(0, epoch).tolist(),
                        workers=workers, transform=changes, epoch=epoch, cache=cache) as loader:
            found += [batch.images.clone() for batch in loader]
    return found


def same(one, two):
    return len(one) == len(two) and all((a == b).all() for a, b in zip(one, two))


def opened(place, count, limit=1 << 40, key=KEY):
    return in_memory(count, limit, key) if place is None else in_folder(place, count, limit, key)


@pytest.mark.parametrize("size", [16, 32, 100])
@pytest.mark.parametrize("how", [{}, {"min_area": 0.5, "rand_augment": 2}])
def test_random_changes_start_from_the_same_pixels(files, size, how):
    dataset = dataset_of(files)
    cache = PixelCache(in_memory(len(files), 1 << 40, KEY))
    plain = batches(dataset, None, size=size, **how)
    assert same(batches(dataset, cache, size=size, **how), plain)
    assert same(batches(dataset, cache, size=size, workers=0, **how), plain)
    assert [cache.store.never(n) for n in range(len(files))] == [False] * (len(files) - 2) + [
        True] * 2


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_kept_images_are_not_read_again(files, tmp_path, place):
    whole = files[:-2]  # damaged ones are
    copies = [str(tmp_path / os.path.basename(path)) for path in whole]
    for path, copy in zip(whole, copies):
        os.link(path, copy)
    dataset = dataset_of(copies)
    plain = batches(dataset, None), batches(dataset, None, transform=False)
    stores = [opened(None if place == "memory" else tmp_path / f"store{n}", len(copies))
              for n in range(2)]
    caches = [PixelCache(store) for store in stores]
    assert same(batches(dataset, caches[0]), plain[0])
    assert same(batches(dataset, caches[1], transform=False), plain[1])
    for copy in copies:
        os.unlink(copy)
    assert same(batches(dataset, caches[0]), plain[0])
    assert same(batches(dataset, caches[1], transform=False), plain[1])
    if place == "folder":  # a later process
        later = opened(tmp_path / "store0", len(copies))
        assert same(batches(dataset, PixelCache(later)), plain[0])


def test_a_repeated_image_is_kept_once(files):
    plain = FileImages(files[:6], [0, 0, 0, 0, 0, 1], ("a", "b"))
    dataset = BalancedImages(plain)
    store = in_memory(6, 1 << 40, KEY)
    expected = batches(dataset, None, workers=0)
    assert same(batches(dataset, PixelCache(store), workers=0), expected)
    kept = store.bytes
    assert same(batches(dataset, PixelCache(store), workers=0), expected)
    assert store.bytes == kept == store.stored(range(6))


def test_a_damaged_image_is_reported_each_time(files, tmp_path):
    bad = str(tmp_path / "bad.jpg")
    with open(bad, "wb") as file:
        file.write(encoded(1, (90, 80))[:300])
    dataset = dataset_of([*files[:4], bad])
    cache = PixelCache(in_memory(5, 1 << 40, KEY))
    for _ in range(2):
        with pytest.raises(DataError, match=r"bad\.jpg"):
            batches(dataset, cache)
    with HostLoader(dataset, Preprocessing(32), 5, range(5), skip_bad=True, cache=cache) as loader:
        assert [batch.indices for batch in loader] == [[0, 1, 2, 3]]
        assert loader.skipped[0][0] == bad


def test_what_does_not_fit_is_decoded_each_time(files, caplog):
    dataset = dataset_of(files)
    store = in_memory(len(files), 100_000, KEY)
    for _ in range(2):
        assert same(batches(dataset, PixelCache(store)), batches(dataset, None))
    assert 0 < store.bytes <= 100_000
    assert store.full == "it has reached its limit"
    assert caplog.text.count("is not filled any further") == 1


def test_a_full_disk_ends_the_filling_only(files, tmp_path):
    """The largest size of a file stands for the disk: its system calls fail alike."""
    dataset = dataset_of(files)
    plain = batches(dataset, None)
    store = in_folder(tmp_path / "store", len(files), 1 << 40, KEY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        assert same(batches(dataset, PixelCache(store)), plain)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.full in ("file too large", "no space left on device")
    cache = PixelCache(in_folder(tmp_path / "store", len(files), 1 << 40, KEY))
    assert same(batches(dataset, cache), plain)


@pytest.mark.parametrize("fault", ["pixels", "entries", "truncated", "torn"])
def test_damaged_files_of_a_cache_are_not_used(files, tmp_path, fault):
    dataset = dataset_of(files)
    plain = batches(dataset, None)
    store = in_folder(tmp_path / "store", len(files), 1 << 40, KEY)
    assert same(batches(dataset, PixelCache(store)), plain)
    store.close()
    name = "pixels" if fault in ("pixels", "truncated") else "entries"
    with open(tmp_path / "store" / name, "r+b") as file:
        if fault in ("truncated", "torn"):
            file.truncate(os.path.getsize(file.name) // 2 + 3)
        else:
            content = bytearray(file.read())
            for place in range(50, len(content), 97):
                content[place] ^= 0xFF
            file.seek(0)
            file.write(content)
    cache = PixelCache(in_folder(tmp_path / "store", len(files), 1 << 40, KEY))
    for _ in range(2):
        assert same(batches(dataset, cache), plain)


def test_processes_share_a_store(files):
    dataset = dataset_of(files)
    store = in_memory(len(files), 1 << 40, KEY)
    cache = PixelCache(store)
    preparation = Preparation(dataset, Preprocessing(32), TrainTransform(32, 1, dataset))
    mean = sampled(preparation, cache, range(len(files)))
    assert mean > 0
    other = pickle.loads(pickle.dumps(store))  # what a worker process gets
    assert other.stored(range(len(files))) == store.stored(range(len(files)))
    child = os.fork()
    if not child:
        number = numpy.full((2, 3, 3), 7, numpy.uint8)
        store.add(len(files) - 1, 4, number, (2, 3))
        os._exit(0)
    os.waitpid(child, 0)
    assert (store.read(len(files) - 1, 4) == 7).all()
    with pytest.raises(ValueError, match="other images"):
        PixelStore(*store.places, len(files), 1, b"another key 0000")


def test_a_store_in_use_is_not_removed(tmp_path):
    store = in_folder(tmp_path / "store", 3, 1 << 20, KEY)
    assert not remove(tmp_path / "store")
    store.close()
    assert remove(tmp_path / "store")
    assert not (tmp_path / "store").exists()
