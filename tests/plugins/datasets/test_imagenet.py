import hashlib
import os

import pytest
from PIL import Image

from ipucnn.core.errors import DataError
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import DatasetRequest
from ipucnn.data.formats.verify import verify
from ipucnn.plugins.datasets import _imagenet_files
from ipucnn.testing import check_plugin

SYNSETS = ["n01440764", "n01443537", "n02084071"]
CSV = "imagenet_2012_bounding_boxes.csv"


def save(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(str(path), "JPEG")


def write(root, validation="validation", per_class=2):
    for label, synset in enumerate(SYNSETS):
        for number in range(per_class):
            save(root / "train" / synset / f"{synset}_{number}.JPEG", (40 * label, 9, 200))
        if validation:
            save(root / validation / synset / f"ILSVRC2012_val_{label:08d}.JPEG")
    return root


def load(root, **request):
    spec = registry().get_typed(DatasetSpec, "imagenet")
    return registry().resolve(spec)(DatasetRequest(data_dir=root and str(root), **request))


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_splits(tmp_path, validation):
    write(tmp_path, validation)
    train = load(tmp_path, split="train", num_classes=3)
    assert len(train) == 6
    assert train.class_names == tuple(SYNSETS)
    assert [train.label(i) for i in range(6)] == [0, 0, 1, 1, 2, 2]
    assert train.name(3) == str(tmp_path / "train/n01443537/n01443537_1.JPEG")
    assert train.image(5).shape == (3, 30, 40)
    for split in ("validation", None):
        dataset = load(tmp_path, split=split)
        assert [dataset.label(i) for i in range(3)] == [0, 1, 2]
        assert (train.split, dataset.split) == ("train", "validation")
        assert os.sep + validation + os.sep in dataset.name(0)


def test_needs_a_folder():
    assert registry().get_typed(DatasetSpec, "imagenet").needs_data_dir
    with pytest.raises(DataError, match=r"needs a folder.*--data-dir"):
        load(None)


@pytest.mark.parametrize(("split", "missing"), [("train", "train"), ("validation", "validation"),
                                                (None, "validation")])
def test_a_missing_folder_is_named_with_the_layout(tmp_path, split, missing):
    write(tmp_path)
    os.rename(str(tmp_path / missing), str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=rf"{missing}'") as caught:
        load(tmp_path, split=split)
    assert "--data-dir/train/<class>/*.JPEG" in caught.value.hint


def test_training_needs_no_validation_folder(tmp_path):
    assert len(load(write(tmp_path, validation=None), split="train")) == 6


def test_validation_folder_elsewhere(tmp_path):
    write(tmp_path)
    alone = load(tmp_path / "validation", split="validation")
    assert [alone.label(i) for i in range(3)] == [0, 1, 2]


def test_validation_folder_elsewhere_is_numbered_like_the_training(tmp_path):
    for name in SYNSETS[1:]:
        save(tmp_path / name / "x.JPEG")
    dataset = load(tmp_path, split="validation", class_names=tuple(SYNSETS))
    assert [dataset.label(i) for i in range(2)] == [1, 2]
    assert dataset.class_names == tuple(SYNSETS)


@pytest.mark.parametrize("where", ["train", "validation"])
def test_both_splits_must_have_the_same_classes(tmp_path, where):
    write(tmp_path)
    save(tmp_path / where / "n09999999" / "x.JPEG")
    with pytest.raises(DataError, match=rf"'n09999999' is in '.*{where}'"):
        load(tmp_path, split="validation")


def test_a_small_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="3 classes and the model 2 outputs"):
        load(write(tmp_path), split="train", num_classes=2)


def test_conformance(tmp_path):
    results = check_plugin("dataset", "imagenet", data_dir=str(write(tmp_path)))
    assert set(results.values()) == {"passed"}


