"""Classes named in a CSV file: `--labels`."""

from __future__ import annotations

import pytest
from PIL import Image

from ipucnn import load_dataset
from ipucnn.core.errors import DataError, NoSplitError, UsageError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    for name in ("a.jpg", "b.jpg", "deep/c.jpg", "deep/d.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), "red").save(str(folder / name), "JPEG")
    return folder


def load(root, text, split=None, **options):
    file = root.parent / "labels.csv"
    file.write_text(text)
    return load_dataset("image_folder", str(root), labels=str(file), split=split, **options)


def content(dataset, root):
    """Names of the classes by image."""
    return {dataset.name(index)[len(str(root)) + 1:]:
            "+".join(dataset.class_names[number] for number in dataset.labels(index))
            for index in range(len(dataset))}


def noted(dataset):
    """The notes without the names of files and folders."""
    return [note.split(": ", 1)[-1] for note in dataset.notes]


FOUND = {"a.jpg": "cat", "b.jpg": "dog", "deep/c.jpg": "cat", "deep/d.jpg": "dog"}


@pytest.mark.parametrize(("header", "names"), [
    ("filename,label", ["a.jpg", "b.jpg", "deep/c.jpg", "deep/d.jpg"]),
    ("image_id,breed name,class", ["a", "b", "c", "d"]),
    ("path;category", ["photos/a.jpg", "photos/b.jpg", "photos/deep/c.jpg", "deep/d.jpg"]),
    ("Image Name\tClass Name", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])])
def test_columns_are_found_by_name(root, header, names):
    mark = next(mark for mark in ",;\t" if mark in header)
    lines = [mark.join([name, *["x"] * (header.count(mark) - 1), label])
             for name, label in zip(names, ("cat", "dog", "cat", "dog"))]
    dataset = load(root, "\n".join([header, *lines, ""]))
    assert content(dataset, root) == FOUND
    assert dataset.class_names == ("cat", "dog")
    assert [dataset.label(index) for index in range(4)] == [0, 1, 0, 1]
    assert not dataset.multi_label
    assert noted(dataset) == (["'breed name'"] if "breed" in header else [])


def test_the_only_other_column_holds_the_labels(root):
    dataset = load(root, "id,breed\na,cat\nb,dog\nc,cat\nd,dog\n")
    assert content(dataset, root) == FOUND
    assert dataset.notes[0].endswith("are those in column 'breed', the only one beside the images")
    assert load(root, "id,cat\na,1\nb,0\nc,1\nd,0\n").class_names == ("cat",)


def test_files_of_spreadsheets(root):
    text = "\ufefffile;label\r\na.jpg;grüne Birne\r\nb.jpg;\"x;y\"\r\n\r\n"
    (root.parent / "labels.csv").write_bytes(text.encode())
    dataset = load_dataset("image_folder", str(root), labels=str(root.parent / "labels.csv"))
    assert set(dataset.class_names) == {"grüne Birne", "x", "y"}  # ';' within a field separates
    assert dataset.multi_label


def test_numbers_are_sorted_by_value(root):
    dataset = load(root, "file,label\na,10\nb,9\nc,9\nd,100\n")
    assert dataset.class_names == ("9", "10", "100")
    dataset = load(root, "file,label\na,10.0\nb,9.0\nc,\nd,100.0\n")  # pandas, because of c
    assert dataset.class_names == ("9", "10", "100")
    assert load(root, "file,label\na,1.0\nb,1.5\nc,2.0\n").class_names == ("1.0", "1.5", "2.0")


def test_a_file_in_the_folder(root):
    (root / "train.csv").write_text("file,label\na,1\nb,2\nc,1\nd,2\n")
    dataset = load_dataset("image_folder", str(root), labels="train.csv")
    assert len(dataset) == 4
    assert dataset.notes == ()


@pytest.mark.parametrize(("header", "cells", "note"), [
    ("label", ["cat|pet", "dog | pet", "cat", ""], "'|'"),
    ("label", ["cat;pet", "dog;pet", "cat", ""], "';'"),
    ("tags", ["cat pet", "dog pet", "cat", ""], "' '"),
    ("labels", ['"cat,pet"', '"dog, pet"', "cat", ""], "','")])
def test_several_labels(root, header, cells, note):
    rows = [f"{name},{cell}" for name, cell in zip("abcd", cells)]
    dataset = load(root, "\n".join([f"image,{header}", *rows]))
    assert dataset.multi_label
    assert dataset.class_names == ("cat", "dog", "pet")
    assert [dataset.labels(index) for index in range(4)] == [(0, 2), (1, 2), (0,), ()]
    assert dataset.label(0) is None
    (text,) = dataset.notes
    assert text.endswith(f"are separated by {note}")


