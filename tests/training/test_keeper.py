"""Which checkpoints stay, and the message when one cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ipucnn.core.errors import UsageError
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, save
from ipucnn.training.checkpoints.checkpoint_folder import PROBE
from ipucnn.training.checkpoints.keeper import Keeper, continue_in, prepare


def made(epoch, call=0, value=1.0):
    return Checkpoint("m", "d", Position(epoch, call, update=10 * epoch + call),
                      {"w": torch.tensor([value])}, session={"optimizer": {}})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_epochs_are_kept(tmp_path):
    keeper = Keeper(tmp_path, keep_last=2)
    for epoch in (1, 2, 3, 10):
        assert keeper.save(made(epoch)) is None
    assert names(tmp_path) == ["m_d_10.pt", "m_d_3.pt"]
    assert keeper.last_good == tmp_path / "m_d_10.pt"


def test_within_an_epoch_only_the_newest_is_kept_and_none_after_it(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.save(made(1))
    keeper.save(made(1, 2))
    keeper.save(made(1, 4))
    assert names(tmp_path) == ["m_d_1.pt", "m_d_2.step14.pt"]
    keeper.save(made(2))
    assert names(tmp_path) == ["m_d_1.pt", "m_d_2.pt"]


def test_the_best_one_is_never_removed(tmp_path):
    keeper = Keeper(tmp_path, keep_last=1)
    figures = {"metric": "top1", "value": 50.0, "epoch": 1, "weights": "raw"}
    keeper.save(made(1))
    keeper.best(figures, "m_d_1.pt")
    for epoch in (2, 3):
        keeper.save(made(epoch))
    assert names(tmp_path) == ["best.json", "m_d_1.pt", "m_d_3.pt"]
    assert json.loads((tmp_path / "best.json").read_text()) == {"file": "m_d_1.pt", **figures}
    again = Keeper(tmp_path, keep_last=1, restored=tmp_path / "m_d_3.pt")
    again.save(made(4))
    assert names(tmp_path) == ["best.json", "m_d_1.pt", "m_d_4.pt"]
    again.best({**figures, "epoch": 4}, "m_d_4.pt")
    again.save(made(5))
    assert names(tmp_path) == ["best.json", "m_d_4.pt", "m_d_5.pt"]


def test_the_best_epoch_without_a_checkpoint_names_none(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.save(made(1))
    keeper.best({"metric": "top1", "value": 1.0, "epoch": 2, "weights": "raw"}, "")
    assert json.loads((tmp_path / "best.json").read_text())["file"] == ""


def test_a_checkpoint_that_cannot_be_written_ends_nothing(tmp_path):
    folder = tmp_path / "c"
    prepare(folder)
    keeper = Keeper(folder, keep_last=1)
    keeper.save(made(1))
    good = keeper.last_good
    (folder / "m_d_2.pt").mkdir()  # in the way
    message = keeper.save(made(2))
    assert str(folder / "m_d_2.pt") in message
    assert str(good) in message
    assert keeper.failed is not None
    assert keeper.last_good == good
    assert good.exists()
    (folder / "m_d_2.pt").rmdir()
    assert keeper.save(made(2)) is None
    assert keeper.failed is None
    assert names(folder) == ["m_d_2.pt"]


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.save(made(1))
    assert "'w' is not finite" in keeper.save(made(2, value=float("nan")))
    assert names(tmp_path) == ["m_d_1.pt"]


@pytest.mark.parametrize("emptied", [False, True])
def test_lost_checkpoints_are_noted(tmp_path, emptied):
    folder = tmp_path / "c"
    prepare(folder)
    keeper = Keeper(folder)
    keeper.save(made(1))
    shutil.rmtree(str(folder))
    if emptied:
        folder.mkdir()
    message = keeper.save(made(2))
    assert f"'{folder}' was {'emptied' if emptied else 'deleted'}" in message
    assert names(folder) == ["m_d_2.pt"]
    assert keeper.save(made(3)) is None


def test_what_an_interrupted_write_left_is_removed(tmp_path):
    (tmp_path / ".m_d_1.pt.k3x_.tmp").write_bytes(b"half")
    (tmp_path / ".other.tmp").write_bytes(b"")
    Keeper(tmp_path)
    assert names(tmp_path) == [".other.tmp"]


def test_folders_a_new_training_may_not_use(tmp_path):
    prepare(tmp_path / "new")
    assert names(tmp_path / "new") == []
    Keeper(tmp_path / "new").save(made(1))
    with pytest.raises(UsageError, match="contains the checkpoints of a training"):
        prepare(tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "a name")
    with pytest.raises(UsageError) as caught:
        prepare(tmp_path / "a name")
    assert f"restore --checkpoint-path '{tmp_path}/a name''" in caught.value.hint
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        prepare(tmp_path / "file")


def test_a_restored_training_sets_newer_checkpoints_aside(tmp_path):
    keeper = Keeper(tmp_path)
    for epoch in (1, 2, 3):
        keeper.save(made(epoch))
    first = tmp_path / "m_d_1.pt"
    assert continue_in(tmp_path, tmp_path / "m_d_3.pt", Position(3)) == []
    assert continue_in(tmp_path, first, Position(1)) == ["m_d_2.pt", "m_d_3.pt"]
    assert names(tmp_path) == ["m_d_1.pt", "m_d_2.pt.superseded", "m_d_3.pt.superseded"]
    with pytest.raises(UsageError, match="contains the checkpoints"):
        continue_in(tmp_path, tmp_path / "elsewhere" / "m_d_1.pt", Position(1))
    assert continue_in(tmp_path / "new", first, Position(1)) == []
    Keeper(tmp_path, restored=first).save(made(2))
    assert continue_in(tmp_path, first, Position(1)) == ["m_d_2.pt"]
    assert names(tmp_path) == ["m_d_1.pt", "m_d_2.pt.2.superseded", "m_d_2.pt.superseded",
                               "m_d_3.pt.superseded", "new"]


def test_newer_checkpoints_are_set_aside_for_a_renamed_one(tmp_path):
    keeper = Keeper(tmp_path)
    for epoch in (1, 2, 3):
        keeper.save(made(epoch))
    keeper.save(made(3, 4))
    renamed = tmp_path / "good.pt"
    shutil.copy(str(tmp_path / "m_d_1.pt"), str(renamed))
    assert continue_in(tmp_path, renamed, made(1).position) == [
        "m_d_2.pt", "m_d_3.pt", "m_d_4.step34.pt"]
    again = Keeper(tmp_path, keep_last=1, restored=renamed)
    again.resume({}, "")
    assert names(tmp_path)[:2] == ["good.pt", "m_d_1.pt"]
    again.save(made(2))
    assert again.last_good == tmp_path / "m_d_2.pt"
    assert names(tmp_path)[:2] == ["good.pt", "m_d_2.pt"]


@pytest.mark.parametrize(("epoch", "call", "extra", "later"), [
    (2, 0, False, ["m_d_3.step22.pt", "m_d_3.step24.pt", "m_d_3.pt"]),
    (2, 2, False, ["m_d_3.step24.pt", "m_d_3.pt"]), (2, 4, False, ["m_d_3.pt"]),
    (3, 0, False, []), (2, 0, True, ["m_d_3.step22.pt", "m_d_3.step24.pt", "m_d_3.pt"])])
def test_what_is_newer_than_a_position(tmp_path, epoch, call, extra, later):
    for other in (made(1), made(2), made(2, 2), made(2, 4), made(3)):
        save(other, tmp_path)
    save(replace(made(2), extra=extra), tmp_path)
    restored = replace(made(epoch, call), extra=extra)
    assert continue_in(tmp_path, tmp_path / restored.name, restored.position) == later


def test_the_last_checkpoint_is_never_removed(tmp_path):
    save(made(5), tmp_path, "m_d_9.pt")  # a copy with the name of a later epoch
    keeper = Keeper(tmp_path, keep_last=1, restored=tmp_path / "m_d_9.pt")
    keeper.save(made(6))
    assert names(tmp_path) == ["m_d_6.pt", "m_d_9.pt"]


def test_a_file_in_place_of_the_folder_ends_nothing(tmp_path):
    folder = tmp_path / "c"
    prepare(folder)
    keeper = Keeper(folder)
    keeper.save(made(1))
    good = keeper.last_good
    folder.rename(tmp_path / "aside")
    folder.write_text("in the way")
    message = keeper.save(made(2))
    assert f"cannot make folder '{folder}'" in message
    assert keeper.last_good == good
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    assert keeper.save(made(2)) is None
    assert names(folder) == ["m_d_1.pt", "m_d_2.pt"]


def test_a_full_disk_removes_nothing(tmp_path):
    Keeper(tmp_path).save(made(1))
    script = """
