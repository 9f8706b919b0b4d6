"""Partitions: every image once, whole or not at all, and the images as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from ipucnn.core.errors import DataError, UsageError
from ipucnn.data.formats.partition import partition
from ipucnn.data.image_files import list_images


def fill(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (number, 0, 0)).save(str(path), "JPEG")
    return folder


def tree(folder: Path):
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path) -> Path:
    return fill(tmp_path / "source", *(f"{number:02d}.jpg" for number in range(11)))


@pytest.mark.parametrize("partitions", [1, 3, 8, 11])
def test_contiguous_slices_whose_sizes_differ_by_one_at_most(source, tmp_path, partitions):
    (source / "notes.txt").write_text("no image")
    (source / ".hidden.jpg").write_bytes(b"")
    out = tmp_path / "deep" / "out"
    made = partition(str(source), partitions, str(out))
    found = [sorted(os.listdir(out / str(number))) for number in range(partitions)]
    assert sorted(os.listdir(out)) == sorted(map(str, range(partitions)))
    assert [name for names in found for name in names] == [
        f"{number:02d}.jpg" for number in range(11)]
    assert [len(names) for names in found] == made.sizes
    assert max(made.sizes) - min(made.sizes) <= 1
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_images_become_hard_links(source, tmp_path):
    made = partition(str(source), 2, str(tmp_path / "out"))
    assert made.made_as == {"hard links": 11}
    assert os.path.samefile(source / "00.jpg", tmp_path / "out/0/00.jpg")


def test_copies_are_files_of_their_own(source, tmp_path):
    before = tree(source)
    assert partition(str(source), 2, str(tmp_path / "out"), copy=True).made_as == {"copies": 11}
    assert not os.path.samefile(source / "00.jpg", tmp_path / "out/0/00.jpg")
    (tmp_path / "out/0/00.jpg").write_bytes(b"changed")
    assert tree(source) == before


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_file_systems_without_links(source, tmp_path, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.chdir(tmp_path)
    before = tree(source)
    with monkeypatch.context() as without:
        without.setattr(os, "link", refuse)
        assert partition("source", 2, "linked").made_as == {"symbolic links": 11}
        without.setattr(os, "symlink", refuse)
        assert partition("source", 2, "copied").made_as == {"copies": 11}
    assert (tmp_path / "linked/1/10.jpg").is_symlink()
    for name in ("linked", "copied"):
        images = list_images(name)
        assert [os.path.basename(path) for path in images] == sorted(before)
        assert [Path(path).read_bytes() for path in images] == [before[k] for k in sorted(before)]


def test_equal_names_in_nested_folders_are_all_kept(tmp_path):
    source = fill(tmp_path / "source", "a/x.jpg", "b/x.jpg", "x.jpg")
    partition(str(source), 2, str(tmp_path / "out"))
    assert tree(tmp_path / "out") == {"0/a/x.jpg": (source / "a/x.jpg").read_bytes(),
                                      "1/b/x.jpg": (source / "b/x.jpg").read_bytes(),
                                      "1/x.jpg": (source / "x.jpg").read_bytes()}


def test_links_are_followed_to_the_image(tmp_path):
    source = fill(tmp_path / "source", "real/a.jpg")
    (source / "b.jpg").symlink_to("real/a.jpg")
    made = partition(str(source), 2, str(tmp_path / "far" / "away"))
    assert made.sizes == [1, 1]
    assert os.path.samefile(tmp_path / "far/away/0/b.jpg", source / "real/a.jpg")


def test_odd_names(tmp_path):
    source = fill(tmp_path / "source", "été 🦓.jpg", "a'b\n.jpg")
    os.rename(os.fsencode(str(source / "été 🦓.jpg")), os.fsencode(str(source)) + b"/\xff.jpg")
    partition(str(source), 1, str(tmp_path / "out"))
    assert len(list_images(str(tmp_path / "out"))) == 2


def test_an_empty_folder_is_taken(source, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    partition(str(source), 2, str(tmp_path / "out"))
    assert len(list_images(str(tmp_path / "real"))) == 11


def refused(kind, tmp_path, source, partitions, output):
    before = tree(tmp_path)
    with pytest.raises(kind) as caught:
        partition(str(source), partitions, str(output))
    assert tree(tmp_path) == before
    assert not list(tmp_path.glob(".*"))
    assert caught.value.hint
    return caught.value.message


def test_what_is_there_is_never_touched(source, tmp_path):
    out = tmp_path / "out"
    partition(str(source), 2, str(out))
    assert f"{str(out)!r} is not empty" in refused(UsageError, tmp_path, source, 3, out)
    assert "not empty" in refused(UsageError, tmp_path, source, 3, tmp_path)
    (tmp_path / "file").write_text("x")
    assert "not a directory" in refused(UsageError, tmp_path, source, 2, tmp_path / "file")


@pytest.mark.parametrize("place", ["", "out", "../link/out"])
def test_output_among_the_images(source, tmp_path, place):
    (tmp_path / "link").symlink_to("source")
    assert "in the folder of the images" in refused(UsageError, tmp_path, source, 2, source / place)


def test_too_many_partitions(source, tmp_path):
    for wanted in (12, 0, -1):
        message = refused(UsageError, tmp_path, source, wanted, tmp_path / "out")
        assert message == f"{wanted} partitions cannot be made of 11 images"
    assert not (tmp_path / "out").exists()


def test_no_images(source, tmp_path):
    (tmp_path / "none").mkdir()
    assert "no images in" in refused(DataError, tmp_path, tmp_path / "none", 1, tmp_path / "out")
    for path, why in (("nowhere", "does not exist"), ("source/00.jpg", "is no folder")):
        assert why in refused(DataError, tmp_path, tmp_path / path, 1, tmp_path / "out")


def test_broken_links_are_counted_and_other_files_are_read(source, tmp_path):
    (source / "05b.jpg").symlink_to("gone")
    (source / "self").symlink_to("self")
    (source / "up").symlink_to("..")
    (tmp_path / "out").mkdir()
    made = partition(str(source), 3, str(tmp_path / "out"))
    assert sum(made.sizes) == 11
    assert made.notes == (
        f"left out of {str(source)!r}: 2 broken links: 05b.jpg, self",
        f"left out of {str(source)!r}: 1 link to a folder that it is in: up")
    assert made.as_dict()["notes"] == list(made.notes)


def test_files_that_cannot_be_images_are_left_out(source, tmp_path):
    os.mkfifo(str(source / "pipe.jpg"))
    (source / "null.jpg").symlink_to("/dev/null")
    made = partition(str(source), 2, str(tmp_path / "out"))
    assert sum(made.sizes) == 11
    assert made.notes == (
        f"left out of {str(source)!r}: 2 FIFOs, sockets or devices: null.jpg, pipe.jpg",)


def test_the_error_for_a_folder_without_images_names_its_files(tmp_path):
    fill(tmp_path / "source", "a.cr2", "notes.txt")
    message = refused(DataError, tmp_path, tmp_path / "source", 1, tmp_path / "out")
    assert message.endswith("but 1 image of a format that no installed decoder reads, 1 file that "
                            "is no image")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"),
                                   KeyboardInterrupt("SIGINT")])
def test_what_stops_half_way_leaves_nothing_and_can_be_repeated(source, tmp_path, monkeypatch,
                                                                 error):
    link, done = os.link, []

    def stop(path, target):
        if len(done) == 6:
            raise error
        done.append(link(path, target))

    before = tree(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "link", stop)
        with pytest.raises((DataError, KeyboardInterrupt)) as caught:
            partition(str(source), 3, str(tmp_path / "out"))
    if isinstance(caught.value, DataError):
        assert "06.jpg': no space left on device" in caught.value.message
        assert "nothing was made" in caught.value.hint
    assert os.listdir(tmp_path) == ["source"]
    assert tree(tmp_path) == before
    assert partition(str(source), 3, str(tmp_path / "out")).sizes == [3, 4, 4]
