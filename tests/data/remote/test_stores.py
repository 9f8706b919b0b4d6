"""Files on stores: what is read and written, and what happens when a store fails."""

from __future__ import annotations

import io
import os
import pickle
import sys

import pytest

pytest.importorskip("fsspec")
from faulty_store import FaultyStore

from ipucnn.core.errors import DataError, UnavailableError, UsageError
from ipucnn.data.remote import store_images, stored_files, stores
from ipucnn.data.remote.store_images import StoreImages
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.data.remote.transfer import Expected, Patience

URL = "faulty://bucket/folder"
QUICK = Patience(timeout=0.3, attempts=3, pause=0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(stores, "PATIENCE", QUICK)
    monkeypatch.setattr(store_images, "_listings", {})
    FaultyStore.reset()
    yield
    FaultyStore.reset()


@pytest.fixture
def store():
    return Store(URL)


def stored(content, name="a"):
    FaultyStore().pipe_file(f"/bucket/folder/{name}", content)


@pytest.mark.parametrize(("text", "right"), [
    ("s3://b/x", True), ("memory://x", True), ("http://b/x", False), ("https://b/x", False),
    ("file:///b/x", False), ("b/x", False), ("C:/x", False), (None, False)])
def test_stores_are_known_by_their_scheme(text, right):
    assert is_store(text) is right


def test_what_was_written_is_read(store):
    store.write("a", b"content")
    assert store.read("a", 100) == b"content"
    assert [(entry.name, entry.size) for entry in store.listing()] == [("a", 7)]
    store.remove("a")
    assert store.stat("a") is None
    assert store.listing() == []
    store.remove("a")


def test_a_store_is_pickled(store):
    store.write("a", b"content")
    assert pickle.loads(pickle.dumps(store)).read("a", 100) == b"content"


def test_errors_that_pass_are_tried_again(store):
    stored(b"content")
    FaultyStore.fail("cat_file", OSError("SlowDown"), ConnectionError("reset"))
    assert store.read("a", 100) == b"content"


def test_errors_that_stay_end_it(store):
    stored(b"content")
    FaultyStore.fail("cat_file", *[OSError("SlowDown")] * 5)
    with pytest.raises(DataError, match=r"cannot fetch 'faulty://bucket/folder/a': SlowDown "
                                        r"\(attempt 3 of 3\)"):
        store.read("a", 100)


@pytest.mark.parametrize("error", [PermissionError("Access Denied"), ValueError("no such thing")])
def test_what_another_attempt_does_not_help_is_not_tried_again(store, error):
    stored(b"content")
    FaultyStore.fail("cat_file", error)
    with pytest.raises(DataError, match=str(error)):
        store.read("a", 100)
    assert len([name for name, _ in FaultyStore.calls if name == "cat_file"]) == 1


def test_a_request_to_a_silent_store_is_repeated(store):
    stored(b"content")
    FaultyStore.fail("cat_file", "stall")
    assert store.read("a", 100) == b"content"
    FaultyStore.fail("info", "stall", "stall", "stall")
    with pytest.raises(DataError, match="the store did not respond in time"):
        store.read("a", 100)


def test_an_attempt_continues_where_the_last_one_ended(store, monkeypatch):
    monkeypatch.setattr(stored_files, "BLOCK", 4)
    stored(b"0123456789")
    FaultyStore.fail("cat_file", "well", OSError("reset"))
    assert store.read("a", 100) == b"0123456789"
    assert len([name for name, _ in FaultyStore.calls if name == "cat_file"]) == 4


def test_truncated_downloads_are_completed(store, monkeypatch):
    monkeypatch.setattr(stored_files, "BLOCK", 8)
    stored(b"0123456789")
    FaultyStore.fail("cat_file", 3)
    assert store.read("a", 100) == b"0123456789"


def test_a_file_that_is_replaced_meanwhile_is_fetched_again(store, monkeypatch):
    monkeypatch.setattr(stored_files, "BLOCK", 4)
    stored(b"0123456789")

    class Replaced(OSError):
        def __str__(self):
            stored(b"abcdefghij")
            return "reset"

    FaultyStore.fail("cat_file", "well", Replaced())
    assert store.read("a", 100) == b"abcdefghij"


def test_another_size_or_sum_is_refused(store):
    stored(b"content")
    for expected, reason in ((Expected(size=8), "it has 7 bytes, expected 8"),
                             (Expected(md5="0" * 32), "its MD5 is .*, expected 0000")):
        with pytest.raises(DataError, match=reason):
            store.download("a", io.BytesIO(), expected)
    with pytest.raises(DataError, match="more than 3 bytes"):
        store.read("a", 3)


def test_an_upload_that_arrives_in_part_is_repeated(store):
    FaultyStore.fail("put_file", 3, OSError("reset"))
    store.write("a", b"content")
    assert store.read("a", 100) == b"content"


def test_a_file_with_its_final_name_is_whole(store):
    FaultyStore.fail("put_file", 3, 3, 3)
    with pytest.raises(DataError, match="3 of 7 bytes arrived"):
        store.write("a", b"content")
    assert store.stat("a") is None


def test_what_comes_back_otherwise_is_not_taken_for_written(store):
    FaultyStore.fail("cat_file", 0, 0, 0)
    with pytest.raises(DataError, match="the stored file differs from what was written"):
        store.write("a", b"content")
    assert store.stat("a") is None


def test_wrong_addresses_are_one_line():
    with pytest.raises(UsageError, match="scheme 'nonsense' of 'nonsense://b/x' is unknown"):
        Store("nonsense://b/x")
    with pytest.raises(UsageError, match="names no bucket"):
        Store("s3://")


@pytest.mark.parametrize(("url", "extra"), [
    ("gs://b/x", "gs"), ("hf://datasets/a/b", "hf"), ("ssh://host/x", "ssh")])
def test_a_missing_package_is_one_command(url, extra, monkeypatch):
    import fsspec

    def missing(*_, **__):
        raise ImportError("no such package")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UnavailableError, match=f"{url!r} needs a package") as caught:
        Store(url)
    assert caught.value.hint == f"pip install 'ipucnn[{extra}]'"


