"""The loggers of a training: what they receive, and that none of them can end it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import ipucnn
from ipucnn.core.errors import IpucnnError
from ipucnn.core.loggers import Logger, RunInfo
from ipucnn.core.options.building import build
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.plugins.loggers.files import FilesLogger
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup import preparation
from ipucnn.training.setup.run_loggers import Loggers, make_loggers


class Recorder(Logger):
    """Keeps what it receives; raises in the method that is named."""

    def __init__(self, name="recorder", fails="", error=RuntimeError):
        self.name, self.fails, self.error = name, fails, error
        self.calls = []

    def _call(self, method, *given):
        self.calls.append((method, *given))
        if method == self.fails:
            raise self.error("no network\nat all")

    def start(self, run):
        self._call("start", run)

    def row(self, row):
        self._call("row", row)
        if "loss" not in row:
            return f"{self.name} needs a loss"

    def checkpoint(self, path, epoch, update):
        self._call("checkpoint", path.name, epoch, update)

    def best(self, figures):
        self._call("best", figures)

    def finish(self, status, result):
        self._call("finish", status, result)

    @property
    def methods(self):
        return [call[0] for call in self.calls]


def calls(loggers, run):
    loggers.start(run)
    loggers.row({"loss": 1.0})
    loggers.row({"loss": 0.5})
    loggers.checkpoint(run.folder / "x.pt", 1, 10)
    loggers.best({"metric": "loss"})
    loggers.finish("completed", {"epochs": 1})


ALL = ["start", "row", "row", "checkpoint", "best", "finish"]


@pytest.mark.parametrize(("fails", "error"), [
    *((fails, error) for fails in ("row", "checkpoint", "best")
      for error in (RuntimeError, SystemExit, IpucnnError)),
    ("finish", RuntimeError), ("finish", SystemExit)])
def test_one_that_raises_is_reported_once_and_switched_off(tmp_path, fails, error):
    notes, broken, sound = [], Recorder("broken", fails, error), Recorder()
    calls(Loggers([broken, sound], notes.append), RunInfo({}, tmp_path))
    assert sound.methods == ALL
    assert broken.methods == ALL[:ALL.index(fails) + 1]
    (note,) = notes
    assert note.startswith("logger 'broken' could not ")
    assert f"and is switched off: {error.__name__}: no network" in note
    assert "\n" not in note


def test_an_error_of_the_end_is_one_of_the_training(tmp_path):
    notes, broken, sound = [], Recorder("broken", "finish", IpucnnError), Recorder()
    loggers = Loggers([broken, sound], notes.append)
    loggers.start(RunInfo({}, tmp_path))
    assert "no network" in loggers.finish("completed", {}).message
    assert sound.methods == ["start", "finish"]
    assert notes == []


def test_one_that_cannot_start_is_switched_off(tmp_path):
    notes, broken, sound = [], Recorder("", "start"), Recorder()
    calls(Loggers([broken, sound], notes.append), RunInfo({}, tmp_path))
    assert (broken.methods, sound.methods) == (["start"], ALL)
    assert notes == ["logger 'Recorder' could not start and is switched off: "
                     "RuntimeError: no network"]


def test_one_may_refuse_the_training_before_it_begins(tmp_path):
    first, second = Recorder(), Recorder("second", "start", IpucnnError)
    loggers = Loggers([first, second, Recorder()], print)
    with pytest.raises(IpucnnError, match="no network"):
        loggers.start(RunInfo({}, tmp_path))
    assert first.methods == ["start", "finish"]
    assert first.calls[-1][1:] == ("failed", {})


def test_an_interrupt_is_not_an_error_of_the_logger(tmp_path):
    loggers = Loggers([Recorder("one", "row", KeyboardInterrupt)], print)
    loggers.start(RunInfo({}, tmp_path))
    with pytest.raises(KeyboardInterrupt):
        loggers.row({})


def test_notes_of_all_are_reported_and_rows_are_their_own(tmp_path):
    class Greedy(Recorder):
        def row(self, row):
            note = super().row(row)
            row.clear()
            return note

    notes, row = [], {"epoch": 1.0}
    one, two = Greedy("one"), Recorder("two")
    loggers = Loggers([one, two], notes.append)
    loggers.start(RunInfo({}, tmp_path))
    loggers.row(row)
    assert notes == ["one needs a loss", "two needs a loss"]
    assert two.calls[-1] == ("row", {"epoch": 1.0})
    assert row == {"epoch": 1.0}


# -- in a training -----------------------------------------------------------------------------

TINY = {"model": "resnet8-cifar", "data": "image_folder", "data_dir": "pictures",
        "input_size": 16, "precision": "full", "dataloader_worker": 1,
        "batch_size": 4, "iterations": 2, "epoch": 2, "lr": 0.01, "backend": "torch",
        "validation_mode": "during", "validation_frequency": 1}


@pytest.fixture
def record(monkeypatch, tmp_path):
    """Train with these loggers in place of those of the options."""
    monkeypatch.chdir(tmp_path)
    for path in [f"{split}/{name}/{number}.png" for split in ("train", "val") for name in "ab"
                 for number in range(4 if split == "train" else 1)]:
        file = tmp_path / "pictures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (len(path), 40 * int(file.stem), 200)).save(file)

    def run(*loggers, train=ipucnn.train, **options):
        monkeypatch.setattr(preparation, "make_loggers", lambda *_: list(loggers))
        return train(**options)

    return run


def test_what_is_no_logger_is_refused_before_the_training(tmp_path):
    plugin = tmp_path / "bare.py"
    plugin.write_text("""
