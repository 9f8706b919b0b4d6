"""Trainings as their log folders show them: listed, watched, continued."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.commands.runs import _cells
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launcher import Launch
from ipucnn.core.options.building import build
from ipucnn.core.options.profiles import resolve
from ipucnn.core.progress import Listener, Status
from ipucnn.runs.dashboard import View, drawn, encodable
from ipucnn.runs.found import ENDED, Metrics, best_validation, read, state_of
from ipucnn.runs.resuming import continued, newest_folder
from ipucnn.runs.selection_of_runs import FIGURES, filtered, ordered
from ipucnn.runs.watching import Watched
from ipucnn.training import restore as restoring
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.records.live_status import LiveStatus

pty = pytest.importorskip("pty")


def rows(count, epochs=4):
    found = []
    for number in range(1, count + 1):
        epoch = epochs * number / count
        found.append({"kind": "train", "epoch": epoch, "update": number, "loss": 4 / number,
                      "accuracy": 50.0, "learning_rate": 0.1 / number, "images_per_second": 100.0})
        if epoch == int(epoch):
            found.append({"kind": "validation", "epoch": int(epoch), "update": number,
                          "weights": "raw", "loss": 1.0, "top1": 60.0 + epoch, "top5": 90.0})
    return found


def written(folder, count=8, state="completed", model="resnet18", **status):
    """Write the log folder of a training."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    (folder / "options.yaml").write_text(f"model: {model}\ndata: cifar10\nepoch: 4\nlr: 0.1\n")
    (folder / "classes.json").write_text(json.dumps({"classes": [
        {"class": f"class {number}", "images": 10, "top1": 10.0 * number} for number in range(9)]}))
    (folder / "status.json").write_text(json.dumps({
        "state": state, "epoch": 4, "epochs": 4, "done": 8, "total": 8, "loss": 0.5, "model": model,
        "time": time.time(), "begun": time.time() - 60, "host": socket.gethostname(),
        "pid": os.getpid(), **status}))
    return folder


@pytest.fixture
def logs(tmp_path):
    written(tmp_path / "a", model="resnet18")
    written(tmp_path / "b" / "inner", count=4, model="resnet50", state="stopped")
    (tmp_path / "unrelated").mkdir()
    return tmp_path


