"""Trainings whose folders are on stores: watched, listed, reported, continued."""

from __future__ import annotations

import json
import socket
import time

import pytest

pytest.importorskip("fsspec")

from faulty_store import FaultyStore

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.progress import Status
from ipucnn.data.remote import mirror, stores
from ipucnn.data.remote.stores import Store
from ipucnn.data.remote.transfer import Patience
from ipucnn.models import store_paths
from ipucnn.models.store_paths import place_of
from ipucnn.runs import watching
from ipucnn.runs.found import ENDED, listed, state_of
from ipucnn.runs.resuming import newest_on_store
from ipucnn.runs.watching import Watched
from ipucnn.training.records import live_status
from ipucnn.training.records.live_status import LiveStatus

URL = "faulty://bucket/runs/one"
FACTS = {"model": "resnet18", "dataset": "shapes"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setattr(stores, "PATIENCE", Patience(timeout=5, attempts=1))
    monkeypatch.setattr(store_paths, "_folders", {})
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    FaultyStore.reset()
    yield
    FaultyStore.reset()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def put(name, content, url=URL):
    Store(url).write(name, (content if isinstance(content, str) else json.dumps(content)).encode())


def put_run(url=URL, **status):
    put("options.yaml", "model: resnet18\ndata: shapes\nepoch: 4\n", url)
    put("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in (
        {"kind": "train", "epoch": 1.0, "update": 5, "loss": 0.5, "accuracy": 50.0},
        {"kind": "validation", "epoch": 1, "update": 5, "top1": 70.0})), url)
    put("status.json", {"state": "running", "time": time.time(), "begun": time.time() - 60,
                        "host": "elsewhere", "pid": 1, "loss": 0.5, **status}, url)


def test_a_status_reaches_the_store_while_a_checkpoint_is_sent(monkeypatch):
    monkeypatch.setattr(live_status, "BEAT", 0.02)
    monkeypatch.setattr(live_status, "SHARE", 0.0)
    folder = place_of(URL, writes=True)
    stored = store_paths.on_store(folder)
    live = LiveStatus(folder)
    with stored._lock:  # as during the transfer of a checkpoint
        (folder / "metrics.jsonl").write_text('{"kind": "train", "epoch": 0.5, "loss": 2.0}\n')
        live.write(Status("training", 1, 2, loss=2.0), FACTS)
        until(lambda: Store(URL).stat("status.json"))
        watched = Watched(URL)
        assert (watched.view().state, watched.view().status["loss"]) == ("running", 2.0)
        until(lambda: Watched(URL).view().rows)
        first = json.loads(Store(URL).read("status.json", 10**6))
        # no host call for long, as in a validation: it is seen nevertheless
        until(lambda: json.loads(Store(URL).read("status.json", 10**6))["time"] > first["time"])
    live.end("completed")
    stored.send()
    watched = Watched("faulty://bucket/runs")
    assert (watched.view().state, watched.view().title) == ("completed", URL)
    stored.close()
    assert not list(folder.glob("*.json*"))


def test_a_store_that_is_away_costs_a_training_nothing(monkeypatch):
    monkeypatch.setattr(live_status, "BEAT", 0.02)
    monkeypatch.setattr(live_status, "SHARE", 0.0)
    folder = place_of(URL, writes=True)
    live = LiveStatus(folder)
    FaultyStore.fail("put_file", *[OSError("away")] * 3, "stall")
    begun = time.monotonic()
    live.write(Status("training", 1, 2, loss=2.0), FACTS)
    until(lambda: not FaultyStore.faults["put_file"])
    live.write(Status("training", 1, 2, loss=1.0), FACTS)
    live.end("stopped")
    assert time.monotonic() - begun < 4, "the transfer that stalls was waited for"
    FaultyStore.reset()
    store_paths.on_store(folder).send()
    assert Watched(URL).view().state == "stopped"


def test_a_pause_follows_each_transfer(monkeypatch):
    assert live_status.BEAT >= 10
    monkeypatch.setattr(live_status, "BEAT", 0.01)
    monkeypatch.setattr(live_status, "SHARE", 1e9)
    folder = place_of(URL, writes=True)
    live = LiveStatus(folder)
    live.write(Status("training", 1, 2), FACTS)
    until(lambda: Store(URL).stat("status.json"))
    time.sleep(0.1)
    assert [call for call in FaultyStore.calls if call[0] == "put_file"
            and call[1].endswith("status.json.partial")].__len__() == 1
    live.end("completed")


def test_watching_outlives_a_silent_store_and_ends_with_the_training(monkeypatch):
    monkeypatch.setattr(watching, "POLLED", 0.01)
    monkeypatch.setattr(mirror, "TIMEOUT", 0.2)
    put_run()
    watched = Watched(URL)
    with watched.followed():
        assert watched.view().notes == []
        FaultyStore.fail("ls", "stall", *[OSError("away")] * 300)
        until(lambda: watched.view().notes)
        view = watched.view()
        assert "cannot list 'faulty://bucket/runs/one': " in view.notes[0]
        assert (view.state, view.status["loss"], len(view.rows)) == ("running", 0.5, 2)
        FaultyStore.faults.clear()
        until(lambda: not watched.view().notes)
        monkeypatch.setattr(watching, "STALE_STORE", 0.05)
        until(lambda: any(note.startswith("not seen for ") for note in watched.view().notes))
        put("status.json", {"state": "completed", "time": time.time()})
        until(lambda: watched.view().state == "completed")


