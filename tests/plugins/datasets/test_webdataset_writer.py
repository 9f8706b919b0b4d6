"""Shards, read by the library itself, hold what their source holds."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy
import pytest
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.options.building import build
from ipucnn.data import images
from ipucnn.data.formats.convert import convert
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.data.resize import center_crop, resized
from ipucnn.plugins.datasets._webdataset import shard_metadata as metadata

CLASSES = [f"c{number}" for number in range(10)]
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "PPM": "ppm",
            "TIFF": "tif"}


def picture(seed: int, kind: str = "JPEG", size=(50, 40)) -> bytes:
    noise = numpy.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=numpy.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, kind)
    return content.getvalue()


def save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten classes of files of every kind, named as if all were JPEG; 30 to train on."""
    root = tmp_path_factory.mktemp("folder")
    kinds = list(SUFFIXES)
    for number in range(30):
        save(root / "train" / CLASSES[number % 10] / f"{number}.jpg",
             picture(number, kinds[number % len(kinds)]))
    for number in range(10):
        save(root / "validation" / CLASSES[number] / f"{number}.jpg", picture(100 + number))
    return root


def write(source, target, **options):
    given = {"source": source and str(source), "target": str(target), "workers": 3, **options}
    return convert(build(ConvertOptions, given), lambda *_: None)


def meta(target) -> metadata.Metadata:
    return metadata.read((target / metadata.FILE).read_text(), "metadata.json")


def shards(target, split="train"):
    return sorted(str(path) for path in Path(target).glob(f"{split}-*.tar"))


def inside(path):
    with open(path, "rb") as stream:
        return list(group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])))


def samples(target, split="train"):
    return [sample for path in shards(target, split) for sample in inside(path)]


def contents(target):
    return {path.name: path.read_bytes() for path in Path(target).iterdir()}


def source_files(folder, split="train"):
    return {path.read_bytes(): CLASSES.index(path.parent.name)
            for path in folder.glob(f"{split}/*/*")}


def test_files_are_stored_byte_for_byte_under_the_suffix_of_their_content(folder, tmp_path):
    made = write(folder, tmp_path / "out", samples_per_shard=8)
    for split, count in (("train", 30), ("validation", 10)):
        expected, seen = source_files(folder, split), []
        for position, sample in enumerate(samples(tmp_path / "out", split)):
            assert sample["__key__"] == f"{position:09d}"
            (suffix,) = {"jpg", "png", "webp", "gif", "bmp", "ppm", "tif"} & set(sample)
            assert suffix == SUFFIXES[Image.open(io.BytesIO(sample[suffix])).format]
            assert "json" not in sample
            assert int(sample["cls"]) == expected[sample[suffix]]
            seen.append(sample[suffix])
        assert len(seen) == len(set(seen)) == count
    assert made.splits["train"].samples == 30
    found = meta(tmp_path / "out")
    assert found.classes == tuple(CLASSES)
    assert found.lengths == {"train": 30, "validation": 10}
    assert [s.samples for s in found.shards["train"]] == [8, 8, 8, 6]
    assert (found.format, found.shuffle) == ("img", True)
    assert (found.image_quality, found.boxes) == (None, False)


def test_metadata_has_sizes_and_the_digests_of_checksumdir(folder, tmp_path):
    write(folder, tmp_path, samples_per_shard=8)
    found = meta(tmp_path)
    digests = []
    for shard in (shard for of in found.shards.values() for shard in of):
        data = (tmp_path / shard.name).read_bytes()
        assert (len(data), hashlib.md5(data).hexdigest()) == (shard.bytes, shard.md5)
        digests.append(shard.md5)
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["metadata.json", *(shard.name for of in found.shards.values() for shard in of)])
    assert found.checksum == hashlib.md5("".join(sorted(digests)).encode()).hexdigest()


@pytest.mark.parametrize("options", [
    {}, {"bytes_per_shard": "60K"}, {"image_quality": 80},
    {"format": "tensor", "train_preprocess_steps": ["Resize(30)", "CenterCrop(24)"]}])
def test_the_number_of_workers_changes_no_byte(folder, tmp_path, options):
    for workers in (1, 4):
        write(folder, tmp_path / str(workers), samples_per_shard=7, workers=workers, **options)
    one, four = contents(tmp_path / "1"), contents(tmp_path / "4")
    assert one == four
    assert len(one) > 4


def test_shuffling_is_one_permutation_by_the_seed(folder, tmp_path):
    order = {}
    for name, options in {"none": {"shuffle": False}, "zero": {}, "again": {"samples_per_shard": 4},
                          "one": {"seed": 1}}.items():
        write(folder, tmp_path / name, **options)
        order[name] = [sample["cls"] for sample in samples(tmp_path / name)]
    assert order["none"] == sorted(order["none"])
    assert order["zero"] == order["again"] != order["one"]
    assert sorted(order["one"]) == sorted(order["zero"]) == order["none"]


