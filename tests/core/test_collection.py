"""How often processes of the command line collect cyclic garbage."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.collection import collect_as_usual, collect_rarely

pytestmark = pytest.mark.usefixtures("thresholds")

PROGRAM = """
import atexit, gc, sys
print(gc.get_threshold()[0])
atexit.register(lambda: print(gc.get_freeze_count()))  # called after those of the command line
from ipucnn.__main__ import main
code = main()
print(gc.get_threshold()[0])
sys.exit(code)
"""


@pytest.fixture
def thresholds():
    usual = gc.get_threshold()
    yield usual
    gc.set_threshold(*usual)


def test_only_a_process_of_the_command_line_collects_rarely():
    done = subprocess.run([sys.executable, "-c", PROGRAM, "--version"], stdout=subprocess.PIPE,
                          universal_newlines=True, timeout=60, check=True)
    usual, _, _, changed, kept = done.stdout.split()
    assert int(usual) == gc.get_threshold()[0] < int(changed)
    assert int(kept) > 0  # which are not examined at the end


PLUGIN = """
from ipucnn.core.registry.hookspecs import hookimpl

class Record:
    def __init__(self):
        self.itself, self.file = self, open("record.txt", "w")

record = Record()
record.file.write("a line")

@hookimpl
def ipucnn_losses():
    return []
"""


def test_what_a_plugin_leaves_in_an_open_file_is_written(tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    subprocess.run([sys.executable, "-m", "ipucnn", "--plugin", "plugin.py", "list-plugins",
                    "losses"], stdout=subprocess.DEVNULL, cwd=str(tmp_path), timeout=60, check=True)
    assert (tmp_path / "record.txt").read_text() == "a line"


@pytest.mark.parametrize("argv", [
    ["run", "--iterations", "1", "--weights", "random"],
    ["train", "--iterations", "1", "--epochs", "1", "--no-checkpoints", "--no-validation"]])
def test_jobs_collect_as_usual(argv, thresholds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collect_rarely()
    assert gc.get_threshold() != thresholds
    assert invoke([*argv, "--model", "resnet8-cifar", "--data", "synthetic", "--batch-size", "2",
                   "--backend", "torch", "--progress", "off"]) == 0
    assert gc.get_threshold() == thresholds


def test_the_thresholds_of_a_program_remain():
    gc.set_threshold(12345, 6, 7)
    collect_as_usual()
    assert gc.get_threshold() == (12345, 6, 7)
