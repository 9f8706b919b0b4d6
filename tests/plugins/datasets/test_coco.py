"""COCO's layouts and ids, and the errors of damaged ones."""

from __future__ import annotations

import json
import pickle

import pytest
from PIL import Image

from ipucnn import load_dataset
from ipucnn.core.errors import DataError
from ipucnn.data.formats.partition import partition
from ipucnn.data.formats.verify import verify
from ipucnn.testing import check_plugin

IDS = (42, 73, 74, 133, 136, 139, 143, 164, 192, 196, 208, 241)


def name(number):
    return f"COCO_val2014_{number:012d}.jpg"


def save(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32 + number % 9, 24), (number % 256, 90, 30)).save(str(path), "JPEG")


def annotate(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({
        "info": {"year": 2014}, "images": [
            {"license": 3, "file_name": file_name, "height": 24, "width": 32, "id": number}
            for file_name, number in images],
        "annotations": [{"id": 1, "image_id": 42, "category_id": 18, "iscrowd": 0,
                         "bbox": [1.0, 2, 3, 4], "segmentation": [[1.5, 2, 3, 4, 5, 6]]}],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}]}))
    return path


def ids(dataset):
    return [dataset.image_id(index) for index in range(len(dataset))]


@pytest.fixture
def flat(tmp_path):
    for number in IDS:
        save(tmp_path / "val2014" / name(number), number)
    return tmp_path / "val2014"


def test_a_flat_folder_has_the_ids_of_its_names(flat):
    (flat / "README.txt").write_text("no image")
    (flat / "annotations").mkdir()
    (flat / "annotations" / "LICENCE.txt").write_text("no image either")
    dataset = load_dataset("coco", str(flat))
    assert ids(dataset) == list(IDS)
    assert [dataset.name(index) for index in range(len(IDS))] == [
        str(flat / name(number)) for number in IDS]
    assert dataset.label(0) is None
    assert dataset.has_image_ids
    assert dataset.image(3).shape == (3, 24, 32 + 133 % 9)
    assert dataset.notes == (f"left out of {str(flat)!r}: 1 file that is no image: README.txt",)


@pytest.mark.parametrize("size", [8, 17, 24, 30, 51])
def test_the_centre_of_images_as_they_are(tmp_path, size):
    """The old bulk inference cropped without resizing; `size` may exceed one or both sides."""
    from torchvision.transforms.functional import center_crop

    from ipucnn.core.preprocessing import Preprocessing
    from ipucnn.data.host_loader import HostLoader

    Image.effect_noise((41, 28), 90).convert("RGB").save(str(tmp_path / "1.jpg"), quality=95)
    whole = load_dataset("coco", str(tmp_path)).image(0)
    cropped = load_dataset("coco", str(tmp_path), input_size=size, centre_crop=True)
    with HostLoader(cropped, Preprocessing(size), 1, [0], workers=0) as loader:
        (batch,) = loader
    assert (batch.images[0] == center_crop(whole, [size, size])).all()
    assert cropped.encoded(0) is None  # what stores files stores the centre, too


def test_names_without_a_number_have_no_id(flat):
    for odd in ("cover", "photo12b", "9" * 30, "12-3", "\u0664\u0662"):
        save(flat / f"{odd}.jpg")
    save(flat / "000000000007.jpg")
    dataset = load_dataset("coco", str(flat))
    assert sorted(number for number in ids(dataset) if number is not None) == [7, *IDS]
    assert len(dataset) == len(IDS) + 6


def test_no_ids_at_all(tmp_path):
    save(tmp_path / "a.jpg")
    assert not load_dataset("coco", str(tmp_path)).has_image_ids


def test_the_annotations_of_the_root_are_those_of_its_split(flat):
    root = flat.parent
    save(root / "train2014" / "COCO_train2014_000000000009.jpg")
    annotate(root / "annotations" / "captions_train2014.json", [("x.jpg", 9)])
    annotate(root / "annotations" / "instances_val2014.json",
             [(name(number), number + 1000) for number in reversed(IDS)])
    (root / "annotations" / "notes.json").write_text("{")
    assert ids(load_dataset("coco", str(root))) == [number + 1000 for number in IDS]


