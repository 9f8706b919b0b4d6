"""Options that name files to write: two of them never name the same file."""

import os

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.inference.options import RunResults
from ipucnn.training.options.stored_options import ValidationResults


@pytest.mark.parametrize(("part", "flags"), [
    (RunResults, ("result", "predictions")), (RunResults, ("predictions", "report")),
    (ValidationResults, ("confusion_matrix", "result"))])
def test_two_results_are_not_written_to_one_file(part, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for places in (("a.json", "a.json"), ("a.json", str(tmp_path / "a.json"))):
        with pytest.raises(UsageError, match="write the same file"):
            part(**dict(zip(flags, places)))
    part(**dict(zip(flags, ("a.json", "b.json"))))
    part(**dict(zip(flags, (os.devnull, os.devnull))))


@pytest.mark.parametrize(("command", "reader"), [
    (("run", "--onnx", "file", "--result"), "--onnx"),
    (("run", "--weights", "random", "--data-dir", "file", "--report"), "--data-dir"),
    (("run", "--weights", "random", "--data", "image_folder", "--data-dir", ".", "--labels",
      "link.csv", "--predictions"), "--labels"),
    (("validate", "--checkpoint-path", "file", "--result"), "--checkpoint-path")])
def test_a_file_that_is_read_is_not_overwritten(command, reader, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link.csv").symlink_to("file")
    place = "link.csv" if reader == "--labels" else "./file"
    done = cli(*command, place)
    assert done.code == 2
    assert f"would overwrite '{place}', which '{reader}' reads" in done.err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(("place", "reason"), [
    ("folder", "it is a folder"), ("file/x.html", "is not a folder")])
@pytest.mark.parametrize("command", [
    ("run", "--model", "resnet8-cifar", "--weights", "random", "--predictions", "p.csv",
     "--report"),
    ("train", "--model", "resnet8-cifar", "--data", "shapes", "--result"),
    ("bench", "--model", "resnet8-cifar", "--out"),
    ("data", "bench", "--data", "shapes", "--result")])
def test_a_place_that_cannot_be_written_is_an_error_before_the_job(
        command, place, reason, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = cli(*command, place)
    assert done.code != 0
    assert f"cannot write '{place}': " in done.err
    assert reason in done.err
    assert done.out == ""
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
