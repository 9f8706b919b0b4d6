"""Trainings and runs from Python: values, results, progress, callbacks, threads and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy
import pytest

import ipucnn
from ipucnn.core.progress import Status


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def options(training, photos, tmp_path):
    return {**training, "data_dir": photos, "epoch": 3, "checkpoint_path": tmp_path / "checkpoints",
            "checkpoint_save_freq": 3}


def test_numbers_of_numpy_and_paths_are_values(photos, trained, tmp_path):
    result = ipucnn.run(
        weights=trained, backend="torch", data="image_folder", data_dir=photos / "validation",
        batch_size=numpy.int64(2), seed=numpy.uint32(3), time_limit=numpy.float32(99),
        eight_bit_io=numpy.bool_(True), result=tmp_path / "result.json", progress=False)
    assert (result.plan["micro_batch"], result.options["seed"]) == (2, 3)
    assert json.loads((tmp_path / "result.json").read_text())["images"] == 16
    plan = ipucnn.plan(model="resnet50", batch_size=numpy.array(4), lr_schedule="step",
                       lr_epoch_decay=numpy.array([30, 60]))
    assert plan.options.as_dict()["lr_epoch_decay"] == [30, 60]
    with pytest.raises(ipucnn.IpucnnError, match=r"2\.5 is not a whole number"):
        ipucnn.plan(batch_size=numpy.float64(2.5))


def test_threads_run_side_by_side(photos, trained):
    found = []

    def run():
        found.append(ipucnn.run(weights=trained, backend="torch", data_dir=photos).images)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [16, 16]  # the validation images


def test_callbacks_receive_rows_and_may_end_the_training(options):
    rows, others = [], []

    def stop_after_one(row):
        rows.append(row)
        return numpy.bool_(row["kind"] == "epoch")

    result = ipucnn.train(**options, callbacks=[stop_after_one, others.append])
    assert (result.stopped_by, result.epochs) == ("callback", 1)
    assert [row["kind"] for row in rows] == ["train", "epoch"]
    assert rows == others == result.history
    assert os.path.exists(result.checkpoint)

    def stop(_row):
        raise ipucnn.StopTraining

    again = ipucnn.restore(options["checkpoint_path"], callbacks=stop, progress=False)
    assert (again.stopped_by, again.epochs, again.restored) == ("callback", 2, result.checkpoint)


def test_an_exception_of_a_callback_is_raised_once_the_checkpoint_is_saved(options):
    def fail(row):
        raise ValueError(f"mine, at {row['kind']}")

    with pytest.raises(ValueError, match="mine, at train"):
        ipucnn.train(**options, callbacks=fail)
    assert [path.name for path in options["checkpoint_path"].glob("*.pt")] == [
        "resnet8-cifar_image_folder_2.step4.pt"]


@pytest.mark.parametrize(("place", "error"), [
    ("callbacks", KeyboardInterrupt()), ("callbacks", SystemExit(3)),
    ("progress", ValueError("mine"))])
def test_a_checkpoint_is_saved_before_any_exception_is_raised_again(place, error, options):
    def fail(given):
        if getattr(given, "phase", "training") == "training":
            raise error

    with pytest.raises(type(error)) as raised:
        ipucnn.train(**{**options, place: fail})
    assert raised.value is error
    assert list(options["checkpoint_path"].glob("*.pt"))


def test_an_error_of_ipucnn_in_a_callback_has_the_result_so_far(options):
    def fail(_row):
        raise ipucnn.IpucnnError("mine")

    with pytest.raises(ipucnn.IpucnnError, match="mine") as raised:
        ipucnn.train(**options, callbacks=fail)
    assert os.path.exists(raised.value.partial.checkpoint)


def test_progress_may_stop_a_training(options):
    def stop(status):
        if status.phase == "training":
            raise ipucnn.StopTraining

    result = ipucnn.train(**{**options, "progress": stop}, callbacks=None)
    assert result.stopped_by == "callback"
    assert os.path.exists(result.checkpoint)
    with pytest.raises(ipucnn.IpucnnError, match="callback 3 cannot be called"):
        ipucnn.train(**options, callbacks=3)


def test_a_callback_that_sees_a_validation_ends_the_training_there(options):
    def stop_at_validation(row):
        return row["kind"] == "validation"

    result = ipucnn.train(**{**options, "validation_mode": "during", "validation_frequency": 1},
                          callbacks=stop_at_validation)
    assert (result.stopped_by, result.epochs, len(result.validations)) == ("callback", 1, 1)
    # between the epochs of "checkpoint_save_freq": it makes way for the next
    assert result.checkpoint.endswith("_2.step4.pt")


@pytest.mark.parametrize(("stop", "expected"), [(0, [True, True, False]), (1, [True])])
def test_images_of_the_next_epoch_are_prepared_during_a_validation(options, stop, expected):
    found = []

    def threads_that_decode():
        return [thread for thread in threading.enumerate() if thread.name.startswith(
            "ipucnn-decode")]

    def note(row):
        if row["kind"] == "validation":
            found.append(bool(threads_that_decode()))
            return len(found) == stop
        return False

    ipucnn.train(**{**options, "validation_mode": "during", "validation_frequency": 1},
                 callbacks=note)
    assert found == expected
    assert not threads_that_decode()


def test_ctrl_c_returns_what_was_done(options, photos, trained):
    before = signal.getsignal(signal.SIGINT)
    result = ipucnn.train(**options, callbacks=lambda row: row["kind"] == "epoch" and interrupt())
    assert (result.stopped_by, result.epochs) == ("SIGINT", 1)
    assert os.path.exists(result.checkpoint)

    def at_four(status):
        if status.phase == "run" and status.done == 4:
            interrupt()

    run = ipucnn.run(weights=trained, backend="torch", data_dir=photos, batch_size=1,
                     progress=at_four)
    assert (run.stopped_by, run.images) == ("SIGINT", 4)
    found = ipucnn.validate(trained, progress=lambda status: interrupt())
    assert (found.stopped_by, list(found)) == ("SIGINT", [])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_raises(options):
    def twice(_row):
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        ipucnn.train(**options, callbacks=twice)


def test_progress_is_given_to_a_function_or_shown_on_request(options, photos, trained, capfd):
    seen = []
    ipucnn.run(weights=trained, backend="torch", data_dir=photos, progress=seen.append)
    assert all(isinstance(status, Status) for status in seen)
    assert (seen[0].phase, seen[-1].done, seen[-1].total) == ("compile", 16, 16)
    short = {**options, "epoch": 1}
    ipucnn.train(**{**short, "progress": seen.append})
    assert (seen[-1].phase, seen[-1].epochs) == ("training", 1)
    assert capfd.readouterr().out == ""
    ipucnn.train(**{**short, "progress": "auto", "checkpoint_path": None, "log_dir": "log"})
    assert "Epoch" not in "".join(capfd.readouterr())  # no terminal
    ipucnn.train(**{**short, "progress": True, "checkpoint_path": None, "log_dir": "log"})
    out, err = capfd.readouterr()
    assert out == ""
    assert "Epoch 1: Train accuracy" in err


class _Log:
    def write(self, text):
        """Receive text, as from a program that writes it to a log."""


@pytest.mark.parametrize("stream", ["none", "log", "closed"])
@pytest.mark.parametrize("progress", ["auto", True])
def test_a_program_may_replace_standard_error(stream, progress, trained, photos, monkeypatch):
    monkeypatch.setattr("ipucnn.terminal.signals._pending", "")  # other tests send signals
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", {"none": None, "log": _Log(), "closed": closed}[stream])
    assert ipucnn.validate(trained, data_dir=photos, progress=progress)
    assert ipucnn.run(weights=trained, backend="torch", data_dir=photos, progress=progress).images


def test_results_are_tables_html_and_data_frames(photos, trained, tmp_path):
    pandas = pytest.importorskip("pandas")
    assert pandas
    run = ipucnn.run(weights=trained, backend="torch", data="image_folder",
                     data_dir=photos / "validation")
    assert "accuracy" in repr(run)
    assert "the first 10 of 16 images" in str(run)
    assert "<caption>the first 10 of 16 images</caption>" in run._repr_html_()
    frame = run.to_dataframe()
    assert (len(frame), list(frame.columns)[:2]) == (10, ["path", "class"])
    scores = ipucnn.validate(trained, data_dir=photos)
    assert scores.to_dataframe()["images"].tolist() == [16]
    assert len(scores[0].to_dataframe()) == 8
    assert "resnet8-cifar_image_folder_1.pt" in repr(scores)
    averaged = ipucnn.average(trained, checkpoint_output_path=tmp_path / "averaged.pt")
    assert "averaged.pt" in str(averaged)
    with ipucnn.load(trained, backend="torch") as model:
        answers = model.predict(photos / "validation", top_k=2)
        assert list(answers.to_dataframe().columns) == [
            "path", "class_1", "name_1", "probability_1", "class_2", "name_2", "probability_2"]
        assert len(answers[0].to_dataframe()) == 2
        assert len(model.to_dataframe()) == 8
    assert "<td>python</td>" in ipucnn.doctor()._repr_html_()


def test_html_escapes_what_a_file_name_may_be(trained, photos, tmp_path):
    place = tmp_path / "<b>bold.jpg"
    place.write_bytes(next((photos / "validation" / "bar").iterdir()).read_bytes())
    html = ipucnn.run(weights=trained, backend="torch", data_dir=tmp_path)._repr_html_()
    assert "&lt;b&gt;bold.jpg" in html
    assert "<b>" not in html


def test_a_result_names_its_own_weights_though_a_copy_was_exported_before(trained, photos):
    pytest.importorskip("onnxruntime")
    for place in ("first", "second"):  # the second run uses the graph that the first one stored
        shutil.copytree(trained, place)
        result = ipucnn.run(weights=place, data_dir=photos, backend="onnxruntime", progress=False)
        (file,) = (str(path) for path in Path(place).glob("*.pt"))
        assert (result.weights["source"], result.weights["path"]) == (file, file)
        assert result.card["provenance"]["weights"] == file


def test_paths_may_begin_with_the_home_folder(trained, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ipucnn.shapes("~/photos", per_class=1, size=16) == 8
    assert ipucnn.verify("~/photos").ok
    assert len(ipucnn.load_dataset("image_folder", "~/photos")) == 8
    assert ipucnn.partition("~/photos", 2, "~/parts").sizes == [4, 4]
    shutil.copytree(trained, tmp_path / "home" / "trained")
    assert ipucnn.report("~/trained", "~/page.html") == tmp_path / "home" / "page.html"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_the_tools_for_data_return_what_they_did(photos, tmp_path):
    parts = ipucnn.partition(photos / "train", numpy.int64(2), tmp_path / "parts")
    assert parts.sizes == [16, 16]
    assert "2 partitions of 16 images" in repr(parts)
    shards = ipucnn.convert(photos, tmp_path / "shards", progress=False)
    assert (shards.splits["train"].samples, len(shards.records())) == (32, 2)
    assert ipucnn.verify(tmp_path / "shards").ok
    broken = tmp_path / "parts" / "0" / "bar"
    damaged = next(broken.iterdir())
    damaged.unlink()  # it is a link to one of the photographs
    damaged.write_bytes(b"")
    found = ipucnn.verify(tmp_path / "parts" / "0", data="image_folder")
    assert not found.ok
    assert "is empty" in str(found)


@pytest.mark.parametrize("job", ["run", "validate"])
def test_a_report_that_fails_loses_neither_the_file_nor_the_result(job, photos, trained, tmp_path,
                                                                   monkeypatch):
    def failing(*_):
        raise ipucnn.IpucnnError("the disk is full")

    monkeypatch.setattr("ipucnn.reports.job.of_document", failing)
    files = {"result": tmp_path / "r.json", "report": tmp_path / "r.html"}
    place = {"weights": trained, "backend": "torch"} if job == "run" else {
        "checkpoint_path": trained}
    with pytest.raises(ipucnn.IpucnnError, match="the disk is full") as raised:
        getattr(ipucnn, job)(**place, data_dir=photos, **files)
    assert json.loads((tmp_path / "r.json").read_text())["format"] == f"ipucnn.{job}/1"
    assert raised.value.partial.as_dict()["format"] == f"ipucnn.{job}/1"
