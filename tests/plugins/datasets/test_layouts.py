"""The folders that `image_folder` accepts, and its notes on them."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from ipucnn import load_dataset
from ipucnn.core.errors import DataError, NoSplitError, UsageError
from ipucnn.data.formats.partition import partition
from ipucnn.data.formats.recognition import recognised
from ipucnn.data.formats.verify import left_out, verification, verify
from ipucnn.data.images import MAX_BYTES


def fill(root, *names):
    """Write JPEG files; a name that ends in a slash is an empty folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            Image.new("RGB", (9, 7), "red").save(str(path), "JPEG")
    return str(root)


def opened(root, split=None, **options):
    dataset = load_dataset("image_folder", root, split=split, **options)
    return ([dataset.name(i)[len(root) + 1:] for i in range(len(dataset))], dataset.class_names,
            list(dataset.notes))


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("validation", ["val", "valid", "Validation", "TEST", "testing"])
def test_splits_in_any_spelling(tmp_path, train, validation):
    root = fill(tmp_path, f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{validation}/b/2.jpg")
    assert opened(root, "train") == ([f"{train}/a/1.jpg", f"{train}/b/1.jpg"], ("a", "b"), [])
    assert opened(root, "validation") == ([f"{validation}/b/2.jpg"], ("a", "b"), [])
    names, _, (note,) = opened(root)
    assert names == [f"{validation}/b/2.jpg"]
    assert note.endswith(f"those in {root + '/' + validation!r}")
    assert verify(root) == []
    assert left_out(root) == []


@pytest.mark.parametrize(("train", "validation"), [
    ("training_set", "test_set"), ("seg_train", "seg_test"), ("train2017", "val2017"),
    ("Train Images", "dev-data"), ("trainset", "testset"), ("train", "eval")])
def test_splits_with_longer_names(tmp_path, train, validation):
    root = fill(tmp_path, f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{validation}/b/2.jpg")
    assert opened(root, "train") == ([f"{train}/a/1.jpg", f"{train}/b/1.jpg"], ("a", "b"), [])
    assert opened(root, "validation")[0] == [f"{validation}/b/2.jpg"]


def test_classes_that_mention_splits_are_classes(tmp_path):
    root = fill(tmp_path, "train_freight/red/1.jpg", "bus/red/1.jpg", "test_tube/blue/1.jpg")
    assert opened(root, "train")[1:] == (("bus", "test_tube", "train_freight"), [])


def test_classes_that_hold_the_same_folders_are_questioned(tmp_path):
    root = fill(tmp_path, *(f"fold{fold}/{name}/1.jpg" for fold in "12" for name in "ab"))
    _, classes, (note,) = opened(root, "train")
    assert classes == ("fold1", "fold2")
    assert note.startswith("'fold1', 'fold2' are taken for classes, though each holds the folders "
                           "'a', 'b'")


def test_a_third_split_is_named(tmp_path):
    root = fill(tmp_path, "train/a/1.jpg", "val/a/2.jpg", "test/3.jpg", "notes/4.jpg", "5.jpg")
    names, _, notes = opened(root, "validation")
    assert names == ["val/a/2.jpg"]
    assert notes == [
        f"the splits 'train', 'val' of {root!r} are used, not 'notes', 'test'",
        f"left out of {root!r}: 1 image outside of the class folders: 5.jpg"]


def test_an_empty_split_is_none(tmp_path):
    root = fill(tmp_path, "train/a/1.jpg", "train/a/2.jpg", "val/")
    assert opened(root, "train")[0] == ["train/a/1.jpg", "train/a/2.jpg"]
    with pytest.raises(NoSplitError, match="no validation images"):
        opened(root, "validation")


def test_validation_images_alone(tmp_path):
    root = fill(tmp_path, "val/a/1.jpg", "val/b/1.jpg")
    assert opened(root)[:2] == (["val/a/1.jpg", "val/b/1.jpg"], ("a", "b"))
    with pytest.raises(NoSplitError, match=r"no training images.*only validation.*val"):
        opened(root, "train")
    assert verify(root) == []


@pytest.mark.parametrize("wrappers", ["flowers", "archive/flowers"])
@pytest.mark.parametrize("files", [
    ["rose/1.jpg", "tulip/1.jpg"], ["train/rose/1.jpg", "val/rose/2.jpg"]])
def test_a_wrapper_is_entered_and_named(tmp_path, wrappers, files):
    root = fill(tmp_path, *(f"{wrappers}/{file}" for file in files))
    names, _, notes = opened(root, "train")
    assert names == [f"{wrappers}/{file}" for file in files if not file.startswith("val")]
    assert notes[0] == (f"the images are read from {root + '/' + wrappers!r}, the only folder in "
                        f"{root!r}")
    assert left_out(root) == notes
    assert verify(root) == []


def test_a_wrapper_in_a_split_is_entered(tmp_path):
    root = fill(tmp_path, "train/all/a/1.jpg", "train/all/b/1.jpg", "test/all/a/2.jpg",
                "test/all/b/2.jpg")
    assert opened(root, "train")[:2] == (["train/all/a/1.jpg", "train/all/b/1.jpg"], ("a", "b"))
    assert opened(root, "validation")[0] == ["test/all/a/2.jpg", "test/all/b/2.jpg"]


def test_classes_of_both_splits_are_compared_like_those_of_a_model(tmp_path):
    root = fill(tmp_path, "train/Polar_bear/1.jpg", "train/Cat/1.jpg", "train/cat/1.jpg",
                "val/polar bear/2.jpg", "val/cat/2.jpg")
    images = load_dataset("image_folder", root, split="validation")
    assert images.class_names == ("Cat", "Polar_bear", "cat")
    assert [images.label(index) for index in range(2)] == [2, 1]
    fill(tmp_path, "val/CAT/2.jpg")
    with pytest.raises(DataError, match=r"'.*val/CAT' is none of the 3 classes"):
        load_dataset("image_folder", root, split="validation")


def test_a_class_of_the_training_is_no_wrapper(tmp_path):
    root = fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/day/2.jpg", "val/a/night/3.jpg")
    assert opened(root, "validation")[:2] == (["val/a/day/2.jpg", "val/a/night/3.jpg"], ("a", "b"))


def test_one_class_is_no_wrapper(tmp_path):
    root = fill(tmp_path, "only/1.jpg", "only/deep/2.jpg")
    assert opened(root) == (["only/1.jpg", "only/deep/2.jpg"], ("only",), [])


def test_classes_called_like_splits(tmp_path):
    root = fill(tmp_path, "train/1.jpg", "bus/1.jpg", "test/1.jpg")
    assert opened(root, "train")[1] == ("bus", "test", "train")


def test_folders_of_systems_and_hidden_folders_are_no_classes(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/1.jpg", "__MACOSX/a/._1.jpg", ".thumbnails/x.jpg")
    _, classes, notes = opened(root, "train")
    assert classes == ("a", "b")
    thumbnail = "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"
    disk = fill(tmp_path / "disk", "a/1.jpg", "b/1.jpg", "lost+found/x", f"a/{thumbnail}")
    assert opened(disk, "train") == (["a/1.jpg", "b/1.jpg"], ("a", "b"), [
        f"left out of {disk!r}: 2 folders of the operating system: a/@eaDir, lost+found"])
    assert notes == [f"left out of {root!r}: 1 folder of the operating system: __MACOSX",
                     f"left out of {root!r}: 1 hidden image or folder: .thumbnails"]


@pytest.mark.parametrize(("files", "message", "hint"), [
    (["train/1.jpg", "val/1.jpg"], "looks like splits without classes: 'train', 'val' hold",
     "--labels"),
    (["test/1.jpg"], "looks like splits without classes: 'test' holds", "--data real"),
    (["train/a/1.jpg", "cat/1.jpg", "dog/1.jpg"],
     "'train' holds folders as a split does, and beside it are 'cat', 'dog'", "rename a class"),
    (["train/a/1.jpg", "training/a/1.jpg"], "'train' and 'training' both look like", "keep one"),
    (["train/a/1.jpg", "val/a/1.jpg", "VAL/a/1.jpg"], "'VAL' and 'val' both look like", "keep"),
    (["1.jpg", "2.jpg"], "no class folders in .* but 2 images", "<class>"),
    ([f"{name}/{split}/1.jpg" for name in "ab" for split in ("train", "val")],
     "splits within its classes, such as 'a/train' and 'a/val'", "train/<class>"),
    (["a/1.jpg", "b/"], "class folder '.*b' has no images", "remove the folder")])
def test_what_is_not_understood_is_described(tmp_path, files, message, hint):
    with pytest.raises(DataError, match=message) as caught:
        opened(fill(tmp_path, *files), "train")
    assert hint in caught.value.hint
    assert any(caught.value.message == problem for problem in verify(str(tmp_path), "image_folder"))


@pytest.mark.parametrize("data", ["image_folder", "imagenet", "cifar10", "coco", "real"])
def test_an_archive_in_the_place_of_a_folder_is_to_be_unpacked(tmp_path, data):
    archive = tmp_path / "photos.tar.GZ"
    archive.write_bytes(b"\x1f\x8b\x08")
    for use in (lambda: load_dataset(data, str(archive)), lambda: verify(str(archive), data),
                lambda: recognised(str(archive)),
                lambda: partition(str(archive), 2, str(tmp_path / "parts"))):
        with pytest.raises(DataError) as caught:
            use()
        assert caught.value.hint == "unpack it, and name the folder of its content"


def test_archives_in_a_folder_are_named(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/")
    (tmp_path / "b" / "b.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"'.*b' has no images, but 1 archive \(") as caught:
        opened(root)
    assert caught.value.hint.startswith("unpack the archive; ")
    fill(tmp_path, "b/1.jpg")
    assert opened(root)[2] == [
        f"left out of {root!r}: 1 archive: b/b.zip; unpack archives to read images in them"]
    (tmp_path / "b" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"no class folders in '.*b', but 1 archive \("):
        opened(root + "/b")


@pytest.mark.parametrize("name", ["__macosx", "$Recycle.Bin", "@Recycle", "#recycle"])
def test_folders_of_systems_in_any_case_are_no_classes(tmp_path, name):
    root = fill(tmp_path, "a/1.jpg", "b/1.jpg", f"{name}/1.jpg")
    assert opened(root)[1:] == (("a", "b"), [
        f"left out of {root!r}: 1 folder of the operating system: {name}"])


def test_a_class_of_unread_formats_is_an_error(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/")
    (tmp_path / "b" / "1.cr2").write_bytes(b"raw")
    with pytest.raises(DataError, match="no images, but 1 image of a format that no installed "
                                        "decoder reads") as caught:
        opened(root)
    assert "ipucnn[formats]" in caught.value.hint


def test_verify_reports_broken_links(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("2.jpg")
    (problem,) = verify(root)
    assert problem == f"{root + '/a/2.jpg'!r} is a broken link"
    assert opened(root)[2] == [f"left out of {root!r}: 1 broken link: a/2.jpg"]


def test_verify_notes_images_with_the_same_content(tmp_path):
    for name, colour in {"train/a/1": "red", "train/b/1": "red", "train/a/2": "green",
                         "val/a/2": "green", "train/b/3": "blue", "train/b/4": "blue",
                         "val/b/1": "white"}.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), colour).save(str(path))
    found = verification(str(tmp_path))
    assert found.ok
    assert found.notes == [
        "images for training and for validation: 1, for example 'train/a/2.png' and "
        "'val/a/2.png'; the accuracy is too high",
        "images in several classes: 1, for example 'train/a/1.png' and 'train/b/1.png'",
        "images that are there several times: 1, for example 'train/b/3.png' and 'train/b/4.png'"]
    _, note = verification(str(tmp_path / "train")).notes
    assert note.endswith("'b/4.png'; a training may hold out a copy for validation")


def test_copies_that_cannot_be_read_are_problems(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/1.jpg")
    for name in ("a/2.jpg", "b/2.jpg"):
        (tmp_path / name).write_bytes(b"")
        os.truncate(str(tmp_path / name), MAX_BYTES + 1)
    problems = verification(root).problems
    assert [("2.jpg" in line, "larger than" in line) for line in problems] == [(True, True)] * 2


class TestHeldOut:
    """One folder is divided by itself."""

    @pytest.fixture
    def root(self, tmp_path):
        return fill(tmp_path, *(f"{name}/{number}.jpg" for name, count in (
            ("a", 30), ("b", 10), ("c", 2), ("d", 1)) for number in range(count)))

    def split(self, root, seed=0, **options):
        train, validation = (opened(root, split, hold_out=True, seed=seed, **options)
                             for split in ("train", "validation"))
        assert train[1:] == validation[1:]
        return train[0], validation[0], train[2]

    def test_by_class_with_a_note(self, root):
        train, validation, notes = self.split(root)
        assert sorted(train + validation) == sorted(opened(root)[0])
        assert [name[0] for name in validation] == ["a", "a", "a", "b", "c"]
        assert notes == [f"5 of the 43 images in {root!r} are held out for validation (1 class "
                         "has a single image, which is not held out): set the share with "
                         "'--validation-split'"]

    def test_the_share(self, root):
        _, validation, (note,) = self.split(root, validation_split=0.5)
        assert [sum(name[0] == kind for name in validation) for kind in "abcd"] == [15, 5, 1, 0]
        assert "--validation-split" not in note

    def test_depends_on_seed_and_names_only(self, root, tmp_path):
        before = set(self.split(root)[1])
        assert before == set(self.split(root)[1])
        assert before != set(self.split(root, seed=1)[1])
        moved = tmp_path.rename(tmp_path.parent / f"{tmp_path.name}-moved")
        assert before == set(self.split(str(moved))[1])
        fill(moved, "a/30.jpg")
        assert len(before - set(self.split(str(moved))[1])) <= 1

    def test_of_a_training_folder_alone(self, tmp_path):
        root = fill(tmp_path, *(f"train/{name}/{n}.jpg" for name in "ab" for n in range(10)))
        train, validation, _ = self.split(root)
        assert len(train) == 18
        assert len(validation) == 2

    def test_only_on_request(self, root):
        assert len(opened(root)[0]) == len(opened(root, "train")[0]) == 43
        assert len(opened(root, "train", validation_split=0.1)[0]) == 38
        with pytest.raises(NoSplitError, match="no validation images") as caught:
            opened(root, "validation")
        assert "--validation-split 0.1" in caught.value.hint
        with pytest.raises(NoSplitError):
            opened(root, "validation", hold_out=True, validation_split=0.0)

    def test_single_images_cannot_be_divided(self, tmp_path):
        with pytest.raises(DataError, match="too few images to hold some out"):
            opened(fill(tmp_path, "a/1.jpg", "b/1.jpg"), "train", hold_out=True)

    def test_no_effect_beside_validation_images(self, tmp_path):
        root = fill(tmp_path, "train/a/1.jpg", "val/a/2.jpg")
        with pytest.raises(UsageError, match=r"no effect.*val'"):
            opened(root, "train", validation_split=0.2)
        names, _, notes = opened(root, "validation", validation_split=0.2)
        assert names == opened(root, "validation")[0]
        assert notes == [f"'--validation-split' has no effect: {root!r} has validation "
                         f"images in {root + '/val'!r}"]
        assert opened(root, "train", hold_out=True)[0] == ["train/a/1.jpg"]


def test_classes_are_the_same_however_accents_are_written(tmp_path):
    root = fill(tmp_path, "train/a/1.jpg", "train/caf\xe9/1.jpg", "val/cafe\u0301/2.jpg",
                "val/a/2.jpg")  # as Linux and macOS write them
    assert opened(root, "validation") == (["val/a/2.jpg", "val/cafe\u0301/2.jpg"],
                                          ("a", "caf\xe9"), [])
    assert load_dataset("image_folder", root, split="validation").label(1) == 1
