"""Unfinished files: never under their final name, and removed when their process is gone."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from ipucnn.core import staging
from ipucnn.core.errors import DataError
from ipucnn.core.files import kind_of, write_text
from ipucnn.core.staging import lock, scratch, staged

KILLED = """
import os, sys
from pathlib import Path
from ipucnn.core.staging import scratch, staged
folder = Path(sys.argv[1])
with staged(folder / "x.json") as one, scratch(folder, "pictures") as two:
    (two / "a.jpg").write_bytes(b"half")
    one.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(names(tmp_path)) == 2
    (tmp_path / ".x.json.link.partial").symlink_to(tmp_path / "mine")
    os.mkfifo(str(tmp_path / ".y.json.1.partial"))
    write_text(str(tmp_path / "x.json"), "whole")
    with scratch(tmp_path, "pictures"):
        pass
    assert names(tmp_path) == [".x.json.link.partial", ".y.json.1.partial", "x.json"]
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_being_written_stays(tmp_path):
    with staged(tmp_path / "x") as one, staged(tmp_path / "x") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one"
    assert names(tmp_path) == ["x"]


def test_a_file_that_is_about_to_be_removed_is_not_used(tmp_path, monkeypatch):
    import fcntl

    held = []

    def locked_by_a_sweep(descriptor):
        if not held:  # between the making of the file and its lock
            held.append((tmp_path / names(tmp_path)[0]).open("rb"))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return lock(descriptor)

    monkeypatch.setattr(staging, "lock", locked_by_a_sweep)
    with staged(tmp_path / "x") as path:
        (swept,) = [name for name in names(tmp_path) if name != path.name]
        path.write_text("whole")
        (tmp_path / swept).unlink()
    assert (tmp_path / "x").read_text() == "whole"
    held[0].close()


def test_a_folder_that_was_removed_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
    made, create = [], tempfile.mkdtemp

    def removed_once(*arguments):
        made.append(create(*arguments))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(staging.tempfile, "mkdtemp", removed_once)
    with scratch(tmp_path, "x") as place:
        assert place.is_dir()
        assert str(place) == made[1]


def test_without_locks_only_old_files_are_removed(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    for name, age in ((".x.new.partial", 60), (".x.old.partial", 90000)):
        (tmp_path / name).write_text("")
        os.utime(str(tmp_path / name), (time.time() - age,) * 2)
    write_text(str(tmp_path / "x"), "whole")
    assert names(tmp_path) == [".x.new.partial", "x"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(KeyError), staged(tmp_path / "x") as path:
        {}[path.write_text("new")]
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name, kind in (("pipe", "a FIFO"), ("folder", "a folder"), ("null", "a device")):
        with pytest.raises(DataError, match=f"it is {kind}"):
            write_text(str(tmp_path / name), "text")
    assert kind_of(tmp_path / "missing") == kind_of(__file__) == ""
    assert names(tmp_path) == ["folder", "null", "pipe"]


def test_links_to_standard_output_are_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = ("import sys; from ipucnn.core.files import require_writable; "
             "require_writable(sys.argv[1])")
    for place, reason in (("/dev/stdout", "it is a device"), ("-", "only '--json' writes to")):
        with open("redirected", "wb") as file:
            done = subprocess.run([sys.executable, "-c", check, place], stdout=file,
                                  stderr=subprocess.PIPE, check=False)
        assert f"cannot write '{place}': {reason}" in done.stderr.decode()
    write_text("./-", "text")
    assert names(tmp_path) == ["-", "redirected"]


def test_several_threads_write_one_file(tmp_path):
    threads = [threading.Thread(target=write_text, args=(str(tmp_path / "x"), str(n) * 1000))
               for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "x").read_text())) == 1
    assert names(tmp_path) == ["x"]