import resource, sys, torch
from pathlib import Path
from ipucnn.core.errors import UsageError
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position
from ipucnn.training.checkpoints.keeper import Keeper, prepare
folder = Path(sys.argv[1])
keeper = Keeper(folder, keep_last=1, restored=folder / "m_d_1.pt")
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
print(keeper.save(Checkpoint("m", "d", Position(2), {"w": torch.zeros(2)}, session={"o": 1})))
print(keeper.last_good.name)
try:
    prepare(folder / "new")
except UsageError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    message, good, refused = done.stdout.splitlines()
    assert f"'{tmp_path / 'm_d_2.pt'}': File too large" in message
    assert good == "m_d_1.pt"
    assert refused == f"cannot write to folder '{tmp_path / 'new'}': File too large"
    assert names(tmp_path) == ["m_d_1.pt", "new"]


def test_what_cannot_be_recorded_is_noted_tried_again_and_returned(tmp_path):
    keeper = Keeper(tmp_path, keep_last=1)
    keeper.save(made(1))
    (tmp_path / "best.json").mkdir()
    note = keeper.best({"metric": "loss", "value": 2.0, "epoch": 1, "weights": "raw"}, "m_d_1.pt")
    assert "best.json': it is a folder; it is tried again" in note
    keeper.save(made(2))
    assert "best.json" in keeper.finish().message
    assert names(tmp_path) == ["best.json", "m_d_1.pt", "m_d_2.pt"]  # either may be the best
    (tmp_path / "best.json").rmdir()
    assert keeper.finish() is None
    assert json.loads((tmp_path / "best.json").read_text())["file"] == "m_d_1.pt"


def test_a_folder_without_room_for_the_next_checkpoint_is_refused(tmp_path, monkeypatch):
    Keeper(tmp_path).save(made(1))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(UsageError, match="No space left") as caught:
        continue_in(tmp_path, tmp_path / "m_d_1.pt", Position(1))
    assert "--checkpoint-output-dir" in str(caught.value)
    assert names(tmp_path) == ["m_d_1.pt"]


@pytest.mark.timeout(60)
def test_the_probe_of_a_folder_follows_no_link_and_waits_for_no_pipe(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    for name, make in (("link", lambda path: path.symlink_to(other)), ("pipe", os.mkfifo)):
        (tmp_path / name).mkdir()
        make(tmp_path / name / PROBE)
        restored = save(made(1), tmp_path / name)
        assert continue_in(tmp_path / name, restored, Position(1)) == []
        assert names(tmp_path / name) == ["m_d_1.pt"]
    assert other.read_text() == "mine"
