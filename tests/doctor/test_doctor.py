"""The checks of the doctor, and their status."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from ipucnn.core.environment import required
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.doctor import job as doctor

GOOD = """
import ipucnn
{before}
@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="tinynet", summary="s", target="json:loads"{more})]
"""


def examined(**settings):
    return doctor.examine(plugins=Registry(PluginSettings(**settings)))


def one(report, name):
    (check,) = [check for check in report.checks if check.name == name]
    return check


@pytest.fixture
def install(fake_distribution):
    def install(name, before="", more=""):
        module = name.replace("-", "_") + "_plugin"
        fake_distribution(name, {module + ".py": GOOD.format(before=before, more=more)},
                          {"models." + name: module})

    return install


def test_this_installation_is_sound_and_the_report_is_plain():
    report = examined(disable_all=True)
    assert report.ok, [c for c in report.checks if c.status == doctor.PROBLEM]
    result = json.loads(json.dumps(report.as_dict()))
    assert result["ok"] is True
    names = {check["name"] for check in result["checks"]}
    assert names >= {"python", "ipucnn", "torch", "torchvision", "torch pair", "plugins", "cores",
                     "memory", "decoders", "PopTorch", "IPU SDK", "working folder", "cache folder"}
    assert all(set(check) == {"name", "status", "detail", "remedy"} for check in result["checks"])


def test_an_engine_that_is_not_installed_is_no_problem(install):
    install("needy", more=", requires=(ipucnn.Requirement('no_such_engine', 'pip install it'),)")
    report = examined()
    check = one(report, "model tinynet")
    assert (check.status, check.remedy) == (doctor.OK, "pip install it")
    assert "no_such_engine" in check.detail
    assert report.ok


def test_a_broken_plugin_is_a_problem_with_the_command_that_fixes_it(install):
    install("broken-dist", before="import no_such_module_anywhere")
    report = examined()
    check = one(report, "plugin broken-dist")
    assert check.status == doctor.PROBLEM
    assert check.remedy == "pip uninstall broken-dist"
    for fact in ("models.broken-dist", "broken-dist 1.0", "no_such_module_anywhere"):
        assert fact in check.detail
    assert not report.ok
    assert not report.as_dict()["ok"]


def test_a_disabled_plugin_is_no_problem(install):
    install("broken-dist", before="import no_such_module_anywhere")
    report = examined(disable_all=True)
    assert one(report, "plugin broken-dist").status == doctor.OK
    assert report.ok


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_deprecated_part_is_reported_with_its_plugin(install):
    install("old-net", more=", options=('width',)")
    check = one(examined(), "model tinynet")
    assert check.status == "warning"
    assert "of old-net 1.0: a tuple as 'options' of ModelSpec is deprecated" in check.detail
    assert check.remedy == "upgrade old-net when there is a newer version"


def test_a_broken_local_plugin_is_a_problem(tmp_path):
    (tmp_path / "mine.py").write_text("1 / 0")
    report = examined(extra=(str(tmp_path / "mine.py"),), disable_all=True)
    assert not report.ok
    (check,) = [c for c in report.checks if c.status == doctor.PROBLEM]
    assert "ZeroDivisionError" in check.detail
    assert "fix it" in check.remedy


def test_checks_of_a_plugin_are_reported(install):
    install("checked", before="""
from ipucnn.core.checks import Check
def checks():
    return [Check("licence", "warning", "it ends soon", "renew it")]