@pytest.mark.skipif(sys.version_info < (3, 9), reason="the last fsspec for Python 3.8 fails in the "
                    "destructor of a connection that was never made")
def test_a_store_that_cannot_be_connected_is_one_line():
    with pytest.raises(DataError, match=r"cannot look up 'ftp://127.0.0.1:1/x/a': .*attempt 3"):
        Store("ftp://127.0.0.1:1/x").stat("a")


def test_credentials_are_in_no_message():
    store = Store("faulty://user:secret@bucket/folder?token=secret")
    FaultyStore.fail("info", PermissionError("denied at https://me:secret@host/x?sig=secret"))
    with pytest.raises(DataError) as caught:
        store.read("a", 100)
    assert "secret" not in f"{store.shown()} {caught.value} {caught.value.hint}"


# -- folders of images -------------------------------------------------------------------------


def photos(count=4):
    for number in range(count):
        stored(bytes([number]) * 1000, f"photos/class{number % 2}/{number}.jpg")


def test_a_folder_is_listed_once_and_files_are_fetched_once(tmp_path):
    photos()
    images = StoreImages(f"{URL}/photos", str(tmp_path))
    path = f"{URL}/photos/class1/3.jpg"
    assert images.read(path) == images.read(path) == bytes([3]) * 1000
    assert pickle.loads(pickle.dumps(images)).read(path) == bytes([3]) * 1000
    assert len([name for name, _ in FaultyStore.calls if name == "cat_file"]) == 1
    assert len([name for name, _ in FaultyStore.calls if name == "ls"]) == 3


def test_copies_are_bounded_and_the_least_used_leave_first(tmp_path):
    photos(20)
    images = StoreImages(f"{URL}/photos", str(tmp_path), cache_bytes=5000)
    for number in range(20):
        assert images.read(f"{URL}/photos/class{number % 2}/{number}.jpg") == bytes([number]) * 1000
        copies = [path for path in (tmp_path / "files").rglob("*")
                  if path.is_file() and len(path.name) == 64]
        assert 0 < sum(path.stat().st_size for path in copies) <= 5000


def test_a_changed_copy_is_fetched_again(tmp_path):
    photos()
    images = StoreImages(f"{URL}/photos", str(tmp_path))
    path = f"{URL}/photos/class0/0.jpg"
    images.read(path)
    copy, = (found for found in (tmp_path / "files").rglob("*") if len(found.name) == 64)
    copy.write_bytes(b"x" * copy.stat().st_size)
    assert images.read(path) == bytes(1000)


def test_a_truncated_image_is_fetched_again_and_never_kept(tmp_path):
    photos()
    images = StoreImages(f"{URL}/photos", str(tmp_path))
    path = f"{URL}/photos/class0/2.jpg"
    FaultyStore.fail("cat_file", 10, 10, 10)
    with pytest.raises(DataError, match="10 of 1000 bytes arrived"):
        images.read(path)
    assert images.read(path) == bytes([2]) * 1000


def test_a_full_disk_does_not_keep_images_away(tmp_path, caplog):
    photos()
    (tmp_path / "files").write_text("in the way")
    images = StoreImages(f"{URL}/photos", str(tmp_path))
    assert images.read(f"{URL}/photos/class0/2.jpg") == bytes([2]) * 1000
    assert "images are not kept" in caplog.text


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there is nothing in folder 'faulty://bucket/folder/none'"):
        StoreImages(f"{URL}/none", str(tmp_path))


def test_a_store_can_be_used_after_a_fork(store):
    stored(b"content")
    child = os.fork()
    if not child:  # pragma: no cover - another process
        os._exit(0 if store.read("a", 100) == b"content" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_larger_than_the_folder_of_copies_removes_no_other(tmp_path):
    copies = store_images._Copies(tmp_path / "files", 100_000)
    for number in range(10):
        copies.read(f"{number:02d}" * 32, lambda: bytes(5000))
    before = sorted(tmp_path.rglob("*"))
    assert copies.read("ff" * 32, lambda: bytes(200_000)) == bytes(200_000)
    assert set(before) <= set(tmp_path.rglob("*"))
