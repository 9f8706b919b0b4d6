"""Bounded folders: what was used last stays, and what another process uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from ipucnn.core import bounded_folder
from ipucnn.core.bounded_folder import BoundedFolder, keep_record, kept_record, use

USER = """
import sys
from pathlib import Path
from ipucnn.core.bounded_folder import use
print(use(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

WRITER = """
import os, sys
from pathlib import Path
from ipucnn.core.staging import staged
from ipucnn.core.bounded_folder import BoundedFolder, use
folder = BoundedFolder(Path(sys.argv[1]), ("*.bin",), most_bytes=10_000)
for number in range(40):
    path = folder.path / f"{sys.argv[2]}-{number}.bin"
    with staged(path) as partial:
        partial.write_bytes(b"x" * 1000)
    folder.make_room()
"""


def entries(folder, count=4, age=1e5):
    """Write files of 100 bytes, `0` the one used longest ago."""
    now = time.time()
    for number in range(count):
        path = folder / f"{number}.bin"
        path.write_bytes(b"x" * 100)
        os.utime(path, (now - age + number, now - age + number))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def user(request):
    """Return a function that starts a process which uses a file until the test ends."""
    def start(path):
        process = subprocess.Popen([sys.executable, "-c", USER, str(path)], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        request.addfinalizer(process.communicate)
        assert process.stdout.readline() == "True\n"
        return process
    return start


@pytest.mark.parametrize(("limits", "coming", "left"), [
    ({"most_bytes": 400}, 0, "0123"), ({"most_bytes": 399}, 0, "123"),
    ({"most_bytes": 400}, 150, "23"), ({"most_bytes": 0}, 0, "3"),
    ({"most_bytes": 99}, 100, ""), ({"most_entries": 2}, 0, "23"),
    ({"most_entries": 3, "most_bytes": 200}, 0, "23")])
def test_entries_used_longest_ago_are_removed(tmp_path, limits, coming, left):
    BoundedFolder(entries(tmp_path), ("*.bin",), **limits).make_room(coming)
    assert names(tmp_path) == [f"{number}.bin" for number in left]


def test_a_use_counts_and_other_files_do_not(tmp_path):
    (entries(tmp_path) / "other").write_bytes(b"x" * 1000)
    assert use(tmp_path / "0.bin")
    assert not use(tmp_path / "missing.bin")
    BoundedFolder(tmp_path, ("*.bin",), most_entries=2).make_room()
    assert names(tmp_path) == ["0.bin", "3.bin", "other"]


def test_what_another_process_uses_stays(tmp_path, user):
    process = user(entries(tmp_path) / "0.bin")
    os.utime(tmp_path / "0.bin", (1, 1))
    folder = BoundedFolder(tmp_path, ("*.bin",), most_entries=1)
    folder.make_room(1)
    assert names(tmp_path) == ["0.bin"]
    assert not folder.remove(tmp_path / "0.bin")
    process.communicate()  # its lock ends with it
    assert folder.remove(tmp_path / "0.bin")
    assert names(tmp_path) == []


def test_a_fork_does_not_remove_what_its_parent_uses(tmp_path):
    assert use(entries(tmp_path) / "0.bin")
    child = os.fork()
    if not child:
        os._exit(BoundedFolder(tmp_path, ("*.bin",)).remove(tmp_path / "0.bin"))
    assert os.waitpid(child, 0)[1] == 0
    assert BoundedFolder(tmp_path, ("*.bin",)).remove(tmp_path / "0.bin")


def test_a_replaced_entry_is_marked_again(tmp_path, user):
    path = entries(tmp_path) / "0.bin"
    assert use(path)
    (tmp_path / "new").write_bytes(b"new")
    os.replace(tmp_path / "new", path)
    assert use(path)
    assert subprocess.run([sys.executable, "-c", f"""
from pathlib import Path
from ipucnn.core.bounded_folder import BoundedFolder
print(BoundedFolder(Path({str(tmp_path)!r}), ("*.bin",)).remove(Path({str(path)!r})))
"""], stdout=subprocess.PIPE, text=True, check=True).stdout == "False\n"


def test_what_another_process_uses_stays_after_this_one_used_it(tmp_path, user):
    path = entries(tmp_path) / "0.bin"
    folder = BoundedFolder(tmp_path, ("*.bin",))
    assert use(path)
    process = user(path)
    assert not folder.remove(path)
    process.communicate()
    (tmp_path / "new").write_bytes(b"new")
    os.replace(tmp_path / "new", path)
    user(path)  # the new one
    assert not folder.remove(path)


def test_few_entries_are_marked_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_folder, "_HELD", 2)
    before = len(os.listdir("/proc/self/fd"))
    entries(tmp_path)
    assert all(use(tmp_path / f"{number}.bin") for number in range(4))
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_an_entry_that_is_a_folder_goes_as_a_whole(tmp_path, user):
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("model", "weights"):
            (folder / name).write_bytes(b"x" * 100)
        os.utime(folder / "model", (number, number))
    (tmp_path / "incomplete").mkdir()
    folder = BoundedFolder(tmp_path, ("*/model",), folders=True, most_bytes=400)
    user(tmp_path / "0" / "model")
    os.utime(tmp_path / "0" / "model", (0, 0))
    folder.make_room()
    assert names(tmp_path) == ["0", "2", "incomplete"]
    assert names(tmp_path / "0") == ["model", "weights"]


def test_without_locks_a_recent_use_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_folder, "lock", lambda *_, **__: None)
    entries(tmp_path, count=2)
    os.utime(tmp_path / "1.bin")
    folder = BoundedFolder(tmp_path, ("*.bin",))
    assert folder.remove(tmp_path / "0.bin")
    assert not folder.remove(tmp_path / "1.bin")


def test_several_processes_make_room_for_what_they_write(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name])
                 for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(names(tmp_path)) == 10  # not fewer: nothing is removed twice