def test_a_space_is_part_of_a_single_label(root):
    dataset = load(root, "file,label\na,golden retriever\nb,tabby cat\nc,tabby cat\nd,\n")
    assert dataset.class_names == ("golden retriever", "tabby cat")
    assert noted(dataset) == ["1 image without a label: deep/d.jpg"]
    assert len(dataset) == 3


@pytest.mark.parametrize("text", ["", "  ", "NaN", "nan", "N/A", "#N/A", "<NA>"])
def test_a_missing_label_is_left_out_however_it_is_written(root, text):
    dataset = load(root, f"file,label\na,cat\nb,dog\nc,cat\nd,{text}\n")
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset) == 3
    assert noted(dataset) == ["1 image without a label: deep/d.jpg"]
    several = load(root, f"file,tags\na,cat pet\nb,dog\nc,cat\nd,{text}\n")
    assert [several.labels(index) for index in range(4)] == [(0, 2), (1,), (0,), ()]


def test_a_class_that_may_be_a_missing_label_is_noted(root):
    dataset = load(root, "file,label\na,cat\nb,dog\nc,cat\nd,None\n")
    assert dataset.class_names == ("None", "cat", "dog")
    (note,) = dataset.notes
    assert note.startswith("'None' in ")
    assert "is taken for a class: if it is a missing label, leave its field empty" in note


def test_labels_that_are_all_missing(root):
    with pytest.raises(DataError, match="have no labels"):
        load(root, "file,label\na,NaN\nb,\n")
    with pytest.raises(DataError, match="give no label to any of the 2 images that they name in"):
        load(root, "file,label\na,NaN\nb,\ngone,cat\n")


def test_a_line_without_the_name_of_an_image(root):
    dataset = load(root, "file,label\na,cat\nb,dog\nc,cat\nd,cat\n,dog\n")
    assert noted(dataset) == ["1 image that the labels name and that does not exist: (line 6)"]


def test_one_column_per_class(root):
    dataset = load(root, "image_id,healthy,rust,scab\na,1,0,0\nb,0,1,1\nc,0,1.0,0\nd,0,0,0\n")
    assert dataset.class_names == ("healthy", "rust", "scab")
    assert [dataset.labels(index) for index in range(4)] == [(0,), (1, 2), (1,), ()]
    single = load(root, "image_id,b,a\na,1,0\nb,0,1\nc,0,1\nd,1,0\n")
    assert single.class_names == ("b", "a")
    assert [single.label(index) for index in range(4)] == [0, 1, 1, 0]


def test_an_exact_name_comes_before_one_without_the_suffix(root):
    for name in ("deep/IMG_1", "x.jpg", "x.jpg.webp"):
        Image.new("RGB", (9, 7)).save(str(root / name), "JPEG")
    dataset = load(root, "file,label\nIMG_1,cat\nx.jpg,dog\na,cat\n")
    assert content(dataset, root) == {"deep/IMG_1": "cat", "x.jpg": "dog", "a.jpg": "cat"}


def test_names_in_other_case_are_found_if_there_is_one_image(root):
    for name in ("B.JPG", "X.JPG", "x.JPG"):
        Image.new("RGB", (9, 7)).save(str(root / name), "JPEG")
    dataset = load(root, "file,label\nA.JPG,cat\nb.jpg,dog\nDeep\\C.jpg,cat\nx.JPG,cat\n")
    assert content(dataset, root) == {"a.jpg": "cat", "b.jpg": "dog", "deep/c.jpg": "cat",
                                      "x.JPG": "cat"}
    with pytest.raises(DataError, match=r"'x.jpg' may be '.*X.JPG' or '.*x.JPG'"):
        load(root, "file,label\nx.jpg,cat\n")


def test_missing_unlisted_and_other_files_are_counted(root):
    (root / "notes.txt").write_text("x")
    dataset = load(root, "file,label\na.jpg,x\nb.jpg,y\ngone/a.jpg,x\nnone.jpg,y\nz.jpg,x\n")
    assert content(dataset, root) == {"a.jpg": "x", "b.jpg": "y"}
    assert noted(dataset) == [
        "2 images that the labels name and that do not exist: none.jpg, z.jpg",
        "2 images that the labels do not name: deep/c.jpg, deep/d.jpg",
        "1 file that is no image: notes.txt"]


