"""`ipucnn new-plugin`: what it writes works as it is written, for every kind."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import pytest

from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.scaffolding.scaffold import CHOICES, NewPlugin
from ipucnn.testing import BackendSuite
from ipucnn.testing import suite as suites
from ipucnn.testing.reports import Wishes, check_all, failures

TRAINING_CHECKS = {"test_training_with_every_optimizer", "test_training_resumes_exactly"}


@pytest.fixture
def installed(tmp_path, cli, fake_distribution, monkeypatch):
    """Write a distribution with `new-plugin` and install it; give its folder."""
    monkeypatch.chdir(tmp_path)

    def new(name, *kinds):
        words = [word for kind in kinds for word in ("--kind", kind)]
        done = cli("new-plugin", name, *words)
        assert done.code == 0, done.err
        folder = tmp_path / f"ipucnn-{name}"
        plugin = NewPlugin(name, kinds)
        fake_distribution(plugin.distribution, {
            str(path.relative_to(folder / "src")): path.read_text()
            for path in (folder / "src").rglob("*.py")},
            {f"{kind.prefix}.{name}": f"{plugin.package}.plugin" for kind in plugin.records})
        return folder

    return new


def own_results(folder, optimizers):
    """Run the classes of a distribution's own tests; give the checks that did not pass."""
    names = {}
    exec((folder / "tests" / "test_conformance.py").read_text(), names)
    classes = [value for name, value in names.items() if name.startswith("Test")]
    assert classes
    for cls in classes:
        if hasattr(cls, "optimizers"):
            cls.optimizers = optimizers
    return {(cls.__name__, check): result for cls in classes
            for check, result in suites.run(cls).items() if result != "passed"}


@pytest.mark.parametrize("kind", CHOICES)
def test_a_distribution_of_each_kind_works(installed, kind):
    folder = installed("demo-x", kind)
    registries.use(Registry(PluginSettings()))
    found = own_results(folder, ("sgd", "adamw"))
    assert {result for result in found.values() if not result.startswith("skipped: ")} == set()
    skipped = {check for _, check in found}
    assert len(skipped) <= (5 if kind == "training-backend" else 17 if kind == "backend" else 2)
    again = [check for check in suites.checks(BackendSuite) if "training" in check]
    results = check_all(["ipucnn-demo-x"], Wishes(exclude=dict.fromkeys(again, "done above")))
    assert failures(results) == []
    assert len(results) == 2


def test_several_kinds_in_one_distribution(installed, cli):
    folder = installed("mixed", "model", "dataset", "norm-layer", "optimizer", "lr-schedule",
                       "loss", "logger")
    done = cli("train", "--model", "mixed", "--data", "mixed", "--normlayer", "mixed",
               "--optimizer", "mixed", "--lr-schedule", "mixed", "--loss", "mixed",
               "--logger", "mixed", "--log-dir", str(folder / "logs"), "--mixed-width", "4",
               "--mixed-images", "16", "--mixed-temperature", "2", "--mixed-last", "0.1",
               "--batch-size", "8", "--epoch", "1", "--input-size", "16", "--json")
    assert done.code == 0, done.err
    rows = (folder / "logs" / "mixed.jsonl").read_text().splitlines()
    assert {json.loads(row)["kind"] for row in rows} == {"train", "validation"}


@pytest.mark.parametrize("kind", CHOICES)
def test_one_file_of_each_kind_works(tmp_path, cli, kind):
    done = cli("new-plugin", "demo-y", "--kind", kind, "--single-file", "--into", str(tmp_path))
    assert done.code == 0, done.err
    path = tmp_path / "demo_y.py"
    assert done.out.split() == [str(path)]
    results = check_all([str(path)], Wishes(
        exclude=dict.fromkeys(TRAINING_CHECKS, "they take longer")))
    assert failures(results) == []
    assert len(results) == 2