def test_runs_are_listed_filtered_and_sorted(logs, capsys):
    assert invoke(["runs", str(logs)]) == 0
    out = capsys.readouterr().out
    assert "resnet18" in out
    assert "resnet50" in out
    assert "64.00" in out
    assert invoke(["runs", str(logs), "--json", "--filter", "model=ResNet50", "--filter",
                   "top1>=64", "--sort", "loss"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["state"], run["epoch"], run["epochs"], run["best_epoch"]) == ("stopped", 4.0, 4, 4)
    assert set(run) == set(FIGURES)
    assert run["seconds"] == pytest.approx(60, abs=1)
    assert invoke(["runs", str(logs / "unrelated")]) == 0
    assert "no training in" in capsys.readouterr().err


def test_the_best_validation_counts_the_classes_of_the_last_one():
    def best(*validations):
        return best_validation([
            {"kind": "train"}, *({"kind": "validation", "top1": top1, **classes}
                                 for top1, classes in validations)]).get("top1")

    assert best() is None
    assert best((90, {"classes": 3}), (70, {"classes": 4}), (60, {"classes": 4})) == 70
    assert best((90, {}), (70, {"classes": 4})) == 90  # of an earlier version
    assert best((90, {}), (70, {})) == 90


def test_linked_folders_are_runs(logs, tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp("scratch")
    written(elsewhere / "c" / "inner")
    (elsewhere / "c" / "inner" / "m_d_1.pt").touch()
    (logs / "linked").symlink_to(elsewhere / "c" / "inner")
    (logs / "data").symlink_to(elsewhere)  # may be large: the folders in it are not searched
    (logs / "latest").symlink_to(logs / "a")
    (logs / "loop").symlink_to(logs)
    (logs / "broken").symlink_to(logs / "missing")
    assert {run["folder"] for run in runs_of(str(logs), capsys)} == {
        str(logs / name) for name in ("a", "b/inner", "linked")}
    assert newest_folder(logs, Listener()) == logs / "linked"


@pytest.mark.parametrize("argv", [["runs"], ["watch", "--once"], ["train", "--resume"],
                                  ["train", "--resume", "auto", "--checkpoint-path"]])
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(logs, argv, capsys, monkeypatch):
    def refused(place, listdir=os.listdir):
        if place == str(logs):
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return listdir(place)

    monkeypatch.setattr("os.listdir", refused)
    assert invoke([*argv, str(logs)]) == 1
    assert f"error: cannot list folder '{logs}': Permission denied" in capsys.readouterr().err


def test_conditions_and_orders():
    found = [{"loss": 1.0, "model": "a"}, {"loss": 3.0, "model": "b"}, {"loss": None, "model": "c"}]
    assert [row["model"] for row in ordered(found, "loss")] == ["b", "a", "c"]
    assert [row["model"] for row in ordered(found, "-loss")] == ["a", "b", "c"]
    assert [row["model"] for row in ordered(found, "model")] == ["a", "b", "c"]
    assert [row["model"] for row in filtered(found, ["loss<3"])] == ["a"]
    assert [row["model"] for row in filtered(found, ["model!=a"])] == ["b", "c"]
    for condition, message in (("loss", "is not a condition"), ("los=1", "no figure"),
                               ("loss=x", "is not a number")):
        with pytest.raises(UsageError, match=message):
            filtered(found, [condition])
    with pytest.raises(UsageError, match="there is no folder"):
        Watched(__import__("pathlib").Path("/nowhere"))


def test_states():
    here = {"host": socket.gethostname(), "state": "running", "time": time.time()}
    assert state_of({**here, "pid": os.getpid()}) == "running"
    # the number is that of another process now
    assert state_of({**here, "pid": os.getpid(), "time": time.time() - 10**7}) == (
        ENDED if os.path.exists("/proc/self/stat") else "running")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert state_of({**here, "pid": ended.pid}) == ENDED
    assert state_of({**here, "host": "elsewhere", "pid": 1}) == "running"
    assert state_of({**here, "host": "elsewhere", "time": time.time() - 1000}) == ENDED
    assert state_of({"state": "failed"}) == "failed"
    assert state_of({}) == "unknown"


def test_metrics_are_read_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    assert not metrics.read_on()
    path.write_text('{"a": 1}\n{"a": ')
    assert metrics.read_on()
    assert metrics.rows == [{"a": 1}]
    with open(path, "a") as file:
        file.write('2}\nnonsense\n')
    metrics.read_on()
    assert metrics.rows == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 3}\n')  # a restored training begins again
    metrics.read_on()
    assert metrics.rows == [{"a": 3}]


def test_metrics_of_any_size_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ipucnn.runs.found.LARGEST", 1000)
    monkeypatch.setattr("ipucnn.runs.found._PART", 64)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"kind": "train", "update": {number}}}\n' for number in range(200)))
    metrics = Metrics(path)
    assert metrics.read_on()
    assert [row["update"] for row in metrics.rows] == list(range(200))
    assert not metrics.read_on()


def test_damaged_folders_are_runs_too(tmp_path):
    folder = written(tmp_path / "a")
    for name in ("status.json", "options.yaml", "classes.json"):
        (folder / name).write_bytes(b"\xff{[")
    run = read(folder)
    assert run.state == "unknown"
    assert run.as_dict()["top1"] == 64.0
    assert "top-1" in drawn(Watched(folder).view(), 80, 24)
    (folder / "classes.json").write_text('{"classes": [1, {"class": "cat", "top1": 50.0}]}')
    assert "worst classes: cat 50 %" in drawn(Watched(folder).view(), 80, 24)


def test_a_run_without_the_files_logger_is_known_by_its_status(tmp_path):
    folder = written(tmp_path / "a", dataset="photos")
    for name in ("metrics.jsonl", "options.yaml"):
        (folder / name).unlink()
    found = read(folder).as_dict()
    assert [found[name] for name in ("model", "data", "epoch", "epochs", "loss")] == [
        "resnet18", "photos", 4, 4, 0.5]


