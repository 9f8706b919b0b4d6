"""The documentation says what is so."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.options import COMMANDS
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.profiles import resolve
from ipucnn.terminal.spellings import normalise

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
    options_class = COMMANDS[command]
    words = normalise(shlex.split(line.partition("  #")[0])[2:],
                      {flag for item in declared(options_class) if item.many
                       for flag in item.flags})
    known = {flag: item for item in declared(options_class) for flag in item.flags}
    given = {}
    while words:
        item = known[words.pop(0)]
        given[item.name] = True if item.boolean else words.pop(0)
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


def test_every_module_of_core_is_on_the_map():
    mapped = (ROOT / "docs" / "architecture.md").read_text()
    missing = [path.stem for path in (ROOT / "ipucnn" / "core").rglob("*.py")
               if path.stem != "__init__" and f"`{path.stem}`" not in mapped]
    assert missing == []


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`?make ([a-z][a-z_-]*)", page.read_text()):
            if target not in {"and"}:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)