class TestSplits:
    TEXT = "file,label,split\na,x,train\nb,y,Training\nc,x,valid\nd,y,test\n"

    def test_of_a_column(self, root):
        assert list(content(load(root, self.TEXT, "train"), root)) == ["a.jpg", "b.jpg"]
        for split in ("validation", None):
            dataset = load(root, self.TEXT, split)
            assert list(content(dataset, root)) == ["deep/c.jpg"]
            assert "1 test image beside validation images: deep/d.jpg" in noted(dataset)
        assert list(content(load(root, self.TEXT.replace("valid", "test"), "validation"),
                            root)) == ["deep/c.jpg", "deep/d.jpg"]
        with pytest.raises(UsageError, match="no effect"):
            load(root, self.TEXT, "train", validation_split=0.1)
        dataset = load(root, self.TEXT, "validation", validation_split=0.1)
        assert content(dataset, root) == content(load(root, self.TEXT, "validation"), root)
        assert any("'--validation-split' has no effect" in note for note in dataset.notes)
        with pytest.raises(NoSplitError, match="no training images"):
            load(root, self.TEXT.replace("rain", "est"), "train")
        with pytest.raises(DataError, match="line 2: 'fold1' is not a split"):
            load(root, self.TEXT.replace("x,train", "x,fold1"))

    def test_held_out(self, root):
        text = "file,label\na,x\nb,y\nc,x\nd,y\n"
        train, validation = (set(content(load(root, text, split, hold_out=True), root))
                             for split in ("train", "validation"))
        assert len(train) == len(validation) == 2
        assert train | validation == set(FOUND)
        assert all(load(root, text, split, hold_out=True).held_out
                   for split in ("train", "validation"))
        assert not load(root, text, hold_out=True).held_out
        assert not load(root, self.TEXT, "validation", hold_out=True).held_out
        with pytest.raises(NoSplitError, match="no validation images"):
            load(root, text, "validation")


def test_classes_that_are_trained(root):
    text = "file,label\na,x\nb,y\n"
    dataset = load(root, text, class_names=("w", "y", "x"))
    assert [dataset.label(index) for index in range(2)] == [2, 1]
    with pytest.raises(DataError, match=r"label 'y' in '.*' is none of the 1 classes"):
        load(root, text, class_names=("x",))
    with pytest.raises(DataError, match="has 2 classes and the model 1 outputs"):
        load(root, text, num_classes=1)


@pytest.mark.parametrize(("text", "message"), [
    ("", "are empty"),
    ("file,label\n", "name no images"),
    ("name,label\na,x\n", "no column of the images; columns: 'name', 'label'"),
    ("file,split\na,train\n", "no column of their labels; columns: 'file', 'split'"),
    ("file,width,sort\na,640,cat\n", "line 2: '640' in column 'width' is neither 0 nor 1"),
    ("file,label\na,x\nb\n", "line 3: 1 fields, expected 2"),
    ("file,label\n\"a,x\n", "are not a CSV file"),
    ("file,x,y,x\na,0,0,1\nb,0,1,0\n", "have several columns 'x'"),
    ("file,label\na,x\na.jpg,y\n", "lines 2 and 3 give different labels for '.*a.jpg'"),
    ("file,label\nu,x\nv,y\n", "name none of the 4 images in '.*': the first line names 'u'"),
    ("file,label\nsame,x\n", "'same' may be '.*same.jpg' or '.*same.jpg'")])
def test_what_is_wrong_is_named(root, text, message):
    if "same" in text:
        for folder in ("deep", "other"):
            (root / folder).mkdir(exist_ok=True)
            Image.new("RGB", (9, 7)).save(str(root / folder / "same.jpg"), "JPEG")
    with pytest.raises(DataError, match=message) as caught:
        load(root, text)
    assert caught.value.hint


def test_utf_16_is_named(root):
    (root.parent / "labels.csv").write_text("file,label\na,x\n", encoding="utf-16")
    with pytest.raises(DataError, match="are UTF-16 text"):
        load_dataset("image_folder", str(root), labels=str(root.parent / "labels.csv"))


def test_labels_with_nul_characters_are_no_text(root):
    (root.parent / "labels.csv").write_text("file,label\na,x\n", encoding="utf-16-le")
    with pytest.raises(DataError, match="NUL"):
        load_dataset("image_folder", str(root), labels=str(root.parent / "labels.csv"))


def test_labels_in_another_encoding_are_named(root):
    (root.parent / "labels.csv").write_text("file,label\na,caf\xe9\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"are not UTF-8 text: class 'caf.*' cannot be read"):
        load_dataset("image_folder", str(root), labels=str(root.parent / "labels.csv"))


def test_names_are_found_however_accents_are_written(root):
    (root / "a.jpg").rename(root / "cafe\u0301.jpg")  # as macOS writes it
    found = load(root, "file,label\ncaf\xe9.jpg,cat\nb,dog\nc,cat\nd,dog\n")
    assert [found.class_names[found.label(index)] for index in range(4)] == [
        "dog", "cat", "cat", "dog"]


def test_a_file_that_does_not_exist(root):
    with pytest.raises(DataError, match=r"cannot read labels 'nowhere.csv': no such file"):
        load_dataset("image_folder", str(root), labels="nowhere.csv")