def test_values_that_cannot_be_drawn_are_left_out(tmp_path, capsys):
    folder = written(tmp_path / "a")
    with open(folder / "metrics.jsonl", "a") as file:
        for value in ("NaN", "Infinity", "1e308", "-1e308"):
            file.write(f'{{"kind": "train", "epoch": 5, "loss": {value}}}\n')
    assert "loss" in drawn(Watched(folder).view(), 80, 24)
    assert invoke(["runs", str(folder)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 160 + len(str(folder))


@pytest.mark.parametrize("row", ["[" * 100_000, '{"kind": "train", "a": ' + "[" * 100_000,
                                 "1" + "0" * 400, "[]"])
def test_rows_that_are_none_are_left_out(tmp_path, capsys, row):
    folder = written(tmp_path / "a")
    with open(folder / "metrics.jsonl", "a") as file:
        huge = "1" + "0" * 400
        file.write(f'{row}\n{{"kind": "train", "epoch": {huge}, "update": 9, "loss": {huge}}}\n'
                   f'{{"kind": "validation", "epoch": 4, "top1": {huge}}}\n')
    (folder / "status.json").write_text(f'{{"state": "running", "seconds_left": {huge}}}')
    assert invoke(["runs", str(folder)]) == 0
    assert "64.00" in capsys.readouterr().out
    assert "top-1 64.00 %" in drawn(Watched(folder).view(), 80, 24)


BOMB = "a: &a [x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 40)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi")) + "model: *i\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("options", [
    BOMB, "model: &m [*m]", "<<: &m {<<: *m}", "model: !!timestamp x", "model: !!int ''",
    "model: !!bool x", "model: 2001-99-99", "model: " + "[" * 100_000, "model: " + "[a, " * 100_000,
    "? " * 9000, "- " * 9000, "model: 1" + ":59" * 300 + ".5"], ids=range(12))
def test_options_that_no_training_wrote_are_left_out(tmp_path, capsys, options):
    folder = written(tmp_path / "a")
    (folder / "options.yaml").write_text(options)
    assert read(folder).options == {}
    assert invoke(["runs", str(folder)]) == 0
    assert invoke(["report", str(folder), "--out", str(tmp_path / "r.html")]) == 0
    assert "this is a bug" not in capsys.readouterr().err


def test_a_run_that_failed_states_why(tmp_path):
    folder = written(tmp_path / "a", count=0, state="failed", error="the loss is nan")
    picture = drawn(Watched(folder).view(), 80, 24)
    assert "no metrics were recorded" in picture
    assert "the loss is nan" in picture


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 12), (20, 3)])
@pytest.mark.parametrize("count", [0, 1, 8, 3000])
def test_a_picture_fits_its_terminal(tmp_path, width, height, count):
    view = Watched(written(tmp_path / "a", count=count)).view()
    lines = drawn(view, width, height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if (width, height, count) == (80, 24, 8):
        text = "\n".join(lines)
        assert "best top-1 64.00 % (epoch 4)" in text
        assert "worst classes: class 0 0 %" in text
        assert "⠤" in text or "⠒" in text or "⢸" in text  # a curve


def test_a_terminal_without_these_characters_gets_others(tmp_path):
    picture = drawn(Watched(written(tmp_path / "a")).view(), 80, 24)
    assert encodable(picture, "utf-8") == picture
    plain = encodable(picture, "ascii")
    assert plain.isascii()
    assert [len(line) for line in plain.splitlines()] == [
        len(line) for line in picture.splitlines()]
    assert "*" in plain


def test_the_status_replaces_a_link_and_does_not_wait_for_a_pipe(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    for name, make in (("link", lambda path: path.symlink_to(other)), ("pipe", os.mkfifo)):
        (tmp_path / name).mkdir()
        make(tmp_path / name / ".status.json.part")
        LiveStatus(tmp_path / name).end("completed")
        assert json.loads((tmp_path / name / "status.json").read_text())["state"] == "completed"
        assert [path.name for path in (tmp_path / name).iterdir()] == ["status.json"]
    assert other.read_text() == "mine"



def test_names_that_would_control_the_terminal_are_escaped():
    view = View("x", status={"model": "a\x1b[2Jb"}, classes=[{"class": "\x1b]0;c", "top1": 1.0}])
    assert "\x1b" not in drawn(view, 80, 24)


def test_no_text_of_a_run_controls_the_terminal(tmp_path):
    folder = written(tmp_path / "a\x1b[2J", state="\x1b]0;x\x07", epoch="\x1b[31m",
                     epochs="\x1b[2J", done="\x1b", error="\x1b[8m")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "validation", "epoch": "\x1b[2J", "top1": 99.0}) + "\n")
    picture = drawn(Watched(folder).view(), 200, 24)
    assert "\\x1b]0;x" in picture
    assert not re.search("[\x00-\x09\x0b-\x1f]", picture)


def test_the_status_is_written_once_per_second(tmp_path, monkeypatch):
    live = LiveStatus(tmp_path)
    live.write(Status("training", 1, 2, loss=1.0), {"model": "m"})
    first = (tmp_path / "status.json").read_text()
    live.write(Status("training", 1, 2, loss=2.0), {"model": "m"})
    assert (tmp_path / "status.json").read_text() == first
    live.end("completed")
    content = json.loads((tmp_path / "status.json").read_text())
    assert (content["state"], content["loss"], content["model"]) == ("completed", 2.0, "m")
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