class TestBoxes:
    def test_found_by_file_name(self, tmp_path):
        write(tmp_path)
        (tmp_path / CSV).write_text(
            "n02084071_1.JPEG,0.1,0.2,0.5,0.75\n\n"
            "n01440764_0.JPEG, 0.0, 0.0, 1.0, 1.0\r\n"
            "n00000000_7.JPEG,0,0,1,1\n")
        dataset = load(tmp_path, split="train")
        assert dataset.has_boxes
        assert dataset.box(5) == (0.1, 0.2, 0.5, 0.75)
        assert dataset.box(0) == (0, 0, 1, 1)
        assert [dataset.box(i) for i in range(1, 5)] == [None] * 4

    def test_several_objects_are_boxed_together(self, tmp_path):
        write(tmp_path)
        (tmp_path / CSV).write_text("n01440764_0.JPEG,0.1,0.3,0.4,0.9\n"
                                    "n01440764_0.JPEG,0.2,0.2,0.6,0.5\n")
        assert load(tmp_path, split="train").box(0) == (0.1, 0.2, 0.6, 0.9)

    def test_without_the_file(self, tmp_path):
        dataset = load(write(tmp_path), split="train")
        assert not dataset.has_boxes
        assert dataset.box(0) is None

    def test_boxes_of_other_images_are_none(self, tmp_path):
        write(tmp_path)
        (tmp_path / CSV).write_text("n00000000_7.JPEG,0,0,1,1\n")
        assert not load(tmp_path, split="train").has_boxes

    @pytest.mark.parametrize("row", [
        "n01440764_1.JPEG,0.1,0.2,0.5", "n01440764_1.JPEG,0.1,0.2,0.5,0.6,0.7",
        "n01440764_1.JPEG,0.1,x,0.5,0.6", "n01440764_1.JPEG,0.5,0.2,0.1,0.6",
        "n01440764_1.JPEG,0.1,0.6,0.5,0.2", "n01440764_1.JPEG,0.1,0.2,0.5,1.5",
        "n01440764_1.JPEG,-0.1,0.2,0.5,0.6", "n01440764_1.JPEG,nan,0.2,0.5,0.6", "\x00\ufffd"])
    def test_a_malformed_row_is_named(self, tmp_path, row):
        write(tmp_path)
        (tmp_path / CSV).write_text("n01440764_0.JPEG,0,0,1,1\n" + row + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=rf"{CSV}', line 2: ") as caught:
            load(tmp_path, split="train")
        assert "x1, y1, x2, y2" in caught.value.hint

    def test_bytes_that_are_no_text(self, tmp_path):
        write(tmp_path)
        (tmp_path / CSV).write_bytes(b"\xff\xfe\x00\n")
        with pytest.raises(DataError, match="line 1"):
            load(tmp_path, split="train")


    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path):
        write(tmp_path)
        (tmp_path / CSV).write_text("n01440764_0.JPEG,0,0,1,1\n", encoding="utf-8-sig")
        assert load(tmp_path, split="train").box(0) == (0, 0, 1, 1)

    @pytest.mark.parametrize(("make", "message"), [
        (os.mkdir, "is a directory"), (lambda path: os.mkfifo(path), "it is a fifo"),
        (lambda path: os.symlink("gone", path), "no such file")])
    def test_a_file_that_cannot_be_read(self, tmp_path, make, message):
        write(tmp_path)
        make(str(tmp_path / CSV))
        with pytest.raises(DataError, match=f"cannot read bounding boxes .*{message}"):
            load(tmp_path, split="train")


class TestVerify:
    def test_the_hash_is_that_of_the_sorted_hashes(self, tmp_path):
        """As `checksumdir` defines it: names and places of the files do not matter."""
        contents = [bytes([number, 7, 9]) for number in range(5)]
        for place, content in zip(("a/1", "a/b/2", "3", ".hidden", "z/4"), contents):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_bytes(content)
        digests = sorted(hashlib.md5(content).hexdigest() for content in contents)
        assert _imagenet_files.folder_md5(str(tmp_path)) == hashlib.md5(
            "".join(digests).encode()).hexdigest()

    @pytest.mark.parametrize("validation", ["validation", "val"])
    def test_changed_and_missing_images(self, tmp_path, monkeypatch, validation):
        write(tmp_path, validation)
        problems = verify(str(tmp_path), "imagenet")  # it is not the published ImageNet
        assert ["17aed9504492852ddcc2ac247413aa95" in problems[0],
                "8d6a57a773cf3c3354c92155a5b1d5bd" in problems[1]] == [True, True]
        for split, folder in (("train", "train"), ("validation", validation)):
            monkeypatch.setitem(_imagenet_files._MD5, split,
                                _imagenet_files.folder_md5(str(tmp_path / folder)))
        assert verify(str(tmp_path)) == []  # recognised by its layout
        (tmp_path / "train" / SYNSETS[0] / f"{SYNSETS[0]}_0.JPEG").unlink()
        (problem,) = verify(str(tmp_path))
        assert "train" in problem

    def test_a_missing_split(self, tmp_path, monkeypatch):
        write(tmp_path, validation=None)
        monkeypatch.setitem(_imagenet_files._MD5, "train",
                            _imagenet_files.folder_md5(str(tmp_path / "train")))
        (problem,) = verify(str(tmp_path))
        assert "no folder" in problem
        assert "validation" in problem

    def test_a_file_that_cannot_be_read(self, tmp_path):
        write(tmp_path)
        (tmp_path / "train" / SYNSETS[0] / "x.JPEG").symlink_to("gone")
        assert any("x.JPEG" in problem for problem in verify(str(tmp_path)))