def test_one_file_of_all_kinds(tmp_path, cli):
    kinds = [kind for kind in CHOICES if kind != "backend"]
    done = cli("new-plugin", "all", *(word for kind in kinds for word in ("--kind", kind)),
               "--single-file", "--into", str(tmp_path))
    assert done.code == 0, done.err
    rows = Registry(PluginSettings(extra=(str(tmp_path / "all.py"),), disable_all=True)).rows()
    assert {(row.kind, row.state.value) for row in rows if row.name == "all"} == {
        ("backend" if kind == "training-backend" else kind, "ok") for kind in kinds}


def test_the_index_page_names_distributions_and_plugins(cli, fake_distribution):
    fake_distribution("odd-dist", {"odd.py": """
        import ipucnn

        @ipucnn.hookimpl
        def ipucnn_lr_schedules():
            return [ipucnn.ScheduleSpec(name="odd", summary="a | b *c*", target=abs)]
        """}, {"schedulers.odd": "odd"})
    done = cli("list-plugins", "schedules", "--markdown")
    assert done.code == 0, done.err
    first, built_in, other = done.out.split("## ")
    assert first == "# Plugins\n\n"
    assert "| lr-schedule | cosine |" in built_in
    assert other.startswith("odd-dist 1.0\n")
    assert r"| lr-schedule | odd |  | a \| b \*c\* | ok |" in other
    assert cli("list-plugins", "--markdown", "--json").code == 2


def test_generated_code_imports_the_public_modules_only():
    for kind in CHOICES:
        plugin = NewPlugin("demo", (kind,))
        for name, text in {**plugin.files(), **plugin.single_file()}.items():
            if name.endswith(".py"):
                assert foreign_imports(text) <= {"ipucnn", "ipucnn.plugin", "ipucnn.testing"}, name


def foreign_imports(text):
    """The modules of ipucnn that a source imports."""
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules.update(one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    return {module for module in modules if module.partition(".")[0] == "ipucnn"}


EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/ipucnn-e*/**/*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_import_the_public_modules_only(path):
    assert foreign_imports(path.read_text()) <= {"ipucnn", "ipucnn.plugin", "ipucnn.testing"}


def test_no_placeholder_is_left():
    for kinds in ([kind] for kind in CHOICES):
        plugin = NewPlugin("my-net", tuple(kinds))
        for name, text in {**plugin.files(), **plugin.single_file()}.items():
            assert "{{" not in text.replace("${{ matrix.python }}", ""), name
            assert max(map(len, text.splitlines() or [""])) <= 100, name


def test_into_an_existing_repository(tmp_path, cli):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "LICENSE").write_text("mine")
    done = cli("new-plugin", "ipucnn-demo", "--kind", "loss", "--into", str(tmp_path), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["distribution"] == "ipucnn-demo"
    assert found["kept"] == [str(tmp_path / name) for name in ("README.md", "LICENSE")]
    assert (tmp_path / "README.md").read_text() == "mine"
    assert str(tmp_path / "src" / "ipucnn_demo" / "loss.py") in found["written"]


def test_nothing_is_overwritten(tmp_path, cli):
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    done = cli("new-plugin", "demo", "--kind", "loss", "--into", str(tmp_path))
    assert done.code == 2
    assert f"error: '{tmp_path / 'pyproject.toml'}' exists" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


@pytest.mark.parametrize(("words", "message"), [
    (["Demo", "--kind", "loss"], "the name 'Demo' cannot be that of a plugin"),
    (["demo", "--kind", "colour"], "unknown kind 'colour'"),
    (["sgd", "--kind", "optimizer"], "'sgd' is the name of a built-in optimizer"),
    (["demo", "--kind", "backend", "--kind", "training-backend"],
     "'--kind backend' and '--kind training-backend' exclude each other"),
])
def test_what_cannot_be_written_is_refused(tmp_path, cli, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = cli("new-plugin", *words)
    assert done.code == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_plugin_module_is_light():
    names = importlib.import_module("ipucnn.plugin").NAMES
    for name in names:
        assert getattr(importlib.import_module("ipucnn.plugin"), name) is not None
    assert set(names) <= set(dir(importlib.import_module("ipucnn.plugin")))