class Terminal:
    """`ipucnn watch` on a pseudo-terminal."""

    def __init__(self, *argv, lines=24, columns=80, term="xterm"):
        self.leader, follower = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        variables = {name: value for name, value in os.environ.items()
                     if name not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ipucnn", *argv], stdin=follower, stdout=follower,
            stderr=follower, env={**variables, "TERM": term, "OMP_NUM_THREADS": "1"})
        os.close(follower)
        self.text = ""

    def until(self, words):
        while words not in self.text:
            self.text += os.read(self.leader, 65536).decode("utf-8", "replace")

    def end(self):
        try:
            while True:
                self.text += os.read(self.leader, 65536).decode("utf-8", "replace")
        except OSError:
            pass
        os.close(self.leader)
        return self.process.wait(60)


@pytest.mark.timeout(60)
def test_pipes_in_the_place_of_files_are_not_read(logs):
    for name in ("status.json", "options.yaml", "classes.json"):
        (logs / "a" / name).unlink()
        os.mkfifo(str(logs / "a" / name))
    assert read(logs / "a").options == {}
    assert Watched(str(logs / "a")).view().classes == []


@pytest.mark.parametrize("leave", ["end", "interrupt"])
def test_watching_survives_the_end_and_leaves_the_terminal_clean(tmp_path, leave):
    folder = written(tmp_path / "a", state="running")
    terminal = Terminal("watch", str(tmp_path))
    terminal.until("worst classes")
    if leave == "end":
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**status, "state": "completed"}))
    else:
        terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert terminal.text.count("\x1b[?1049h") == terminal.text.count("\x1b[?1049l") == 1
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    last = terminal.text.rpartition("\x1b[?1049l")[2]
    assert ("completed" if leave == "end" else "running") in last
    assert "Traceback" not in terminal.text


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("argv", "kind"), [(["watch"], {"term": "dumb"}),
                                            (["watch", "--once"], {"lines": 0, "columns": 0})])
def test_a_terminal_of_little_ability_shows_the_state(tmp_path, argv, kind):
    written(tmp_path / "a", state="running")
    terminal = Terminal(*argv, str(tmp_path), **kind)
    assert terminal.end() == 0
    assert "best top-1 64.00 % (epoch 4)" in terminal.text
    assert "validation top-1" in terminal.text


@pytest.mark.timeout(60)
def test_runs_are_listed_in_lines_where_the_table_is_too_wide(tmp_path):
    folder = written(tmp_path / "a-long-name-of-a-training")
    terminal = Terminal("runs", str(tmp_path))
    assert terminal.end() == 0
    assert f"{folder}\r\n  completed, " in terminal.text
    assert "resnet18 on cifar10, epoch 4/4, loss 0.5000," in terminal.text


@pytest.mark.parametrize(("epoch", "text"), [(1234.5, "1234.50/2000"), (999.0, "999/2000"),
                                             (299.75, "299.75/2000"), (None, "")])
def test_epochs_of_long_trainings_are_listed_in_full(epoch, text):
    row = {"folder": "a", "state": "running", "epoch": epoch, "epochs": 2000, "changed": 0.0}
    assert _cells(row)[4] == text


