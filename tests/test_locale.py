"""Names with accents in a locale whose encoding of file names is ASCII."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ipucnn.core import files

pytest.importorskip("PIL")

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LABELS = ("rot", "gr\u00fcn")
SMALL = ("--model", "resnet8-cifar", "--backend", "torch", "--progress", "off")


def ascii_process(folder, *arguments):
    found = subprocess.run(
        [sys.executable, "-m", "ipucnn", *(os.fsencode(word) for word in arguments)],
        cwd=str(folder), capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **ASCII})
    assert "Traceback" not in found.stderr
    return found


def images(folder, *names):
    from PIL import Image

    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (9 * number, 255 - 9 * number, 0)).save(str(path))


def test_plots_and_bars_are_drawn_in_any_encoding(tmp_path):
    for arguments in (("show", "cosine", "--plot"), ("plan", "--model", "resnet8-cifar")):
        found = ascii_process(tmp_path, *arguments)
        assert found.returncode == 0, found.stderr
        assert "\\u" not in found.stdout
        assert "\\x" not in found.stdout


@pytest.fixture
def _ascii_names():
    """Skip where the encoding of file names is UTF-8 in every locale."""
    code = "import sys; print(sys.getfilesystemencoding())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           env={**os.environ, **ASCII}, check=True)
    if found.stdout.strip().lower().startswith("utf"):
        pytest.skip("file names are UTF-8 in every locale here")


@pytest.mark.usefixtures("_ascii_names")
def test_a_training_holds_out_images_of_classes_with_accents(tmp_path):
    images(tmp_path / "f\u00fcnf", *(f"{name}/{number}.png" for name in ("gr\u00fcn", "rot")
                                     for number in range(4)))
    # the folder comes from a text file
    (tmp_path / "p.yaml").write_text("data_dir: f\u00fcnf\ncheckpoint_path: ck\nepoch: 1\n",
                                     encoding="utf-8")
    found = ascii_process(tmp_path, "train", *SMALL, "--config", "p.yaml", "--batch-size", "2")
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "ck" / "best.json").read_text())
    found = ascii_process(tmp_path, "restore", "--checkpoint-path", "ck", "--epoch", "2",
                          "--progress", "off")
    assert found.returncode == 0, found.stderr
    assert "is the same as before: 6 images" in found.stderr


@pytest.mark.usefixtures("_ascii_names")
def test_files_of_labels_and_annotations_name_images_with_accents(tmp_path):
    images(tmp_path / "listed", *(f"\u00e4{number}.png" for number in range(4)))
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(
        f"\u00e4{number}.png,{LABELS[number % 2]}\n" for number in range(4)),
        encoding="utf-8")
    found = ascii_process(tmp_path, "train", *SMALL, "--data-dir", "listed", "--labels", "l.csv",
                          "--batch-size", "2", "--epoch", "1", "--checkpoint-path", "ck")
    assert found.returncode == 0, found.stderr

    images(tmp_path / "coco" / "val2017", "\u00fc1.png")
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(
        {"images": [{"file_name": "\u00fc1.png", "id": 1}]}))
    found = ascii_process(tmp_path, "data", "verify", "coco")
    assert (found.returncode, found.stdout) == (0, "coco: no problem found\n")


def test_native_path(monkeypatch):
    assert files.native_path("f\u00fcnf") == "f\u00fcnf"

    def encode(path):
        return path.encode("ascii", "surrogateescape")

    monkeypatch.setattr(files.sys, "getfilesystemencoding", lambda: "ascii")
    monkeypatch.setattr(files.os, "fsencode", encode)
    monkeypatch.setattr(files.os, "fsdecode", lambda path: path.decode("ascii", "surrogateescape"))
    assert files.native_path("f\u00fcnf") == "f\udcc3\udcbcnf"
    assert files.native_path("f\udcc3\udcbcnf") == "f\udcc3\udcbcnf"
    assert files.native_path("\ud800") == "\ud800"
    assert files.name_bytes("f\u00fcnf") == files.name_bytes("f\udcc3\udcbcnf") == b"f\xc3\xbcnf"
