"""`ipucnn data convert` as a process: interrupted, killed, on a full disk, with wrong options."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from PIL import Image

from ipucnn.__main__ import invoke

DOCS = Path(__file__).resolve().parents[2] / "docs"
IMAGES = 120


def convert(*argv, **options):
    return subprocess.Popen([sys.executable, "-m", "ipucnn", "data", "convert", *map(str, argv)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, **options)


def finished(process):
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def cli(capsys):
    def run(*argv):
        code = invoke(["data", "convert", *(str(word) for word in argv)])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Ten classes of links to one photograph, which takes a while to encode."""
    root = tmp_path_factory.mktemp("source")
    noise = numpy.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=numpy.uint8)
    photo = root.parent / "photo.jpg"
    Image.fromarray(noise).resize((500, 375)).save(str(photo))
    for number in range(IMAGES):
        folder = root / "train" / f"c{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(str(photo), str(folder / f"{number}.jpg"))
    (root / "validation/c3").mkdir(parents=True)
    os.link(str(photo), str(root / "validation/c3/a.jpg"))
    return root


def slow(source, target):
    return ("--source", source, "--target", target, "--image-quality", 90, "--workers", 2)


@pytest.fixture(scope="module")
def uninterrupted(source, tmp_path_factory):
    """The result of an uninterrupted conversion, by its further options."""
    made = {}

    def run(*options):
        if options not in made:
            target = tmp_path_factory.mktemp("whole")
            code, _, err = finished(convert(*slow(source, target), *options))
            assert code == 0, err
            made[options] = contents(target)
        return made[options]

    return run


