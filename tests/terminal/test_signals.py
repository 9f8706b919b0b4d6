"""Tests of the errors and interrupts that end a command."""

import errno
import os
import subprocess
import sys

import pytest

_INTERRUPTED_FINALIZER = """
import os, signal, time
from ipucnn.terminal import signals

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.01)

signals.install()
try:
    Finalized()
    time.sleep(30)
except KeyboardInterrupt as interrupt:
    print(interrupt)
"""


@pytest.mark.usefixtures("heeded_sighup")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_an_interrupt_in_a_finalizer_is_raised_after_it(name):
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_FINALIZER.format(name=name)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=25,
                          universal_newlines=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert (done.stdout, done.stderr, done.returncode) == (f"{name}\n", "", 0)


def test_other_exceptions_in_a_finalizer_are_reported():
    program = ("from ipucnn.terminal import signals\nsignals.install()\n"
               "class Finalized:\n    def __del__(self):\n        raise ValueError('lost')\n"
               "Finalized()")
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=25, universal_newlines=True)
    assert "ValueError: lost" in done.stderr
    assert done.returncode == 0


def test_an_interrupt_that_python_wraps_is_one(monkeypatch, capsys):
    from ipucnn.terminal import edge, signals

    def application(command):
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(signals, "install", lambda: None)
    assert edge.invoke([], application) == 143
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("module", "code", "line"), [
    ("numpy", 2, "error: a required package cannot be imported: ModuleNotFoundError: no numpy"),
    ("ipucnn.lost", 1, "error: this is a bug in ipucnn or a plugin; please report it with the "
     "traceback above")])
def test_only_packages_that_cannot_be_imported_are_no_bugs(module, code, line, capsys):
    from ipucnn.terminal import edge

    def application(command):
        raise ModuleNotFoundError(f"no {module}", name=module)

    assert edge.invoke([], application) == code
    found = capsys.readouterr().err
    assert line in found.splitlines()
    assert ("Traceback" in found) is (code == 1)


def test_a_machine_without_a_temporary_folder_is_no_bug(capsys):
    from ipucnn.terminal import edge

    def application(command):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    assert edge.invoke([], application) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: no temporary folder can be written: No usable temporary directory found in "
        "['/tmp']", "hint: export TMPDIR=FOLDER, with a folder that can be written"]
