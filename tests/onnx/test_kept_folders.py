"""Kept folders: whole or missing, replaced when damaged, and left alone while in use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ipucnn.onnx.kept_folders import KeptFolder

USER = """
import sys
from ipucnn.onnx.kept_folders import KeptFolder
print(KeptFolder("engine", sys.argv[1], "model").there(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))


def fill(kept, content):
    with kept.filled() as folder:
        for name in ("model", "weights"):
            (folder / name).write_text(content)


def test_a_folder_is_filled_replaced_and_makes_room(tmp_path):
    first, second = (KeptFolder("engine", name, "model", limit=30) for name in "ab")
    assert not first.there()
    fill(first, "12345")
    fill(first, "54321")
    assert first.there()
    assert (first.path / "weights").read_text() == "54321"
    fill(second, "1234567890")
    assert second.there()
    assert (tmp_path / "engine" / "a").is_dir()
    fill(KeptFolder("engine", "c", "model", limit=30), "x")
    assert sorted(path.name for path in (tmp_path / "engine").iterdir()) == ["b", "c"]


def test_a_folder_without_its_first_file_is_replaced(tmp_path):
    kept = KeptFolder("engine", "a", "model")
    fill(kept, "1")
    (kept.path / "model").unlink()
    assert not kept.there()
    fill(kept, "2")
    assert kept.there()


def test_a_folder_that_another_process_uses_is_not_replaced():
    kept = KeptFolder("engine", "a", "model", limit=1)
    fill(kept, "1")
    process = subprocess.Popen([sys.executable, "-c", USER, "a"], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "True\n"
    fill(kept, "2")
    fill(KeptFolder("engine", "b", "model", limit=1), "3")
    assert (kept.path / "weights").read_text() == "1"
    process.communicate()
    fill(kept, "2")
    assert (kept.path / "weights").read_text() == "2"
