"""The metadata scan, what the user allows, and what is never imported."""

import importlib
import os
import sys
from importlib import metadata

import pytest
from plugin_sources import python

from ipucnn.core.registry import discovery
from ipucnn.core.registry.discovery import PluginSettings, Provider
from ipucnn.core.registry.registry import Registry
from ipucnn.testing.distributions import write_distribution

PLUGIN = """
import ipucnn
{before}
@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="tinynet", summary="s", target="json:loads")]
"""


# -- settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(("environ", "expected"), [
    ({}, PluginSettings()),
    ({"IPUCNN_DISABLE_PLUGINS": "1"}, PluginSettings(disable_all=True)),
    ({"IPUCNN_DISABLE_PLUGINS": "all"}, PluginSettings(disable_all=True)),
    ({"IPUCNN_DISABLE_PLUGINS": "0"}, PluginSettings()),
    ({"IPUCNN_DISABLE_PLUGINS": "a, b c"}, PluginSettings(disabled=frozenset("abc"))),
    ({"IPUCNN_LOAD_PLUGINS": ""}, PluginSettings(only=frozenset())),
    ({"IPUCNN_LOAD_PLUGINS": "*"}, PluginSettings()),
    ({"IPUCNN_LOAD_PLUGINS": "a,b"}, PluginSettings(only=frozenset("ab"))),
    ({"IPUCNN_PLUGIN": os.pathsep.join(["x.py", "y"])}, PluginSettings(extra=("x.py", "y"))),
    ({"IPUCNN_STRICT_PLUGINS": "1"}, PluginSettings(strict=True)),
    ({"IPUCNN_STRICT_PLUGINS": "0"}, PluginSettings()),
    ({"IPUCNN_DISABLE_PLUGINS": "True"}, PluginSettings(disable_all=True)),
    ({"IPUCNN_DISABLE_PLUGINS": "on"}, PluginSettings(disable_all=True)),
    ({"IPUCNN_DISABLE_PLUGINS": "Off"}, PluginSettings()),
    ({"IPUCNN_LOAD_PLUGINS": "No"}, PluginSettings(only=frozenset())),
    ({"IPUCNN_STRICT_PLUGINS": "False"}, PluginSettings()),
    ({"IPUCNN_STRICT_PLUGINS": "off"}, PluginSettings()),
    ({"IPUCNN_STRICT_PLUGINS": "Yes"}, PluginSettings(strict=True)),
])
def test_settings_from_the_environment(environ, expected):
    assert PluginSettings.from_environment(environ) == expected


def test_built_ins_are_never_refused():
    builtin = Provider("ipucnn", "1", "models.resnet", "x")
    for settings in (PluginSettings(disable_all=True), PluginSettings(only=frozenset()),
                     PluginSettings(disabled=frozenset({"ipucnn"}))):
        assert settings.refusal(builtin) == ""


def test_provider_answers_to_its_distribution_and_entry_point():
    provider = Provider("My_Dist", "1", "models.tiny", "x")
    assert all(provider.answers_to(n) for n in ("my-dist", "MY.DIST", "my_dist", "models.tiny"))
    assert not provider.answers_to("models")
    assert provider.is_distribution("my-dist")
    assert not provider.is_distribution("models.tiny")
    assert provider.label == "My_Dist 1"


@pytest.mark.parametrize("settings", [
    {"disabled": frozenset({"mispelt", "Fine_Dist"})},
    {"only": frozenset({"mispelt", "models.fine"})},
])
def test_names_that_mean_no_plugin_are_noted_once(fake_distribution, caplog, settings):
    fake_distribution("fine-dist", {"fine_plugin.py": PLUGIN.format(before="")},
                      {"models.fine": "fine_plugin"})
    found = Registry(PluginSettings(**settings))
    found.rows()
    found.rows("model")
    assert [text for text in caplog.messages if "is called" in text] == [
        "no installed plugin is called 'mispelt' (IPUCNN_DISABLE_PLUGINS, IPUCNN_LOAD_PLUGINS or "
        "'--no-plugins')"]


def test_a_listing_notes_them_too(cli, caplog):
    assert cli("list-plugins", "optimizers", "--no-plugins=Mispelt").code == 0
    assert "no installed plugin is called 'mispelt'" in caplog.text


@pytest.mark.parametrize(("module", "installed"), [
    ("shared_space.here", True), ("shared_space.here.part", True),
    ("shared_space.inner.deep", True),
    ("shared_space.lost", False), ("shared_space.inner.lost", False), ("no_such_space.lost", False),
    ("os.path", True), ("importlib.no_such_module", True), ("sys", True),
])
@pytest.mark.parametrize("imported", [False, True])
def test_a_module_of_a_namespace_package_is_looked_for(tmp_path, monkeypatch, module, installed,
                                                       imported):
    for place in ("first/shared_space/here", "second/shared_space/inner/deep"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "__init__.py").write_text("1 / 0")  # it must not be imported
        monkeypatch.syspath_prepend(str(tmp_path / place.partition("/")[0]))
    monkeypatch.delitem(sys.modules, "shared_space", raising=False)
    if imported:
        importlib.import_module("shared_space")
    discovery.forget_modules()
    assert discovery.is_installed(module) is installed
    sys.modules.pop("shared_space", None)
    discovery.forget_modules()


@pytest.mark.parametrize(("content", "installed"), [
    ("runs/notes.txt", False), ("__init__.py", True)])