class TestSplits:
    """Annotations of several splits lie side by side: those that list the images are taken."""

    @pytest.fixture
    def root(self, tmp_path):
        root = tmp_path / "coco"
        for number in IDS[:2]:
            save(root / "val2017" / f"{number:012d}.jpg", number)
        for kind in ("captions", "instances", "person_keypoints"):
            annotate(root / "annotations" / f"{kind}_train2017.json", [("000000000009.jpg", 9)])
            annotate(root / "annotations" / f"{kind}_val2017.json",
                     [(f"{number:012d}.jpg", number + 5) for number in IDS[:2]])
        return root

    def test_of_2017(self, root):
        dataset = load_dataset("coco", str(root))
        assert ids(dataset) == [IDS[0] + 5, IDS[1] + 5]
        assert dataset.notes == ()
        assert verify(str(root)) == []

    def test_found_by_the_names_of_the_images(self, root):
        (root / "val2017").rename(root / "pictures")
        assert ids(load_dataset("coco", str(root))) == [IDS[0] + 5, IDS[1] + 5]
        assert verify(str(root), "coco") == []

    def test_complete_ones_are_preferred(self, root):
        (root / "val2017").rename(root / "pictures")
        annotate(root / "annotations" / "captions_train2017.json", [
            (f"{IDS[0]:012d}.jpg", 3), ("000000000009.jpg", 9)])
        assert ids(load_dataset("coco", str(root))) == [IDS[0] + 5, IDS[1] + 5]

    def test_ambiguous_ones_are_listed(self, root):
        save(root / "val2017" / "000000000009.jpg")
        (root / "val2017").rename(root / "pictures")
        with pytest.raises(DataError, match="not clear") as caught:
            load_dataset("coco", str(root))
        for file, count in (("captions_train2017.json", 1), ("captions_val2017.json", 2)):
            assert f"{file}' ({count})" in caught.value.message
        assert "--annotations" in caught.value.hint
        (problem,) = verify(str(root), "coco")
        assert "not clear" in problem

    def test_several_years(self, root):
        save(root / "val2014" / name(42))
        with pytest.raises(DataError, match="several years: val2014, val2017"):
            load_dataset("coco", str(root))


@pytest.mark.parametrize("kind", ["image_info", "captions", "instances", "person_keypoints"])
def test_every_kind_of_annotations_names_images(flat, kind):
    annotate(flat.parent / "annotations" / f"{kind}_val2014.json",
             [(name(number), number + 5) for number in IDS])
    assert ids(load_dataset("coco", str(flat.parent))) == [number + 5 for number in IDS]


def test_named_annotations_come_first_and_know_files_by_the_end_of_their_path(flat, tmp_path):
    annotate(flat.parent / "annotations" / "instances_val2014.json",
             [(name(number), number) for number in IDS])
    save(flat / "more" / name(42))
    other = annotate(tmp_path / "other.json", [
        *((f"val2014/{name(number)}", number * 2) for number in IDS), (f"more/{name(42)}", 7)])
    dataset = load_dataset("coco", str(flat.parent), annotations=str(other))
    assert ids(dataset) == [*(number * 2 for number in IDS), 7]
    assert dataset.notes == ()


def test_images_without_annotations_are_noted_and_have_no_id(flat, tmp_path):
    file = annotate(tmp_path / "some.json", [(name(number), number) for number in IDS[2:]])
    dataset = load_dataset("coco", str(flat), annotations=str(file))
    assert ids(dataset) == [None, None, *IDS[2:]]
    (note,) = dataset.notes
    assert f"2 of {len(IDS)} images" in note
    assert "some.json" in note