def test_without_a_limit_it_is_a_tenth_of_the_free_space(tmp_path, monkeypatch):
    class Usage:
        free = 1600

    monkeypatch.setattr(bounded_folder.shutil, "disk_usage", lambda _: Usage)
    BoundedFolder(entries(tmp_path), ("*.bin",)).make_room()
    assert names(tmp_path) == ["2.bin", "3.bin"]


def test_the_newest_records_are_kept_and_unwritable_ones_are_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_folder, "KEPT_RECORDS", 2)
    for number in range(4):
        keep_record(tmp_path / "kept" / f"{number}.json", {"number": number})
        os.utime(str(tmp_path / "kept" / f"{number}.json"), (number, number))
    keep_record(tmp_path / "kept" / "4.json", {"number": 4})
    assert names(tmp_path / "kept") == ["3.json", "4.json"]
    assert json.loads((tmp_path / "kept" / "4.json").read_text()) == {"number": 4}
    keep_record(tmp_path / "kept" / "4.json" / "5.json", {"number": 5})
    assert names(tmp_path / "kept") == ["3.json", "4.json"]


def test_entries_of_another_user_are_not_used(tmp_path, monkeypatch):
    file = tmp_path / "kept" / "0.json"
    keep_record(file, {"a": 1})
    assert kept_record(file) == {"a": 1}
    assert use(file)
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        try:
            os.chown(str(file), 12345, -1)
        except OSError as error:  # root of a container without that user
            pytest.skip(f"no file can be given to another user: {error}")
    with pytest.raises(PermissionError, match="another user"):
        kept_record(file)
    monkeypatch.setattr(bounded_folder, "_held", {})
    assert not use(file)


@pytest.mark.timeout(60)
def test_a_record_that_is_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "0.json")
    with pytest.raises(OSError, match="FIFO"):
        kept_record(tmp_path / "0.json")