""", more=", checks='checked_plugin:checks'")
    check = one(examined(), "licence")
    assert (check.status, check.detail) == (doctor.WARNING, "it ends soon")
    assert check.remedy == "renew it"


def test_checks_that_fail_are_a_problem_of_their_plugin(install):
    install("checked", before="def checks(): 1 / 0", more=", checks='checked_plugin:checks'")
    check = one(examined(), "model tinynet")
    assert check.status == doctor.PROBLEM
    assert "'pip uninstall checked'" in check.remedy
    assert "ZeroDivisionError" in check.detail


def test_checks_that_two_records_share_are_made_once():
    names = [check.name for check in examined(disable_all=True).checks]
    assert names.count("PopTorch") == names.count("PopART") == names.count("IPU SDK") == 1


@pytest.mark.parametrize(("version", "remedy"), [(2, "pip install --upgrade ipucnn"),
                                                 (0, "pip install --upgrade odd-dist")])
def test_an_incompatible_plugin_is_a_problem(install, version, remedy):
    install("odd-dist", more=f", api_version={version}")
    check = one(examined(), "model tinynet")
    assert (check.status, check.remedy) == (doctor.PROBLEM, remedy)


def test_a_conflict_is_a_warning(install):
    install("first")
    install("second", more=", input_size=64")
    report = examined()
    clash = [check for check in report.checks if check.name == "model tinynet"]
    assert [check.status for check in clash] == [doctor.WARNING] * 2
    assert {check.remedy for check in clash} == {"use 'first:tinynet'", "use 'second:tinynet'"}
    assert report.ok


def test_a_slow_plugin_is_a_warning(install):
    install("sluggish", before="import time; time.sleep(1.05)")
    check = one(examined(), "plugin models.sluggish")
    assert check.status == doctor.WARNING
    assert "sluggish 1.0" in check.detail
    assert check.remedy == "export IPUCNN_DISABLE_PLUGINS=sluggish"


def test_without_plugins_installed_it_still_reports(monkeypatch):
    from ipucnn.core.registry import discovery, registry

    monkeypatch.setattr(discovery, "builtins", list)
    registry.use(None)
    report = doctor.examine()
    check = one(report, "plugins")
    assert check.status == doctor.PROBLEM
    assert "pip install" in check.remedy
    assert one(report, "cores").status == doctor.OK


@pytest.mark.parametrize(("version", "status"), [
    ((3, 7, 17), doctor.PROBLEM), ((3, 8, 0), doctor.OK), ((3, 13, 1), doctor.OK)])
def test_python(version, status):
    assert doctor.check_python(version).status == status


@pytest.mark.parametrize(("torch", "vision", "fits"), [
    ("2.0.1", "0.15.2", True), ("2.0.1+cpu", "0.15.2+cpu", True), ("2.0.1", "0.15.1", False),
    ("2.14.1", "0.29.1", True), ("2.14.1+cu130", "0.29.1+cu130", True),
    ("2.13.0", "0.29.1", False), ("2.6.0", "0.21.0", True), ("2.6.0", "0.2.1", False),
    ("3.0.0", "1.0", True)])
def test_torch_pair(torch, vision, fits):
    pair = doctor.check_torch(torch, vision)[-1]
    assert pair.name == "torch pair"
    assert (pair.status == doctor.OK) is fits
    if not fits:
        assert pair.remedy.startswith("pip install torch==" + torch.partition("+")[0])
        assert "torchvision==0." in pair.remedy


def test_missing_torch():
    checks = doctor.check_torch("", "0.15.2")
    assert [c.status for c in checks] == [doctor.PROBLEM, doctor.OK]
    assert checks[0].remedy == "pip install torch torchvision"


def test_folders(tmp_path, monkeypatch):
    assert doctor.check_folder("f", tmp_path / "not" / "yet").status == doctor.OK
    (tmp_path / "file").write_text("")
    assert doctor.check_folder("f", tmp_path / "file").status == doctor.WARNING
    monkeypatch.setattr(doctor, "LITTLE_SPACE", 1 << 80)
    check = doctor.check_folder("f", tmp_path)
    assert check.status == doctor.WARNING
    assert "GiB free" in check.detail
    monkeypatch.setattr(os, "access", lambda *a: False)
    assert "cannot be written" in doctor.check_folder("f", tmp_path).detail


def test_a_misspelt_variable_is_a_warning(monkeypatch):
    for name in ("IPUCNN_CACH", "IPUCNN_OF_A_PLUGIN", "IPUCNN_CACHE"):
        monkeypatch.setenv(name, "/tmp")
    found = [(check.detail, check.status, check.remedy) for check in examined().checks
             if check.name == "variable"]
    assert found == [("IPUCNN_CACH is not read", doctor.WARNING, "did you mean IPUCNN_CACHE?")]


def test_the_known_variables_are_those_that_are_read():
    package = Path(doctor.__file__).parents[1]
    named = {name for path in package.rglob("*.py")
             for name in re.findall(r"""["'](IPUCNN_[A-Z_]+)["']""", path.read_text("utf-8"))}
    assert set(doctor.VARIABLES) == named


def test_deep_tries_the_engines():
    report = doctor.examine(deep=True, plugins=Registry(PluginSettings(disable_all=True)))
    assert report.ok, [c for c in report.checks if c.status == doctor.PROBLEM]
    assert "float32 on " in one(report, "convolution in single precision").detail
    assert "16 on " in one(report, "convolution in half precision").detail
    assert one(report, "JPEG decoding").detail == "works"
    assert "simplejpeg" in one(report, "decoder versions").detail
    assert "half precision" in one(report, "backend torch").detail


def test_deep_reports_a_backend_whose_probe_raises(fake_distribution):
    fake_distribution("bad-engine", {"bad_engine_plugin.py": """
        import ipucnn
        class Engine:
            def probe(self):
                raise OSError("driver lost")
        @ipucnn.hookimpl
        def ipucnn_backends():
            return [ipucnn.BackendSpec(name="bad-engine", summary="s",
                                       target="bad_engine_plugin:Engine")]
        """}, {"backends.bad": "bad_engine_plugin"})
    report = doctor.examine(deep=True, plugins=Registry(PluginSettings()))
    check = one(report, "backend bad-engine")
    assert (check.status, check.detail) == (doctor.PROBLEM, "OSError: driver lost")
    assert check.remedy == "pip uninstall bad-engine"
    assert not report.ok


def test_required_packages_that_are_not_installed_are_problems(monkeypatch):
    assert {"typer", "simplejpeg"} <= set(required())
    assert not {"onnx", "pytest"} & set(required())
    monkeypatch.setattr(doctor, "required", lambda: {"rich": "rich>=13", "lost": "lost>=2"})
    report = examined(disable_all=True)
    assert [check.detail for check in report.checks if check.name in ("rich", "lost")] == [
        "not installed"]
    assert one(report, "lost").remedy == "pip install 'lost>=2'"
    assert not report.ok


def test_a_machine_without_a_temporary_folder(monkeypatch):
    def lost():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(doctor.tempfile, "gettempdir", lost)
    check = one(examined(disable_all=True), "temporary folder")
    assert (check.status, check.detail) == (
        doctor.PROBLEM, "No usable temporary directory found in ['/tmp']")
    assert "TMPDIR" in check.remedy
