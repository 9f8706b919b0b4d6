"""The gallery of the documentation: what it shows is recorded, drawn and named."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from ipucnn.reports.job import read_runs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gallery():
    pytest.importorskip("rich", reason="rich is not installed")
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def test_every_picture_is_on_the_page_and_has_its_size(gallery):
    page = (ROOT / "docs" / "gallery.md").read_text()
    shown = set(re.findall(r"\(pictures/([\w.-]+)\)", page))
    assert shown == {*(shot.name for shot in gallery.SHOTS), gallery.DASHBOARD, gallery.EXPLAINED}
    for shot in gallery.SHOTS:
        with Image.open(gallery.PICTURES / shot.name) as picture:
            assert picture.size == shot.size
    for command in gallery.COMMANDS:
        assert f"ipucnn {command}\n" in page


def test_the_recorded_runs_are_read_and_name_no_machine(gallery):
    names = {name for shot in gallery.SHOTS for name in shot.shows}
    assert all(not run.notes for run in read_runs([str(gallery.RECORDED / name) for name in names]))
    for path in gallery.RECORDED.rglob("*.*"):
        assert not re.search(r'"(/[\w.-]+){2}|"host"|"pid"|"processor"', path.read_text()), path


def test_without_a_browser_the_pictures_stay(gallery, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert gallery.draw(tmp_path) == 0
    assert "not installed: the pictures of pages stay" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [gallery.DASHBOARD]  # needs no browser