def test_resume_auto_continues_the_newest_or_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=1, size=32, validation_per_class=1)
    argv = ["train", "--model", "resnet20-cifar", "--data-dir", "photos", "--input-size", "32",
            "--batch-size", "4", "--iterations", "1", "--resume", "auto", "--checkpoint-path",
            "kept"]
    assert invoke([*argv, "--epoch", "1"]) == 0
    assert "is continued" not in capsys.readouterr().err
    view = Watched(tmp_path / "kept").view()
    assert (view.state, view.status["model"], len(view.classes)) == (
        "completed", "resnet20-cifar", 8)
    assert "validation top-1" in drawn(view, 80, 24)
    assert invoke([*argv, "--epoch", "2"]) == 0
    captured = capsys.readouterr()
    assert "the training in 'kept' is continued" in captured.err.replace("\n", " ")
    assert "Epoch 2/2" in captured.out
    assert "Epoch 1/2" not in captured.out
    assert [run["epoch"] for run in runs_of("kept", capsys)] == [2.0]
    (tmp_path / "mixed").mkdir()
    for name in ("a_b_1.pt", "c_d_1.pt"):
        (tmp_path / "mixed" / name).write_bytes(b"")
    assert invoke(["train", "--resume", ".", "--epoch", "2"]) == 0
    notes = " ".join(capsys.readouterr().err.split())
    assert "the training in 'kept' is continued" in notes
    assert "skipped: folder 'mixed' has checkpoints of 2 trainings" in notes
    assert invoke(["train", "--resume", "mixed"]) == 1
    assert "has checkpoints of 2 trainings" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "kept")
    shutil.copytree(str(tmp_path / "photos"), "photos")
    assert invoke(["train", "--resume", ".", "--epoch", "2"]) == 0
    assert "the training in '.' is continued" in " ".join(capsys.readouterr().err.split())
    monkeypatch.chdir(tmp_path)
    assert invoke(["train", "--resume", "nowhere"]) == 2
    assert "there is no checkpoint 'nowhere'" in capsys.readouterr().err
    assert invoke(["train", "--resume", "photos"]) == 2
    assert "there is no checkpoint in 'photos' to resume" in capsys.readouterr().err


def test_a_resumed_training_keeps_what_auto_has_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=2, size=32)
    argv = ["train", "--model", "resnet8-cifar", "--data-dir", "photos", "--input-size", "32",
            "--batch-size", "auto", "--iterations", "1", "--no-validation", "--checkpoint-path",
            "kept", "--resume", "auto", "--epoch"]
    assert invoke([*argv, "1"]) == 0
    assert "reproduce with '--batch-size" in " ".join(capsys.readouterr().err.split())
    assert invoke([*argv, "2"]) == 0
    notes = " ".join(capsys.readouterr().err.split())
    assert "epoch: 1 -> 2" in notes
    assert "batch-size:" not in notes
    assert "reproduce with" not in notes


def test_a_resumed_training_follows_a_changed_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=1, size=32)
    profile = ("model: resnet8-cifar\ndata-dir: photos\nbatch-size: 2\niterations: 1\n"
               "validation-mode: none\nmomentum: 0.8\nlr: null\nepochs: ")
    (tmp_path / "own.yaml").write_text(profile + "1\n")
    again = {"config": "own.yaml", "checkpoint_path": "kept", "resume": "auto"}
    assert ipucnn.train(**again).epochs == 1
    (tmp_path / "own.yaml").write_text(profile + "2\n")
    first = ipucnn.train(**again)
    assert (first.epochs, first.options["epoch"], first.options["momentum"]) == (2, 2, 0.8)
    (tmp_path / "own.yaml").write_text(profile.replace("0.8", "0.7") + "2\n")
    assert ipucnn.train(**again, epoch=3).options["momentum"] == 0.7
    (tmp_path / "own.yaml").write_text(profile + "2\nnormlayer: group\n")
    with pytest.raises(UsageError, match="cannot be changed when restoring"):
        ipucnn.train(**again)
    (tmp_path / "own.yaml").write_text(profile.replace("mode: none", "mode: after") + "2\n")
    assert ipucnn.train(**again, epoch=4, no_validation=True).epochs == 4


def test_wandb_is_added_to_a_resumed_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"model": "resnet8-cifar", "data": "shapes", "batch_size": 2, "iterations": 1,
               "validation_mode": "none", "epoch": 1}
    ipucnn.train(checkpoint_path="kept", **options)
    for given, expected in (
            ({"wandb": True}, {"logger": ("files", "wandb")}), ({}, {}),
            ({"wandb": True, "logger": ("tensorboard",)}, {"logger": ("tensorboard", "wandb")})):
        given = {"resume": "kept", **given}
        changes = continued(given, resolve(TrainOptions, {**options, **given}, "train"), Listener())
        assert changes == {"checkpoint_path": "kept", **expected}


def test_a_resumed_training_writes_to_the_folder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=1, size=32)
    options = {"model": "resnet8-cifar", "data_dir": "photos", "batch_size": 2, "iterations": 1,
               "validation_mode": "none"}
    ipucnn.train(checkpoint_path="first", epoch=1, **options)
    before = sorted(os.listdir("first"))
    result = ipucnn.train(resume="first", checkpoint_path="second", epoch=2, **options)
    assert result.checkpoint == "second/resnet8-cifar_image_folder_2.pt"
    assert sorted(os.listdir("first")) == before
    result = ipucnn.train(resume="second", checkpoint_path="second", epoch=3, **options)
    assert result.checkpoint == "second/resnet8-cifar_image_folder_3.pt"