def test_clocks_of_hosts_may_differ():
    put_run(time=time.time() - 500)  # by the clock of its host
    watched = Watched(URL)
    assert "not seen for 500 s" in watched.view().notes
    put_run(time=time.time() - 490)
    watched._mirror.refresh()
    assert watched.view().notes == []
    ended = {"state": "running", "host": "elsewhere", "time": time.time()}
    assert state_of(ended, 700, 600) == ENDED
    assert state_of(ended, 500, 600) == "running"
    assert state_of({**ended, "host": socket.gethostname(), "pid": 0}, 0, 600) == ENDED


def test_runs_on_a_store_are_listed(capsys):
    put_run()
    put_run("faulty://bucket/runs/deep/two", state="completed")
    assert invoke(["runs", "faulty://bucket/runs", "--json"]) == 0
    found = {run["folder"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert {name: run["state"] for name, run in found.items()} == {
        URL: "running", "faulty://bucket/runs/deep/two": "completed"}
    assert found[URL]["top1"] == 70.0
    assert time.time() - found[URL]["changed"] < 100
    assert invoke(["watch", "faulty://bucket/runs", "--once"]) == 0
    assert "faulty://bucket/runs/deep/two   completed" in capsys.readouterr().out
    with pytest.raises(UsageError, match="there is no training in 'faulty://bucket/none'"):
        Watched("faulty://bucket/none")
    FaultyStore.fail("ls", PermissionError("denied"))
    with pytest.raises(DataError, match="cannot list 'faulty://bucket/runs': denied"):
        listed("faulty://bucket/runs")


def test_file_urls_are_paths(tmp_path, capsys):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"kind": "train", "epoch": 0.5, "loss": 2.0}\n')
    url = folder.as_uri()
    assert "%20" in url
    assert [run.folder for run in listed(url)] == [folder]
    assert place_of(url) == folder
    assert invoke(["watch", url, "--once"]) == 0
    assert invoke(["report", url]) == 0
    assert (folder / "report.html").exists()
    capsys.readouterr()


ARGV = ["train", "--model", "resnet8-cifar", "--data-dir", "photos", "--input-size", "32",
        "--batch-size", "4", "--iterations", "1", "--progress", "off"]


def test_a_training_on_a_store_is_watched_reported_and_continued(tmp_path, capsys):
    ipucnn.shapes("photos", per_class=1, size=32, validation_per_class=1)
    argv = [*ARGV, "--resume", "auto", "--checkpoint-path", URL]
    assert invoke([*argv, "--epoch", "1"]) == 0
    captured = capsys.readouterr()
    assert "is continued" not in captured.err
    assert "report" not in captured.err
    names = {stored.name for stored in Store(URL).listing()}
    assert {"status.json", "classes.json", "training.json", "validation.json", "report.html",
            "metrics.jsonl"} <= names
    page = Store(URL).read("report.html", 10**7).decode()
    assert page.count("<img") >= 8
    view = Watched("faulty://bucket").view()
    assert (view.state, view.title, len(view.classes)) == ("completed", URL, 8)

    assert invoke(["report", URL]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert "resnet8-cifar" in (tmp_path / "report.html").read_text()
    assert invoke(["report", URL, "--text"]) == 0
    assert URL in capsys.readouterr().out

    result = ipucnn.train(model="resnet8-cifar", data_dir="photos", input_size=32, batch_size=4,
                          iterations=1, progress=False, resume="auto", checkpoint_path=URL,
                          epoch=2, no_report=True)
    assert (result.epochs, result.restored) == (2, f"{URL}/resnet8-cifar_image_folder_1.pt")
    assert [run.as_dict()["epoch"] for run in listed(URL)] == [2.0]

    assert newest_on_store("faulty://bucket") == URL
    for place in ("faulty://bucket/none", f"{URL}/none.pt"):
        assert invoke(["train", "--resume", place]) == 2
        assert f"'{place}' to resume" in capsys.readouterr().err.replace("\n", " ")


def test_a_result_on_a_store_is_reported(tmp_path, capsys):
    put("found.csv", "path,class_1,name_1,probability_1\na.jpg,0,cat,0.9\n", "faulty://bucket/p")
    assert invoke(["report", "faulty://bucket/p/found.csv", "--out", "page.html"]) == 0
    assert "found.csv" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert invoke(["report", "faulty://bucket/p/other"]) == 1
    assert "there is no training or file at 'faulty://bucket/p/other'" in \
        capsys.readouterr().err.replace("\n", " ")