def test_a_folder_in_the_working_folder_is_no_package(tmp_path, monkeypatch, content, installed):
    file = tmp_path / "some_engine" / content
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` and notebooks do
    monkeypatch.chdir(tmp_path)
    discovery.forget_modules()
    assert discovery.is_installed("some_engine") is installed
    discovery.forget_modules()


# -- the scan ----------------------------------------------------------------------------


def test_scan_finds_distributions_with_their_versions_built_ins_first(fake_distribution):
    fake_distribution("a-dist", {"a_plugin.py": ""}, {"models.a": "a_plugin"}, version="3.2")
    found = discovery.scan()
    assert [f.provider for f in found if f.provider.distribution == "a-dist"] == [
        Provider("a-dist", "3.2", "models.a", "a_plugin")]
    builtin = [f.provider.builtin for f in found]
    assert builtin[0]
    assert builtin == sorted(builtin, reverse=True)


def test_first_distribution_of_a_name_on_the_path_is_the_one_in_force(tmp_path, monkeypatch):
    for version in ("1.0", "2.0"):  # the later one is put in front
        write_distribution(tmp_path / version, "same", {}, {"models.a": "m" + version[0]}, version)
        monkeypatch.syspath_prepend(str(tmp_path / version))
    discovery.refresh()
    versions = [f.provider.version for f in discovery.scan()
                if f.provider.distribution == "same"]
    discovery.refresh()
    assert versions == ["2.0"]


def test_damaged_metadata_is_skipped_with_a_warning(fake_distribution, caplog):
    folder = fake_distribution("damaged", {}, {"models.a": "m"})
    next(folder.glob("*.dist-info/entry_points.txt")).write_bytes(b"[ipucnn]\nmodels.a = \xff\xfe")
    fake_distribution("intact", {}, {"models.b": "m"})
    names = {f.provider.distribution for f in discovery.scan()}
    assert "intact" in names
    assert "damaged" not in names
    assert "cannot read the metadata" in caplog.text


def test_one_metadata_scan_serves_every_registry_and_look_up(monkeypatch):
    calls = []
    real = metadata.distributions
    monkeypatch.setattr(metadata, "distributions", lambda *a, **k: calls.append(1) or real(*a, **k))
    discovery.refresh()
    for _ in range(2):
        reg = Registry(PluginSettings())
        reg.get("optimizer", "sgd")
        reg.rows()
    assert len(calls) == 1
    discovery.refresh()
    discovery.scan()
    assert len(calls) == 2


# -- what is not imported, in a process of its own ---------------------------------------


def test_built_in_names_import_no_third_party_plugin(tmp_path):
    write_distribution(tmp_path, "sleeper", {"sleeper_plugin.py": PLUGIN.format(before="")},
                       {"models.a": "sleeper_plugin"})
    code = """if True:
        import json, sys
        from ipucnn.core.registry.registry import registry
        for kind, name in [("model", "resnet50"), ("optimizer", "sgd"), ("norm-layer", "group"),
                           ("dataset", "shapes"), ("lr-schedule", "cosine"), ("backend", "torch")]:
            registry().get(kind, name)
        before = "sleeper_plugin" in sys.modules
        registry().get("model", "tinynet")
        print(json.dumps([before, "sleeper_plugin" in sys.modules]))"""
    assert python(code, tmp_path) == [False, True]


def test_slow_plugin_costs_nothing_until_it_is_needed(tmp_path):
    before = "import time; time.sleep(60)"
    write_distribution(tmp_path, "slow", {"slow_plugin.py": PLUGIN.format(before=before)},
                       {"models.slow": "slow_plugin"})
    code = """if True:
        import json, time
        start = time.monotonic()
        from ipucnn.core.registry.registry import registry
        registry().get("optimizer", "sgd"); registry().names("model")
        print(json.dumps(time.monotonic() - start))"""
    assert python(code, tmp_path) < 50


@pytest.mark.parametrize("variables", [
    {"IPUCNN_DISABLE_PLUGINS": "1"}, {"IPUCNN_DISABLE_PLUGINS": "writer"},
    {"IPUCNN_DISABLE_PLUGINS": "models.writer"}, {"IPUCNN_LOAD_PLUGINS": ""}, {},
])
def test_environment_keeps_a_plugin_from_being_imported(tmp_path, variables):
    mark = tmp_path / "imported"
    before = f"open({str(mark)!r}, 'w').close()"
    write_distribution(tmp_path, "writer", {"writer_plugin.py": PLUGIN.format(before=before)},
                       {"models.writer": "writer_plugin"})
    code = """if True:
        import json
        from ipucnn.core.registry.registry import registry
        rows = registry().rows("model")
        print(json.dumps([r.state.value for r in rows if r.provider.distribution == "writer"]))"""
    assert python(code, tmp_path, **variables) == ["disabled" if variables else "ok"]
    assert mark.exists() is not bool(variables)


def test_plugin_named_in_the_environment_is_loaded(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.format(before=""))
    code = """if True:
        import json
        from ipucnn.core.registry.registry import registry
        print(json.dumps(registry().get("model", "tinynet").summary))"""
    assert python(code, IPUCNN_PLUGIN=str(tmp_path / "mine.py")) == "s"


HEAVY = ("torch", "torchvision", "numpy", "PIL", "onnx", "onnxruntime", "openvino", "ncnn",
         "pandas", "pyarrow", "poptorch", "efficientnet_pytorch", "pretrainedmodels", "safetensors",
         "rich", "yaml", "pytest")


def test_listing_everything_imports_nothing_heavy():
    code = f"""if True:
        import json, sys
        import ipucnn, ipucnn.testing
        from ipucnn.doctor import job as doctor
        from ipucnn.core.registry.registry import registry
        rows = registry().rows()
        doctor.examine()
        print(json.dumps([len(rows), [m for m in {HEAVY!r} if m in sys.modules]]))"""
    count, heavy = python(code)
    assert count >= 30
    assert heavy == []
