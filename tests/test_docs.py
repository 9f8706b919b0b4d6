"""The documentation says what is so."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.commands.reference import COMMANDS
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.registry import registry
from ipucnn.terminal.flags import flag_table, parsed
from ipucnn.terminal.spellings import expanded, normalise

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_reference_is_what_the_declarations_generate():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["options_page"]()
    assert (ROOT / "docs" / "reference" / "options.md").read_text() == page, "run 'make docs'"


def _commands():
    for page in PAGES:
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith(("ipucnn run ", "ipucnn train ")):
                    yield pytest.param(line, id=f"{page.name}: {line[:50]}")


@pytest.mark.parametrize("line", list(_commands()))
def test_documented_runs_are_accepted(line):
    command = line.split()[1]
    (options_class,) = COMMANDS[command]
    # a store is asked what is in its folder
    words = normalise(shlex.split(line.partition("  #")[0].replace("s3://", "memory://"))[2:])
    words = expanded(words, flag_table([options_class], words, registry()).lists())
    given = parsed(options_class, words, registry())
    assert resolve(options_class, given, command).plan(synthetic=False).combined_batch >= 1


@pytest.mark.parametrize("line", [
    line.partition("  #")[0].partition(" |")[0] for page in PAGES
    for line in page.read_text().splitlines() if line.startswith("ipucnn plan ")])
def test_documented_plans_can_be_made(line, capsys):
    assert invoke(shlex.split(line.partition("#")[0])[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_module_and_folder_is_on_the_map():
    mapped = (ROOT / "docs" / "architecture.md").read_text()
    modules = [path for path in (ROOT / "ipucnn").rglob("*.py") if path.stem != "__init__"]
    folders = {path.parent.name for path in (ROOT / "ipucnn").rglob("__init__.py")}
    assert [str(path) for path in modules if f"`{path.stem}`" not in mapped] == []
    assert [folder for folder in sorted(folders) if f"{folder}/" not in mapped] == []


PATHS = re.compile(r"`((?:ipucnn|core|plugins|training|commands)/[\w/]+(?:\.py|/)?)`"
                   r"|\b(ipucnn(?:\.\w+)+)")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_modules_on_the_map_and_on_other_pages_exist(page):
    for path, dotted in PATHS.findall(page.read_text()):
        if path:
            assert (ROOT / path).exists() or (ROOT / "ipucnn" / path).exists(), path
        else:
            found = ipucnn
            for name in dotted.split(".")[1:]:
                found = getattr(found, name, None) or importlib.import_module(
                    f"{found.__name__}.{name}")


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`?make ([a-z][a-z_-]*)", page.read_text()):
            if target not in {"and"}:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)


def test_the_lines_of_python_run(tmp_path, monkeypatch, capsys):
    """From a folder of photographs to a named answer, block after block."""
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=3, size=40)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(),
                        re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    assert names["answer"].name in names["model"].classes
    assert len(names["one"]) == 3
    assert names["result"].epochs == 4
    assert "image_folder" in capsys.readouterr().out