import ipucnn

class Bare:
    def start(self, run): pass
    def row(self, row): pass

@ipucnn.hookimpl
def ipucnn_loggers():
    return [ipucnn.LoggerSpec(name="bare", summary="s", target=Bare)]
""")
    local = Registry(PluginSettings(extra=(str(plugin),)))
    options = build(TrainOptions, {"logger": ["files", "bare"]}, registry=local)
    with pytest.raises(IpucnnError,
                       match=r"the target of logger 'bare' of bare returned an object of type "
                             r"'.*Bare', expected an object of type 'Logger'"):
        make_loggers(options, local)
    plugin.write_text(plugin.read_text().replace("class Bare:", """
from ipucnn.plugin import Logger
class Bare(Logger):"""))
    local = Registry(PluginSettings(extra=(str(plugin),)))
    _, named = make_loggers(options, local)
    assert named.name == "bare"  # for messages, although its class has no name


def test_a_training_is_recorded_from_its_start_to_its_end(record, tmp_path):
    logger = Recorder()
    result = record(logger, FilesLogger(), **TINY, checkpoint_path="c")
    run = logger.calls[0][1]
    assert run.folder == tmp_path / "c"
    assert (run.rows, run.restored, run.options["lr"]) == (0, None, 0.01)
    assert logger.methods == ["start", *["row", "checkpoint", "row", "best"], *logger.methods[5:]]
    rows = [call[1] for call in logger.calls if call[0] == "row"]
    assert [row["kind"] for row in rows] == ["train", "validation"] * 2
    assert [json.dumps(row) for row in rows] == (
        tmp_path / "c" / "metrics.jsonl").read_text().splitlines()
    assert [call[1:] for call in logger.calls if call[0] == "checkpoint"] == [
        ("resnet8-cifar_image_folder_1.pt", 1, 2), ("resnet8-cifar_image_folder_2.pt", 2, 4)]
    assert logger.calls[-1] == ("finish", "completed", result.as_dict())
    again = Recorder()
    record(again, train=ipucnn.restore, checkpoint_path="c", epoch=3)
    run = again.calls[0][1]
    # the row of a validation is recorded after the checkpoint of its epoch
    assert (run.rows, run.restored.name) == (3, "resnet8-cifar_image_folder_2.pt")


def test_without_metrics_rows_have_no_accuracy(record):
    logger = Recorder()
    record(logger, **{**TINY, "validation_mode": "none"}, disable_metrics=True)
    rows = [call[1] for call in logger.calls if call[0] == "row"]
    assert [row["accuracy"] for row in rows] == [None, None]
    assert all(row["loss"] > 0 for row in rows)


def test_a_training_without_loggers_has_no_log_folder(record, tmp_path):
    result = record(**{**TINY, "epoch": 1, "validation_mode": "none",
                       "no_checkpoints": True})
    assert result.log_dir == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "pictures"]


def test_a_training_that_fails_is_finished_as_failed(record):
    logger = Recorder()
    with pytest.raises(IpucnnError, match="loss of step"):
        record(logger, **{**TINY, "lr": 1e30})
    assert logger.methods[-1] == "finish"
    assert logger.calls[-1][1] == "failed"
    assert logger.calls[-1][2]["epochs"] == 0


def test_what_is_no_note_of_a_logger_is_ignored(tmp_path):
    class Writing(Recorder):
        def row(self, row):
            return 17  # characters, as a csv writer returns

        def finish(self, status, result):
            return {"rows": 1}

    notes = []
    logger = Writing()
    calls(Loggers([logger], notes.append), RunInfo({}, tmp_path))
    assert notes == []
    assert "best" in logger.methods