def until_two_shards(process, target):
    deadline = time.monotonic() + 60
    while not (target / ".conversion").exists() or (
            (target / ".conversion").read_bytes().count(b"\n") < 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


SIZES = [("--samples-per-shard", "10"), ("--bytes-per-shard", "1M")]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size[0])
def test_a_killed_conversion_continues_and_no_byte_differs(source, uninterrupted, tmp_path, size):
    process = convert(*slow(source, tmp_path), *size)
    until_two_shards(process, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "metadata.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    code, out, err = finished(convert(*slow(source, tmp_path), *size, "--json"))
    assert code == 0, err
    found = json.loads(out)["splits"]["train"]["found"]
    assert 20 <= found < IMAGES
    recorded = [path for path, written in kept.items() if path.stat().st_mtime_ns == written]
    assert len(recorded) >= 2
    assert contents(tmp_path) == uninterrupted(*size)


def test_ctrl_c_prints_how_to_continue(source, uninterrupted, tmp_path):
    size = SIZES[0]
    process = convert(*slow(source, tmp_path), *size)
    until_two_shards(process, tmp_path)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert (code, out) == (130, "")
    assert "run the same command again to continue\ninterrupted" in err
    assert not list(tmp_path.glob(".*.partial"))
    code, _, err = finished(convert(*slow(source, tmp_path), *size))
    assert code == 0, err
    assert contents(tmp_path) == uninterrupted(*size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size[0])
def test_a_full_disk_loses_nothing(source, uninterrupted, tmp_path, size):
    """The larger shards do not fit, the small one of the validation does."""
    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    code, out, err = finished(convert(*slow(source, tmp_path), *size, preexec_fn=small_disk))
    assert (code, out) == (1, "")
    assert re.search(rf"error: cannot write '{tmp_path}/train-00000\d\.tar': file too large", err)
    assert "free disk space" in err
    assert "continues" in err
    assert not list(tmp_path.glob(".*.partial"))
    code, _, err = finished(convert(*slow(source, tmp_path), *size))
    assert code == 0, err
    assert contents(tmp_path) == uninterrupted(*size)


def test_a_disk_without_room_for_the_record_is_named(source, tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    code, _, err = finished(convert(*slow(source, tmp_path), preexec_fn=full))
    assert code == 1
    assert ".conversion': file too large" in err
    assert finished(convert("--source", source, "--target", tmp_path))[0] == 0


def test_the_library_reads_what_was_made(source, tmp_path):
    assert finished(convert("--source", source, "--target", tmp_path))[0] == 0
    program = ("import sys, webdataset; print(sum(len(s['jpg']) > 0 and s['cls'].isdigit() for s in"
               " webdataset.WebDataset(sys.argv[1:], shardshuffle=False)))")
    counted = subprocess.check_output([sys.executable, "-c", program,
                                       *map(str, tmp_path.glob("train-*.tar"))])
    assert int(counted) == IMAGES


def test_results(cli, source, tmp_path):
    target = tmp_path / "out"
    code, out, err = cli("--source", source, "--target", target, "--samples-per-shard", 50)
    assert (code, err) == (0, "")
    assert out.startswith(f"train: {IMAGES} samples in 3 shards, ")
    assert "validation: 1 samples in 1 shards" in out
    assert re.search(r"out: \d+\.\d s, \d+\.\d images/s\n$", out)
    code, out, _ = cli("--source", f"{source}/", "--target", target, "--samples-per-shard", 50)
    assert (code, out.splitlines()[-1]) == (0, f"{target} is complete: nothing to do")
    code, out, _ = cli("--source", source, "--target", target, "--samples-per-shard", 50, "--json")
    result = json.loads(out)
    assert result["splits"]["train"] == {
        "shards": 3, "samples": IMAGES, "skipped": 0, "found": IMAGES,
        "bytes": sum(path.stat().st_size for path in target.glob("train-*"))}
    assert (result["data"], result["to"], result["images_per_second"]) == (
        "image_folder", "webdataset", None)


def test_the_old_spellings_of_lists(cli, source, tmp_path):
    code, _, err = cli("--source", source, "--target", tmp_path, "--format", "tensor",
                       "--splits", "validation",
                       "--validation-preprocess-steps", "Resize(20)", "CenterCrop(16)")
    assert code == 0, err
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["validation_transform_pipeline"] == ["Resize(20)", "CenterCrop(16)"]
    assert metadata["train_length"] == 0


WRONG = [
    (["--train-preprocess-steps", "Resize(9)", "Flip(3)"], "'--train-preprocess-steps': 'Flip(3)'"),
    (["--train-preprocess-steps", "Resize(0)"], "'Resize(0)' is not a step"),
    (["--validation-preprocess-steps", "Resize(a)"], "'Resize(a)' is not a step"),
    (["--bytes-per-shard", "100X"], "'--bytes-per-shard': '100X' is not a number of bytes"),
    (["--bytes-per-shard", "0"], "'--bytes-per-shard': '0' is too small"),
    (["--samples-per-shard", "0"], "'0' is too small"),
    (["--image-quality", "101"], "'101' is too large"),
    (["--format", "jpeg"], "'jpeg' is not one of its values"),
    (["--format", "tensor", "--image-quality", "90"], "has no effect with '--format tensor'"),
    (["--to", "coco"], "nothing can be converted into 'coco'"),
    (["--data", "synthetic"], "'synthetic' has no images on the host"),
    (["--data", "shapes"], "'shapes' reads no folder"),
    (["--splits", "test"], "'test' is not one of its values"),
    (["--annotations", "x.json"], "'--annotations' is an option of dataset coco; "
     "this is dataset image_folder"),
    (["--data", "real", "--splits", "train", "validation"], "'real' has no splits"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_usage_is_named_and_nothing_is_made(cli, source, tmp_path, options, message):
    code, out, err = cli("--source", source, "--target", tmp_path / "out", *options)
    assert (code, out) == (2, ""), err
    assert message in err
    assert "hint:" in err
    assert os.listdir(tmp_path) == []


def test_what_is_missing_is_named(cli, source, tmp_path):
    assert "'--target' is missing" in cli("--source", source)[2]
    assert "there is nothing to convert" in cli("--target", tmp_path)[2]
    assert "'imagenet' needs a folder" in cli("--target", tmp_path, "--data", "imagenet")[2]
    code, _, err = cli("--target", tmp_path / "out", "--source", tmp_path / "no")
    assert code == 1
    assert "no' does not exist" in err
    code, _, err = cli("--target", tmp_path / "out", "--source", source / "train",
                       "--splits", "validation")
    assert code == 1
    assert "there are no validation images" in err
    assert "--splits" in err


@pytest.mark.parametrize(("target", "within"), [("out", "source"), (".", "source"),
                                                ("..", "source")])
def test_source_and_target_do_not_lie_in_each_other(cli, source, target, within):
    before = sorted(os.listdir(source))
    code, _, err = cli("--source", source, "--target", source / target)
    assert code == 2
    assert "overlap: one contains the other" in err
    assert sorted(os.listdir(source)) == before


def test_splits_of_different_classes_are_refused(cli, tmp_path):
    for name in ("train/a", "train/b", "validation/a", "validation/c"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(str(tmp_path / "in" / name / "1.png"))
    code, _, err = cli("--source", tmp_path / "in", "--target", tmp_path / "out")
    assert code == 1
    assert "validation/c' is none of the 2 classes" in err
    assert not (tmp_path / "out").exists()


def test_an_unreadable_validation_is_not_passed_over(cli, source, tmp_path):
    (tmp_path / "in/train/a").mkdir(parents=True)
    (tmp_path / "in/validation/a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(str(tmp_path / "in/train/a/1.png"))
    code, _, err = cli("--source", tmp_path / "in", "--target", tmp_path / "out")
    assert code == 1
    assert "validation/a' has no images" in err


@pytest.fixture
def imagenet_and_coco(tmp_path, monkeypatch):
    """Both in the working directory, under the names that the documentation gives them."""
    for split in ("train", "validation"):
        for number in range(3):
            folder = tmp_path / "imagenet" / split / f"n0000000{number}"
            folder.mkdir(parents=True)
            Image.new("RGB", (50, 40)).save(str(folder / f"{number}.JPEG"))
    (tmp_path / "coco/val2014").mkdir(parents=True)
    Image.new("RGB", (50, 40)).save(str(tmp_path / "coco/val2014/COCO_val2014_000000000042.jpg"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", [
    line for page in DOCS.rglob("*.md") for line in page.read_text().splitlines()
    if line.startswith("ipucnn data convert ")])
def test_documented_conversions_can_be_made(imagenet_and_coco, line, capsys):
    words = shlex.split(line)[1:]
    assert invoke(words) == 0, capsys.readouterr().err
    target = Path(words[words.index("--target") + 1])
    assert json.loads((target / "metadata.json").read_text())["validation_length"] > 0
