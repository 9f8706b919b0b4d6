"""One training at a time uses a folder; the lock dies with its process."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.training.records.folder_lock import FILE, check_held, locked

OPTION = "--checkpoint-path"
HOLD = """
import sys
from pathlib import Path
from ipucnn.training.records.folder_lock import locked
with locked(Path(sys.argv[1]), "--checkpoint-path", print):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_one_is_refused_until_the_first_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        text = rf"'{re.escape(str(tmp_path))}' is in use by another training, process {first.pid}: "
        with pytest.raises(UsageError, match=text) as caught, locked(tmp_path, OPTION, print):
            pass
        assert OPTION in caught.value.hint
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert names(tmp_path) == [FILE]
    with locked(tmp_path, OPTION, print):
        assert names(tmp_path) == [FILE]
    assert names(tmp_path) == []


def test_the_same_thread_may_hold_it_twice_and_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            with locked(tmp_path, OPTION, print):
                pass
        except UsageError as error:
            refused.append(error.message)

    with locked(tmp_path, OPTION, print):
        with locked(tmp_path / ".", OPTION, print):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in refused[0]


def test_a_folder_that_was_removed_is_locked_again_unless_another_one_has_it(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    with locked(folder, OPTION, print):
        check_held(folder)
        shutil.rmtree(str(folder))
        check_held(folder)  # it is made again when something is written
        folder.mkdir()
        check_held(folder)
        first = (folder / FILE).read_text()
        assert json.loads(first)["process"] == os.getpid()
        shutil.rmtree(str(folder))
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(IpucnnError, match=f"was removed, and is now in use by another "
                                                  f"training, process {other.pid}: "):
                check_held(folder)
            other.kill()
        check_held(folder)
    assert names(folder) == []
    check_held(folder)


def test_a_file_system_without_locks_is_noted(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    notes = []
    with locked(tmp_path, OPTION, notes.append):
        pass
    assert "has no locks: make sure that no other training" in notes[0]
    assert names(tmp_path) == []


def test_a_folder_in_its_place_is_an_error(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UsageError, match="Is a directory"), locked(tmp_path, OPTION, print):
        pass
