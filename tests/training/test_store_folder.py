"""Checkpoints on a store: whole or not there, whatever happens to the store or the process."""

from __future__ import annotations

import json
import time

import pytest
import torch

pytest.importorskip("fsspec")
from faulty_store import FaultyStore

from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.data.remote import stores
from ipucnn.data.remote.stores import Store
from ipucnn.data.remote.transfer import Patience
from ipucnn.models import store_folder, store_paths
from ipucnn.models.checkpoint_content import chosen
from ipucnn.models.checkpoint_files import CheckpointError, best_of, entries
from ipucnn.models.store_paths import place_of
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, load
from ipucnn.training.checkpoints.checkpoint_folder import newest
from ipucnn.training.checkpoints.keeper import Keeper, continue_in, prepare
from ipucnn.training.records.folder_lock import locked
from ipucnn.training.records.store_lease import FILE, VALID

URL = "faulty://bucket/run"
BEST = {"metric": "top1", "value": 50.0, "epoch": 1, "weights": "raw"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setattr(stores, "PATIENCE", Patience(timeout=5, attempts=1))
    monkeypatch.setattr(store_paths, "_folders", {})
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    FaultyStore.reset()
    yield
    FaultyStore.reset()


def made(epoch, call=0):
    return Checkpoint("m", "d", Position(epoch, call, update=10 * epoch + call),
                      {"w": torch.full((500,), float(epoch))}, session={"optimizer": {}})


def stored():
    return sorted(entry.name for entry in Store(URL).listing())


def checkpoints():
    return [name for name in stored() if name.endswith(".pt")]


def read_again():
    """Return the folder as another process on another host sees it."""
    store_paths._folders.clear()
    return place_of(URL)


def writing(report=print):
    folder = place_of(URL, writes=True)
    return folder, locked(folder, "--checkpoint-path", report)


def begun(keep_last=0):
    folder = place_of(URL, writes=True)
    prepare(folder)
    return Keeper(folder, keep_last)


def test_checkpoints_are_those_of_a_folder(tmp_path):
    folder, lock = writing()
    with lock:
        keeper = begun(keep_last=1)
        for epoch in (1, 2, 3):
            assert keeper.save(made(epoch)) is None
            if epoch == 1:
                keeper.best(BEST, "m_d_1.pt")
        (folder / "metrics.jsonl").write_text("{}\n")
        assert keeper.finish() is None
    assert checkpoints() == ["m_d_1.pt", "m_d_3.pt"]
    assert Store(URL).read("metrics.jsonl", 10) == b"{}\n"
    place = read_again()
    assert [entry.path.name for entry in entries(place)] == ["m_d_1.pt", "m_d_3.pt"]
    assert chosen(place).name == "m_d_1.pt"
    assert best_of(place) == {"file": "m_d_1.pt", **BEST}
    assert newest(place)[0].weights["w"][0] == 3


def test_a_copied_folder_is_read_as_it_is(tmp_path):
    keeper = Keeper(tmp_path)
    for epoch in (1, 2):
        keeper.save(made(epoch))
    keeper.best(BEST, "m_d_1.pt")
    for path in tmp_path.glob("*.*"):
        FaultyStore().pipe_file(f"/bucket/run/{path.name}", path.read_bytes())
    place = read_again()
    assert chosen(place).name == "m_d_1.pt"
    assert newest(place)[0].position.epoch == 2
    folder, lock = writing()
    with lock:
        continued = newest(folder)[0]
        assert continue_in(folder, continued.path, continued.position) == []
        Keeper(folder, restored=continued.path).save(made(3))
    assert [entry.epoch for entry in entries(read_again())] == [1, 2, 3]


def test_a_store_that_is_gone_after_any_call_has_whole_checkpoints():
    """The same for a process that is killed there."""
    for calls in range(100):
        FaultyStore.reset()
        store_paths._folders.clear()
        _, lock = writing()
        with lock:
            keeper = begun(keep_last=1)
            assert keeper.save(made(1)) is None
            FaultyStore.calls_left = calls
            done = keeper.save(made(2)) is None
            keeper.best({**BEST, "epoch": 2}, "m_d_2.pt")
            used, FaultyStore.calls_left = calls - FaultyStore.calls_left, None
        place = read_again()
        found, damaged = newest(place)
        assert not damaged, calls
        assert found.position.epoch == 2 or not done, calls
        best = best_of(place)
        for entry in entries(place):
            store_paths.present(entry.path)
        assert best == {} or best["file"] in [entry.path.name for entry in entries(place)], calls
        if used < calls:
            assert best["file"] == "m_d_2.pt"
            assert calls > 15
            return
    pytest.fail("more calls than expected")


def test_a_record_that_was_cut_is_not_believed():
    _, lock = writing()
    with lock:
        keeper = begun()
        keeper.save(made(1))
        keeper.save(made(2))
    latest = max(store_folder.RECORDS, key=lambda name: json.loads(
        Store(URL).read(name, 10**6))["sequence"])
    content = Store(URL).read(latest, 10**6)
    for wrong in (content[:-20], content.replace(b"m_d_2.pt", b"m_d_9.pt"), b"", b"[]"):
        FaultyStore().pipe_file(f"/bucket/run/{latest}", wrong)
        assert newest(read_again())[0].position.epoch == 1


def test_a_record_names_no_file_elsewhere(tmp_path):
    content = {"format": store_folder.FORMAT, "sequence": 9, "best": None,
               "files": {"../../evil_1.pt": [1, "0" * 64]}}
    content["sha256"] = store_folder._digest(content)
    FaultyStore().pipe_file("/bucket/run/checkpoints.0.json", json.dumps(content).encode())
    assert entries(read_again()) == []


def test_a_damaged_checkpoint_is_skipped():
    _, lock = writing()
    with lock:
        keeper = begun()
        keeper.save(made(1))
        keeper.save(made(2))
    content = FaultyStore().cat_file("/bucket/run/m_d_2.pt")
    for wrong in (content[:-1], content[:-1] + b"x"):
        FaultyStore().pipe_file("/bucket/run/m_d_2.pt", wrong)
        found, damaged = newest(read_again())
        assert found.position.epoch == 1
        assert [path.name for path, _ in damaged] == ["m_d_2.pt"]


def test_a_failed_checkpoint_is_sent_later(tmp_path):
    _, lock = writing()
    with lock:
        keeper = begun()
        keeper.save(made(1))
        FaultyStore.fail("put_file", OSError("SlowDown"))
        note = keeper.save(made(2))
        assert f"cannot write '{URL}/m_d_2.pt': SlowDown" in note
        assert f"last good checkpoint: {URL}/m_d_1.pt" in note
        assert keeper.failed is not None
        assert checkpoints() == ["m_d_1.pt"]
        assert keeper.save(made(3)) is None
    assert checkpoints() == ["m_d_1.pt", "m_d_2.pt", "m_d_3.pt"]


def test_what_could_not_be_sent_is_kept(tmp_path):
    folder, lock = writing()
    with lock:
        keeper = begun()
        FaultyStore.fail("put_file", OSError("SlowDown"))
        assert f"a copy is in '{folder}" in keeper.save(made(1))
    assert (folder / "m_d_1.pt").exists()
    folder, lock = writing()
    with lock:
        begun()
    assert (folder / "unsent" / "m_d_1.pt").exists()
    assert checkpoints() == []


def test_newer_checkpoints_are_set_aside():
    _, lock = writing()
    with lock:
        keeper = begun()
        for epoch in (1, 2, 3):
            keeper.save(made(epoch))
    folder, lock = writing()
    with lock:
        path = folder / "m_d_1.pt"
        store_paths.present(path)
        assert continue_in(folder, path, Position(1)) == ["m_d_2.pt", "m_d_3.pt"]
        Keeper(folder, restored=path).save(made(2))
        assert continue_in(folder, path, Position(1)) == ["m_d_2.pt"]
    assert [name for name in stored() if name.startswith("m_")] == [
        "m_d_1.pt", "m_d_2.pt.2.superseded", "m_d_2.pt.superseded", "m_d_3.pt.superseded"]
    assert [entry.epoch for entry in entries(read_again())] == [1]


def test_a_new_training_needs_an_unused_folder():
    _, lock = writing()
    with lock:
        begun().save(made(1))
    _, lock = writing()
    with lock, pytest.raises(UsageError, match=f"folder '{URL}' contains the checkpoints"):
        begun()


def test_a_store_that_cannot_be_written_ends_it_before_the_training():
    FaultyStore.fail("put_file", *[PermissionError("Access Denied")] * 9)
    _, lock = writing()
    with pytest.raises(DataError, match="Access Denied"), lock:
        pass


def lease(**values):
    found = {"token": "other", "process": 12, "host": "elsewhere", "command": "ipucnn train",
             "time": time.time(), **values}
    FaultyStore().pipe_file(f"/bucket/run/{FILE}", json.dumps(found).encode())


def test_a_training_on_another_host_is_not_disturbed():
    lease()
    _, lock = writing()
    message = f"folder '{URL}' is in use by another training, process 12 on 'elsewhere'"
    with pytest.raises(UsageError, match=message), lock:
        pass
    assert FILE in stored()


@pytest.mark.parametrize("skew", [-1, 1])
def test_a_training_on_a_host_with_another_clock_is_not_disturbed(skew, monkeypatch):
    monkeypatch.setattr("ipucnn.training.records.store_lease.RENEWED", 0.2)
    lease(time=time.time() + skew * 10 * VALID)
    sleep = time.sleep

    def renewed(seconds):
        lease(time=time.time() + skew * 10 * VALID)
        sleep(seconds)

    monkeypatch.setattr("ipucnn.training.records.store_lease.time.sleep", renewed)
    notes = []
    _, lock = writing(notes.append)
    with pytest.raises(UsageError, match="is in use by another training, process 12"), lock:
        pass
    assert "is still in use by process 12 on 'elsewhere'" in notes[0]
    assert FILE in stored()


@pytest.mark.parametrize(("host", "age"), [
    ("elsewhere", VALID + 1), ("here", 0), ("elsewhere", -2 * VALID)])
def test_the_lease_of_a_training_that_has_ended_is_taken_over(host, age, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    monkeypatch.setattr("ipucnn.training.records.store_lease.RENEWED", 0.05)
    # the time is that of the test, which may begin long after its collection
    lease(host=host, time=time.time() - age)
    notes = []
    _, lock = writing(notes.append)
    with lock:
        assert "is taken over from process 12" in notes[-1]
    assert FILE not in stored()


@pytest.mark.parametrize("renewed", [0.02, 30])
def test_a_training_ends_whose_lease_was_taken_over_while_it_was_suspended(renewed, monkeypatch):
    monkeypatch.setattr("ipucnn.training.records.store_lease.RENEWED", renewed)
    folder, lock = writing()
    with lock:
        keeper = begun()
        lease()
        until = time.monotonic() + 10
        while renewed < 1 and not store_paths.on_store(folder)._lost:
            assert time.monotonic() < until
            time.sleep(0.02)
        with pytest.raises(IpucnnError, match="taken over by another training, process 12 on"):
            keeper.save(made(1))
        assert "taken over" in keeper.finish().message
        store_paths.on_store(folder).send_watched()
        assert stored() == [FILE]
    assert json.loads(Store(URL).read(FILE, 1000))["token"] == "other"


def test_a_full_temporary_folder_does_not_end_a_training(monkeypatch, tmp_path):
    _, lock = writing()
    with lock:
        keeper = begun()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        note = keeper.best(BEST, "")
        assert "no temporary file can be written: No such file" in note
        assert "the training continues" in keeper.save(made(1))
        monkeypatch.setattr("tempfile.tempdir", None)
        assert keeper.save(made(2)) is None
    assert checkpoints() == ["m_d_1.pt", "m_d_2.pt"]


def test_two_that_start_together_do_not_both_go_on(monkeypatch):
    _, lock = writing()
    answers = iter([None, {"token": "other"}])
    monkeypatch.setattr("ipucnn.training.records.store_lease._read", lambda _: next(answers))
    with pytest.raises(UsageError, match="which has just started"), lock:
        pass


def test_a_lease_is_renewed(monkeypatch):
    monkeypatch.setattr("ipucnn.training.records.store_lease.RENEWED", 0.05)
    _, lock = writing()
    with lock:
        first = json.loads(Store(URL).read(FILE, 1000))["time"]
        until = time.monotonic() + 10
        while json.loads(Store(URL).read(FILE, 1000))["time"] == first:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(CheckpointError, match=f"there is no checkpoint '{URL}/m_d_7.pt'"):
        load(place_of(f"{URL}/m_d_7.pt"))