def test_shards_by_size_are_as_full_as_can_be(folder, tmp_path):
    limit = 60_000
    write(folder, tmp_path, bytes_per_shard=str(limit), samples_per_shard=20)
    found, firsts = meta(tmp_path), []
    for shard in found.shards["train"]:
        here = inside(tmp_path / shard.name)
        assert len(here) == shard.samples
        firsts.append(sum(512 + -(-len(value) // 512) * 512 for key, value in here[0].items()
                          if not key.startswith("__")))
    sizes = [shard.bytes for shard in found.shards["train"]]
    assert len(sizes) > 3
    assert max(sizes) <= limit
    # the sample that begins a shard had no place in the one before it
    for size, more in zip(sizes, firsts[1:]):
        assert size + more > limit - 20 * 512


def test_a_sample_larger_than_a_shard_has_one_to_itself(folder, tmp_path):
    write(folder, tmp_path, bytes_per_shard="1K", splits=["validation"])
    assert [shard.samples for shard in meta(tmp_path).shards["validation"]] == [1] * 10


def test_shards_by_size_hold_no_more_samples_than_given(folder, tmp_path):
    write(folder, tmp_path, bytes_per_shard="1G", samples_per_shard=4, splits=["validation"])
    assert [shard.samples for shard in meta(tmp_path).shards["validation"]] == [4, 4, 2]


def test_steps_and_pixels(folder, tmp_path):
    write(folder, tmp_path, format="tensor", shuffle=False,
          train_preprocess_steps=["Resize(32) CenterCrop(28)"],
          validation_preprocess_steps=["Resize(20)"])
    files = sorted(folder.glob("train/*/*"))
    for path, sample in zip(files, samples(tmp_path)):
        pixels = numpy.load(io.BytesIO(sample["npy"]))
        decoded = images.decode_pixels(path.read_bytes(), str)[0]
        expected = center_crop(resized(decoded, 32), 28).transpose(2, 0, 1)
        assert pixels.dtype == numpy.uint8
        assert pixels.shape == (3, 28, 28)
        assert numpy.array_equal(pixels, expected)
    assert numpy.load(io.BytesIO(samples(tmp_path, "validation")[0]["npy"])).shape == (3, 20, 25)
    found = meta(tmp_path)
    assert found.format == "tensor"
    assert found.image_quality is None
    assert found.transforms == {"train": ("Resize(32)", "CenterCrop(28)"),
                               "validation": ("Resize(20)",)}


def test_an_image_smaller_than_its_crop_gets_a_black_border(tmp_path):
    save(tmp_path / "in/a/1.png", picture(1, "PNG", (10, 7)))
    write(tmp_path / "in", tmp_path / "out", format="tensor",
          train_preprocess_steps=["CenterCrop(12)"])
    pixels = numpy.load(io.BytesIO(samples(tmp_path / "out")[0]["npy"]))
    original = images.decode((tmp_path / "in/a/1.png").read_bytes(), "1.png").numpy()
    assert pixels.shape == (3, 12, 12)
    assert numpy.array_equal(pixels[:, 2:9, 1:11], original)
    assert pixels.sum() == original.sum()


def test_encoded_images_have_the_given_quality(folder, tmp_path):
    sizes = {}
    for quality in (30, 95):
        write(folder, tmp_path / str(quality), image_quality=quality, splits=["train"])
        found = samples(tmp_path / str(quality))
        assert all(sample["jpg"].startswith(b"\xff\xd8\xff") for sample in found)
        sizes[quality] = sum(len(sample["jpg"]) for sample in found)
        assert meta(tmp_path / str(quality)).image_quality == quality
    assert sizes[30] < sizes[95] / 2


def test_cifar(small_cifar10, tmp_path):
    made = write(small_cifar10, tmp_path / "out", format="tensor", shuffle=False,
                 samples_per_shard=100)
    assert (made.data, made.splits["train"].shards) == ("cifar10", 3)
    data = (small_cifar10 / "data_batch_1.bin").read_bytes()
    for number, sample in zip(range(50), samples(tmp_path / "out")):
        record = data[3073 * number:][:3073]
        assert int(sample["cls"]) == record[0]
        assert numpy.load(io.BytesIO(sample["npy"])).tobytes() == record[1:]
    assert len(samples(tmp_path / "out", "validation")) == 50
    write(small_cifar10, tmp_path / "jpg", splits=["validation"])
    assert meta(tmp_path / "jpg").image_quality == 95
    assert Image.open(io.BytesIO(samples(tmp_path / "jpg", "validation")[0]["jpg"])).size == (
        32, 32)


@pytest.fixture
def imagenet(tmp_path):
    root = tmp_path / "imagenet"
    for number in range(3):
        for split in ("train", "validation"):
            save(root / split / f"n0000000{number}" / f"{split}{number}.JPEG", picture(number))
    # the picture is 50 x 40
    (root / "imagenet_2012_bounding_boxes.csv").write_text(
        "train0.JPEG,0.2,0.25,0.9,0.75\ntrain2.JPEG,0.0,0.0,0.1,0.1\n")
    return root


def test_imagenet_and_its_boxes(imagenet, tmp_path):
    assert write(imagenet, tmp_path / "out", shuffle=False).data == "imagenet"
    found = [json.loads(s["json"]) if "json" in s else None for s in samples(tmp_path / "out")]
    assert found == [{"bbox": [0.2, 0.25, 0.9, 0.75]}, None, {"bbox": [0.0, 0.0, 0.1, 0.1]}]
    assert meta(tmp_path / "out").boxes is True
    assert not any("json" in sample for sample in samples(tmp_path / "out", "validation"))


def test_boxes_are_where_the_object_is_after_a_crop(imagenet, tmp_path):
    write(imagenet, tmp_path / "out", shuffle=False, train_preprocess_steps=["CenterCrop(20)"])
    first, _, cut_away = samples(tmp_path / "out")
    # columns 15 to 35 and rows 10 to 30 stay; the box is columns 10 to 45, rows 10 to 30
    assert json.loads(first["json"]) == {"bbox": [0.0, 0.0, 1.0, 1.0]}
    assert "json" not in cut_away


def test_coco_and_its_ids(tmp_path):
    for number in (42, 7, 99):
        save(tmp_path / "coco" / f"COCO_val2014_{number:012d}.jpg", picture(number))
    write(tmp_path / "coco", tmp_path / "out", shuffle=False)
    found = samples(tmp_path / "out", "validation")
    assert [json.loads(sample["json"]) for sample in found] == [
        {"image_id": 7}, {"image_id": 42}, {"image_id": 99}]
    assert not any("cls" in sample for sample in found)
    assert not shards(tmp_path / "out", "train")
    found = meta(tmp_path / "out")
    assert (found.image_ids, found.classes, found.lengths["train"]) == (True, (), 0)


def test_a_dataset_that_draws_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr("ipucnn.plugins.datasets._shapes_drawing.DEFAULT_LENGTH", 16)
    write(None, tmp_path, data="shapes", train_preprocess_steps=["Resize(64)"],
          validation_preprocess_steps=["Resize(64)"])
    first, second = (samples(tmp_path, split)[0]["jpg"] for split in ("train", "validation"))
    assert Image.open(io.BytesIO(first)).size == (64, 64)
    assert first != second
    assert len(meta(tmp_path).classes) == 8


def test_a_folder_without_splits_is_trained_on(folder, tmp_path):
    assert list(write(folder / "train", tmp_path).splits) == ["train"]


# -- what is bad -------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Ten images, of which one is empty, one cut short and one no image."""
    root = tmp_path / "damaged"
    for number in range(10):
        save(root / f"c{number // 5}" / f"{number}.jpg", picture(number))
    (root / "c0/3.jpg").write_bytes(b"")
    (root / "c1/6.jpg").write_bytes(b"no image")
    cut = root / "c1/8.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    return root


@pytest.mark.parametrize("size", [{"samples_per_shard": 2}, {"bytes_per_shard": "11K"}])
def test_bad_samples_are_errors_or_counted(damaged, tmp_path, size):
    with pytest.raises(DataError, match=r"(3|6)\.jpg.*--skip-bad-samples"):
        write(damaged, tmp_path / "out", **size)
    assert not (tmp_path / "out/metadata.json").exists()
    made = write(damaged, tmp_path / "out", skip_bad_samples=True, **size)
    assert (made.splits["train"].samples, made.splits["train"].skipped) == (8, 2)
    assert "2 bad ones left out" in made.summary()
    assert len(samples(tmp_path / "out")) == sum(
        shard.samples for shard in meta(tmp_path / "out").shards["train"]) == 8
    again = write(damaged, tmp_path / "out", skip_bad_samples=True, **size)
    assert "nothing to do" in again.summary()
    assert again.splits["train"].skipped == 2


@pytest.mark.parametrize("options", [{"check": True}, {"image_quality": 90},
                                     {"train_preprocess_steps": ["CenterCrop(8)"]}])
def test_decoding_finds_a_file_that_is_cut_short(damaged, tmp_path, options):
    made = write(damaged, tmp_path / "out", skip_bad_samples=True, **options)
    assert made.splits["train"].skipped == 3


def test_nothing_readable_is_no_dataset(damaged, tmp_path):
    for path in damaged.glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the train images"):
        write(damaged, tmp_path / "out", skip_bad_samples=True)


# -- continuing ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [{"samples_per_shard": 2}, {"bytes_per_shard": "11K"}])
def test_what_was_finished_before_an_error_stays(damaged, tmp_path, size):
    good = picture(77)
    with pytest.raises(DataError):
        write(damaged, tmp_path / "out", shuffle=False, workers=1, **size)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert before
    for path in (damaged / "c0/3.jpg", damaged / "c1/6.jpg"):
        path.write_bytes(good)
    (tmp_path / "out/.train-000009.tar.99.partial").write_bytes(b"left by a kill")
    with (tmp_path / "out/.conversion").open("ab") as record:
        record.write(b'{"split": "tra')  # and cut short in the middle of a line
    made = write(damaged, tmp_path / "out", shuffle=False, **size)
    assert 0 < made.splits["train"].found < 10
    assert {path: path.stat().st_mtime_ns for path in before} == before
    write(damaged, tmp_path / "whole", shuffle=False, **size)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_shard_that_has_gone_is_written_again(damaged, tmp_path):
    with pytest.raises(DataError):
        write(damaged, tmp_path / "out", shuffle=False, workers=1, samples_per_shard=1)
    (tmp_path / "out/train-000001.tar").unlink()
    write(damaged, tmp_path / "out", shuffle=False, samples_per_shard=1, skip_bad_samples=True)
    assert len(samples(tmp_path / "out")) == 8


CHANGES = [({"samples_per_shard": 3}, "'--samples-per-shard' was 4 and is 3"),
           ({"seed": 7}, "'--seed' was 0 and is 7"),
           ({"shuffle": False}, "'--shuffle' was True and is False"),
           ({"format": "tensor"}, "'--format' was img and is tensor"),
           ({"bytes_per_shard": "5M"}, "'--bytes-per-shard' was None and is 5000000"),
           ({"train_preprocess_steps": ["Resize(9)"]}, "'--train-preprocess-steps' was"),
           ({"splits": ["train"]}, "the splits were train, validation and are train"),
           ({"data": "real"}, "the source was 'image_folder' and is 'real'")]


@pytest.mark.parametrize(("change", "message"), CHANGES)
@pytest.mark.parametrize("complete", [True, False])
def test_other_options_are_refused_and_named(folder, tmp_path, change, message, complete):
    write(folder, tmp_path, samples_per_shard=4)
    if not complete:
        origin = json.dumps(meta(tmp_path).origin)
        (tmp_path / "metadata.json").unlink()
        (tmp_path / ".conversion").write_text(origin + "\n")
    before = contents(tmp_path)
    with pytest.raises(UsageError) as caught:
        write(folder, tmp_path, **{"samples_per_shard": 4, **change})
    assert message in caught.value.message
    assert contents(tmp_path) == before


def test_another_source_is_refused_and_a_moved_one_is_not(folder, tmp_path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(str(folder), str(source))
    write(source, tmp_path / "out")
    source.rename(tmp_path / "moved")
    source = tmp_path / "moved"
    assert "nothing to do" in write(source, tmp_path / "out").summary()
    (source / "train/c0/0.jpg").rename(source / "train/c0/other.jpg")
    with pytest.raises(UsageError, match="train images of the source have other names"):
        write(source, tmp_path / "out")
    (source / "train/c0/other.jpg").unlink()
    with pytest.raises(UsageError, match="source had 30 train images and has 29"):
        write(source, tmp_path / "out")


def test_other_shards_as_a_source_are_refused_and_moved_ones_are_not(folder, tmp_path):
    for seed in (0, 1):
        write(folder, tmp_path / str(seed), seed=seed)
    write(tmp_path / "0", tmp_path / "out")
    (tmp_path / "0").rename(tmp_path / "moved")
    assert "nothing to do" in write(tmp_path / "moved", tmp_path / "out").summary()
    with pytest.raises(UsageError, match="train images of the source"):
        write(tmp_path / "1", tmp_path / "out")


def test_a_complete_target_that_lacks_a_shard_is_named(folder, tmp_path):
    write(folder, tmp_path)
    (tmp_path / "train-000000.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"train-000000\.tar' is missing or has another size"):
        write(folder, tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "train-000000.tar", ".hidden"])
def test_a_target_with_other_things_is_left_alone(folder, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="is not empty: it holds"):
        write(folder, tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_dataset_of_another_tool_is_left_alone(folder, tmp_path):
    (tmp_path / "metadata.json").write_text(
        '{"train_length": 1, "validation_length": 0, "format": "img"}')
    with pytest.raises(UsageError, match="holds another dataset: it was made otherwise"):
        write(folder, tmp_path)
    assert os.listdir(tmp_path) == ["metadata.json"]


def test_two_processes_do_not_write_to_one_target(folder, tmp_path):
    from filelock import FileLock

    with FileLock(str(tmp_path / ".conversion.lock")), \
            pytest.raises(UsageError, match="another process is writing"):
        write(folder, tmp_path)