def test_restarted_processes_keep_what_was_chosen_for_the_images(monkeypatch):
    monkeypatch.setattr(restoring, "launched", lambda: Launch(0, 1, restarts=1))
    monkeypatch.setattr(restoring, "newest", lambda place: [SimpleNamespace(options=saved)])
    monkeypatch.setattr(restoring, "restore", lambda given, *_: given)
    given = {"checkpoint_path": "c", "batch_size": "auto", "pipeline_splits": "auto:3"}
    options = build(TrainOptions, given)
    saved = {**options.as_dict(), "batch_size": 8, "pipeline_splits": ["layer2", "layer3"]}
    assert restoring.restarted(options) == {"checkpoint_path": "c"}
    saved["pipeline_splits"] = ["layer2"]
    assert restoring.restarted(options) is None
    saved["pipeline_splits"] = ["layer2", "layer3"]
    assert restoring.restarted(build(TrainOptions, {
        **given, "pipeline_splits": "layer2 layer4"})) is None
    options = resolve(TrainOptions, {"config": "resnet50-gpu", "lr": 0.2}, "train")
    saved = {**options.as_dict(), "batch_size": 4, "gradient_accumulation": 1}
    assert restoring.restarted(options) == {"checkpoint_path": "checkpoints/resnet50"}
    saved["lr"] = 0.1
    assert restoring.restarted(options) is None


def test_a_restarted_training_continues_in_its_folder_of_further_checkpoints(
        tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=1, size=32)
    ipucnn.train(model="resnet8-cifar", data_dir="photos", batch_size=2, iterations=1,
                 validation_mode="none", epoch=1, checkpoint_path="first")
    given = {"checkpoint_path": "first", "checkpoint_output_dir": "second", "epoch": 2}
    ipucnn.restore(**given)
    with pytest.raises(UsageError, match="'second' contains the checkpoints of a training"):
        ipucnn.restore(**given)
    monkeypatch.setattr(restoring, "launched", lambda: Launch(0, 1, restarts=1))
    given["epoch"] = 3
    assert ipucnn.restore(**given).restored == "second/resnet8-cifar_image_folder_2.pt"


def runs_of(folder, capsys):
    invoke(["runs", folder, "--json"])
    return json.loads(capsys.readouterr().out)["runs"]


def test_the_dashboard_reads_the_classes_once_for_each_validation(tmp_path):
    from ipucnn.commands._dashboard import DashboardProgress

    read = []
    shown = DashboardProgress(str(tmp_path))
    shown._classes = lambda: read.append(1) or []
    shown._picture = lambda picture: None
    for row in rows(2):
        shown.row(row)
        for done in range(3):
            shown._next = 0.0
            shown.status(Status("training", 1, 2, done, 3))
    assert len(read) == sum(row["kind"] == "validation" for row in rows(2)) > 0


def test_the_dashboard_of_a_training_prints_its_lines_afterwards(tmp_path, capsys):
    from ipucnn.commands._dashboard import DashboardProgress

    folder = written(tmp_path / "a")
    pictures = []
    with DashboardProgress(str(folder)) as shown:
        shown._picture = lambda picture: pictures.append(picture(80, 24))
        shown.row(rows(4)[-1])
        shown.row({"kind": "epoch", "epoch": 1})
        shown.note("a note")
        shown._next = 0.0
        shown.status(Status("training", 1, 4, 3, 8, loss=0.25))
        shown.line("Epoch 1/4")
        during = capsys.readouterr()
    after = capsys.readouterr()
    assert "loss 0.2500" in pictures[-1]
    assert "worst classes: class 0 0 %" in pictures[-1]
    assert "a note" in pictures[-1]
    assert shown._rows == rows(4)[-1:]
    assert "Epoch 1/4" not in during.out
    assert "Epoch 1/4" in after.out
    assert "note: a note" in after.err


def test_the_dashboard_shows_the_log_folder_of_a_profile(tmp_path, monkeypatch):
    folders = []

    def made(folder, summary):
        folders.append(folder)
        raise UsageError("not in this test")

    monkeypatch.setattr("ipucnn.commands._dashboard.DashboardProgress", made)
    monkeypatch.setattr("ipucnn.terminal.tables.wants_bar", lambda choice: True)
    (tmp_path / "p.yaml").write_text("data: shapes\nlog_dir: mine\n")
    assert invoke(["train", "--config", str(tmp_path / "p.yaml"), "--dashboard"]) == 2
    assert folders == ["mine"]
