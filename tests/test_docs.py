"""The documentation agrees with the code."""

from __future__ import annotations

import dataclasses
import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ipucnn
import ipucnn.plugin
from ipucnn.__main__ import invoke
from ipucnn.commands.reference import COMMANDS
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.contract import PluginSpec, Requirement
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import PublishedWeights
from ipucnn.core.registry.registry import registry
from ipucnn.doctor.job import VARIABLES
from ipucnn.terminal.flags import flag_table, parsed
from ipucnn.terminal.spellings import expanded, normalise

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_reference_is_what_the_declarations_generate():
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for name in ("options", "conformance", "migration"):
        page = (ROOT / "docs" / "reference" / f"{name}.md").read_text()
        assert page == made[f"{name}_page"](), "run 'make docs'"


def test_every_option_of_restore_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "options.md").read_text()
    section = page.partition("## `ipucnn restore`")[2].partition("\n## ")[0]
    train = page.partition("## `ipucnn train`")[2].partition("\n## ")[0]
    own = set(re.findall(r"^\| (`--[\w-]+`)", section, re.MULTILINE))
    for flag in flag_table(COMMANDS["restore"], [], registry()).flags:
        if not flag.qualified and flag.item.option.applies_to("training"):
            assert f"`{flag.spellings[0]}`" in own or f"| `{flag.spellings[0]}`" in train
    assert "`--dashboard`" in section.partition("###")[0], "it is an option of train only"


def test_the_manual_page_is_that_of_the_commands(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = importlib.import_module("man_page").man_page()
    assert (ROOT / "docs" / "ipucnn.1").read_text() == page, "run 'make docs'"
    assert r".B data convert" in page
    assert not [line for line in page.splitlines() if line.startswith(("'", ". "))]


@pytest.mark.parametrize("name", VARIABLES)
def test_environment_variables_are_documented(name):
    if name.startswith("IPUCNN_INSTANCE_") or name == "IPUCNN_PARENT":
        return  # ipucnn sets them for its own processes
    assert any(f"`{name}" in page.read_text() for page in PAGES)
    assert name in (ROOT / "docs" / "ipucnn.1").read_text()


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
    # of a store, the content of the folder is read
    words = normalise(shlex.split(line.partition("  #")[0].replace("s3://", "memory://"))[2:])
    words = expanded(words, flag_table([options_class], words, registry()).lists())
    given = parsed(options_class, words, registry())
    assert resolve(options_class, given, command).plan(synthetic=False).combined_batch >= 1


@pytest.mark.parametrize("line", [
    line.partition("  #")[0].partition(" |")[0] for page in PAGES
    for line in page.read_text().splitlines() if line.startswith("ipucnn plan ")])
def test_documented_plans_can_be_made(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a line may write a picture
    assert invoke(shlex.split(line.partition("#")[0])[1:]) == 0, capsys.readouterr().err


def _anchors(page):
    """The anchors of a page's headings, as the site gives them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = []
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        found.append(re.sub(r"[-\s]+", "-", plain))
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"],
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if not target.startswith("http"):
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in _anchors(path), f"{target}#{anchor}"


def test_the_other_reference_pages_are_what_the_code_generates(reference_pages):
    for name, text in reference_pages.pages().items():
        assert (ROOT / "docs" / "reference" / name).read_text() == text, "run 'make docs'"


@pytest.fixture(scope="module")
def reference_pages():
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module("reference_pages")


def test_every_field_and_attribute_of_a_record_has_a_meaning(reference_pages):
    records = [PluginSpec, PublishedWeights, ipucnn.Preprocessing, Requirement,
               *(kind.record for kind in KINDS.values())]
    for record in records:
        meanings = reference_pages.attributes(record)
        bases = {field.name for field in dataclasses.fields(PluginSpec)} if (
            issubclass(record, PluginSpec) and record is not PluginSpec) else set()
        assert [field.name for field in dataclasses.fields(record) if field.name not in bases
                and not meanings.get(field.name)] == [], record.__name__


def test_every_command_argument_and_function_is_explained(reference_pages):
    commands, python = reference_pages.commands(), reference_pages.python()
    assert [line for line in commands.splitlines() if line.endswith("|  |")] == []
    for title, body in re.findall(r"^## (.*)\n\n(.*)$", f"{commands}\n{python}", re.MULTILINE):
        assert body[0] != "|", f"{title} has no description"
    for name in set(ipucnn.__all__) - {"__version__"}:
        assert f"## `ipucnn.{name}`" in python


def test_every_public_name_for_plugins_is_in_the_reference(reference_pages):
    page = reference_pages.interfaces()
    others = "".join(reference_pages.pages()[name] for name in ("plugins.md", "exit-codes.md"))
    assert [name for name in ipucnn.plugin.NAMES if f"`{name}`" not in page
            and f"`{name}`" not in others and name not in ipucnn.__all__] == []
    for method in ("Backend.inference(", "InferenceSession.__call__(", "TrainingSession.step(",
                   "ImageDataset.image(", "Loss.__call__(", "Logger.row(", "Launcher.launch("):
        assert f"### `{method}" in page
    for title, body in re.findall(r"^##+ (.*)\n\n(.*)$", page, re.MULTILINE):
        assert body[0] not in "|#", f"{title} has no description"
    assert "::" not in page


def test_code_in_docstrings_is_code_on_the_page(reference_pages):
    section = reference_pages.python().partition("## `ipucnn.option`")[2].partition("\n## ")[0]
    assert "option(default, help, **details)" in section
    assert "::" not in section
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    compile(code, "option", "exec")


def test_rows_of_the_table_of_arguments_have_two_cells(reference_pages):
    rows = [line for line in reference_pages.commands().splitlines() if line.startswith("|")]
    assert any("DIR&#124;URL" in line for line in rows)
    assert [line for line in rows if line.count("|") != 3] == []


def test_files_have_the_names_that_the_page_has(reference_pages):
    for name, module, _ in reference_pages.FILES:
        if name != "MODEL_DATASET_EPOCH.pt":
            source = Path(importlib.import_module(module).__file__).read_text()
            assert f'"{name}"' in source, name


def test_every_page_has_a_place_on_the_site():
    text = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert str(page.relative_to(ROOT / "docs")) in text, f"{page} is not in mkdocs.yml"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path):
    pytest.importorskip("material", reason="the site needs 'pip install mkdocs-material'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=str(ROOT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="
                            r"[\"']?(?:https?:)?//\S+", page.read_text())
        assert loaded == [], page
    assert (tmp_path / "site" / "search" / "search_index.js").is_file()


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_on_the_pages_are_called_as_written(page):
    for name in re.findall(r"`ipucnn\.(\w+)[\w.]*\(", page.read_text()):
        assert name == "plugin" or name in ipucnn.__all__, f"ipucnn.{name} is no public name"


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`?make ([a-z][a-z_-]*)", page.read_text()):
            if target not in {"and"}:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)


def test_the_lines_of_python_run(tmp_path, monkeypatch, capsys):
    """From a folder of photographs to a named answer, block after block."""
    monkeypatch.chdir(tmp_path)
    ipucnn.shapes("photos", per_class=13, size=40)  # numbers of three digits, as on the page
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
