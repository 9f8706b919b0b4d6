"""A FIFO in the place of a file is named, not waited for."""

from __future__ import annotations

import errno
import os

import pytest
from PIL import Image

from ipucnn.__main__ import invoke

RUN = ["run", "--model", "resnet8-cifar", "--weights", "random", "--backend", "torch",
       "--progress", "off", "--data-dir", "d"]
TRAIN = ["train", *RUN[1:], "--no-checkpoints"]


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "d" / name / "1.png")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("place", "argv", "expected"), [
    ("p.yaml", ["run", "--config", "p.yaml"], "cannot read profile 'p.yaml': it is a FIFO"),
    ("p.yaml", ["config", "show", "p.yaml"], "cannot read profile 'p.yaml': it is a FIFO"),
    ("m.onnx", ["run", "--onnx", "m.onnx", "--data-dir", "d"], "'m.onnx'"),
    ("m.safetensors", [*RUN, "--weights", "m.safetensors"], "weights 'm.safetensors' are a FIFO"),
    ("l.csv", [*TRAIN, "--labels", "l.csv"], "'l.csv': it is a fifo"),
    ("s/metadata.json", ["data", "verify", "s"], "metadata.json': it is a fifo"),
    ("r.json", [*RUN, "--iterations", "1", "--result", "r.json"], "'r.json': it is a FIFO"),
])
def test_a_pipe_is_named(place, argv, expected, tmp_path, capfd):
    made = tmp_path / place
    made.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(str(made))
    code = invoke(argv)
    output = "".join(capfd.readouterr())
    assert code in (1, 2), output
    assert expected in output
    assert made.is_fifo()


@pytest.mark.parametrize("argv", [
    ["export", "--model", "resnet8-cifar", "--target", "torch", "--output", "file/x.onnx"],
    ["explain", "none.jpg", "--out", "file/x.png"],
    ["data", "show", "nowhere", "--out", "file/x.html"]])
def test_a_place_to_write_is_checked_before_the_work(argv, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert invoke(argv) == 1
    assert f"cannot write '{argv[-1]}': '{tmp_path / 'file'}' is not a folder" \
        in capfd.readouterr().err


@pytest.mark.parametrize("place", ["x" * 300, "x" * 240, f"none/{'x' * 300}/r"])
@pytest.mark.parametrize("option", ["--result", "--report", "--predictions"])
def test_a_name_that_is_too_long_is_reported_before_the_work(option, place, capfd, monkeypatch):
    monkeypatch.setattr("ipucnn.inference.job.session_of", None)
    suffix = {"--result": ".json", "--report": ".html", "--predictions": ".csv"}[option]
    assert invoke([*RUN, option, place + suffix]) == 2
    assert " is too long for a file\n" in capfd.readouterr().err
    assert os.listdir(".") == ["d"]


def test_a_name_that_is_too_long_is_one_line(capfd):
    assert invoke(["validate", "--checkpoint-path", "x" * 300]) in (1, 2)
    output = capfd.readouterr().err
    assert "error: " in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("number", "hint"), [
    (errno.EACCES, "grant permission"), (errno.EROFS, "grant permission"), (errno.EIO, "the disk"),
    (errno.ESTALE, "the network file system"), (errno.EMFILE, "'ulimit -n'"),
    (errno.ENOSPC, "free disk space")])
def test_failures_of_the_system_are_no_bugs(number, hint, capfd, monkeypatch):
    def failing(*_):
        raise OSError(number, os.strerror(number), b"d/a")

    monkeypatch.setattr("ipucnn.inference.job.session_of", failing)
    assert invoke([*RUN, "--iterations", "1"]) == 1
    output = capfd.readouterr().err
    assert f"error: cannot use 'd/a': {os.strerror(number)}\nhint: " in output
    assert hint in output
    assert "Traceback" not in output