@pytest.mark.parametrize(("content", "expected"), [
    ('{"images": [{"id": 1, "file_n', "are not JSON"),
    (b"\xff\xfe\x00\x01", "are not JSON"),
    ("", "are not JSON"),
    ('{"images":' + "[" * 100_000, "are not JSON"),
    ("[]", "no list 'images'"),
    ('{"annotations": []}', "no list 'images'"),
    ('{"images": {"id": 1}}', "no list 'images'"),
    ('{"images": [{"id": 1}]}', "image 0 of 'images' has no 'file_name'"),
    ('{"images": [{"file_name": "a.jpg", "id": "42"}]}', "image 0 of 'images'"),
    ('{"images": [{"file_name": "a.jpg", "id": true}]}', "image 0 of 'images'"),
    ('{"images": [{"file_name": "a.jpg", "id": 1e400}]}', "image 0 of 'images'"),
    ('{"images": [{"file_name": "a.jpg", "id": 99999999999999999999}]}', "image 0 of 'images'"),
    ('{"images": [7]}', "image 0 of 'images'"),
    ('{"images": [{"file_name": "a.jpg", "id": 1}, {"file_name": "a.jpg", "id": 2}]}',
     "two ids for image 'a.jpg': 1 and 2"),
    ('{"images": [{"file_name": "a.jpg", "id": 1}]}', f"none of the {len(IDS)} images"),
    ('{"images": []}', f"none of the {len(IDS)} images"),
], ids=lambda value: str(value)[:60])
def test_damaged_annotations_are_named(flat, content, expected):
    file = flat.parent / "annotations" / "instances_val2014.json"
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for request in ({"data_dir": str(flat.parent)},
                    {"data_dir": str(flat), "annotations": str(file)}):
        with pytest.raises(DataError) as caught:
            load_dataset("coco", **request)
        assert str(file) in caught.value.message
        assert expected in caught.value.message
        assert "\n" not in caught.value.message
        assert "--annotations" in caught.value.hint


def test_annotations_that_cannot_be_read(flat, tmp_path):
    for file in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(DataError, match="cannot read annotations"):
            load_dataset("coco", str(flat), annotations=str(file))


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist") as caught:
        load_dataset("coco", str(tmp_path / "nowhere"))
    assert "val2014.zip" in caught.value.hint
    with pytest.raises(DataError, match="no images in"):
        load_dataset("coco", str(tmp_path))


def test_partitions_are_read_in_the_order_of_the_images(flat, tmp_path):
    made = tmp_path / "made"
    partition(str(flat), 12, str(made))  # '10' sorts before '2'
    dataset = load_dataset("coco", str(made))
    assert ids(dataset) == list(IDS)
    assert dataset.name(10) == str(made / "10" / name(208))
    real = load_dataset("real", str(made))
    assert sorted(real.name(index) for index in range(len(real))) == sorted(
        dataset.name(index) for index in range(len(IDS)))


def test_loader_processes_can_have_it(flat):
    assert ids(pickle.loads(pickle.dumps(load_dataset("coco", str(flat))))) == list(IDS)


def test_verify_finds_bad_missing_and_unknown_images(flat):
    root = flat.parent
    assert verify(str(flat)) == verify(str(root)) == []
    file = annotate(root / "annotations" / "instances_val2014.json",
                    [*((name(number), number) for number in IDS[1:]), (name(999), 999)])
    (flat / name(73)).write_bytes(b"no image")
    bad, missing, unknown = verify(str(root))
    assert name(73) in bad
    assert missing == f"image {name(999)!r} of {str(file)!r} does not exist"
    assert unknown == f"image {str(flat / name(42))!r} is not in {str(file)!r}"
    file.write_text("{")
    assert "are not JSON" in verify(str(root))[-1]
    assert "no images in" in verify(str(file.parent), "coco")[0]


def test_conformance(flat):
    assert set(check_plugin("dataset", "coco", data_dir=str(flat)).values()) == {"passed"}


def test_annotations_with_paths_of_windows_and_accents_of_macos(tmp_path):
    save(tmp_path / "val2017" / "a" / "caf\u00e9.jpg")
    annotate(tmp_path / "annotations" / "instances_val2017.json",
             [("a\\cafe\u0301.jpg", 7)])
    assert ids(load_dataset("coco", str(tmp_path))) == [7]
    assert verify(str(tmp_path)) == []


def test_what_lies_beside_the_split_is_noted(flat):
    root = flat.parent
    save(root / "train2014" / "COCO_train2014_000000000009.jpg")
    save(root / "loose.jpg")
    annotate(root / "annotations" / "instances_val2014.json", [(name(n), n) for n in IDS])
    (root / "README.txt").write_text("no image")
    dataset = load_dataset("coco", str(root))
    assert len(dataset) == len(IDS)
    assert dataset.notes == (f"left out of {str(root)!r}: 2 images or folders beside the split "
                             "that is read: loose.jpg, train2014",)
