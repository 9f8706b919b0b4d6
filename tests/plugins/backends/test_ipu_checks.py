"""Checks of the Poplar SDK; none of it is imported without `--deep`."""

import json
import sys
from importlib import metadata

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.checks import OK, PROBLEM, WARNING
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, use
from ipucnn.doctor import job as doctor
from ipucnn.plugins.backends._ipu.checks import check_sdk
from ipucnn.plugins.backends._ipu.variables import check_variables
from ipucnn.plugins.launchers import poprun

TORCH = metadata.version("torch").partition("+")[0]
MAKER = "Author: Graphcore\nAuthor-email: contact@graphcore.ai\nHome-page: http://graphcore.ai\n"
HERE = "{}.{}".format(*sys.version_info)
NEEDS = f"Requires-Python: =={HERE}.*\nRequires-Dist: torch=={metadata.version('torch')}\n"
CORE = "poptorch/poptorch_core.cpython-{}{}-x86_64-linux-gnu.so".format(*sys.version_info)
POPART_CORE = CORE.partition("/")[2].replace("poptorch", "popart")


def named(checks):
    return {check.name: check for check in checks}


@pytest.fixture
def install(fake_distribution, without_poptorch):
    """Return what installs a `poptorch`, which must never be imported."""
    def install(version="3.3.0+112992", stated=MAKER + NEEDS, core=CORE):
        modules = {"poptorch/__init__.py": "raise AssertionError('it was imported')"}
        info = fake_distribution("poptorch", {**modules, **({core: ""} if core else {})}, {},
                                 version) / f"poptorch-{version}.dist-info" / "METADATA"
        info.write_text(info.read_text() + stated)

    return install


@pytest.fixture
def sdk(tmp_path):
    """Return what makes the environment of a shell in which an SDK is enabled."""
    def make(libraries=("poplar", "popart"), version="3.3.0+7857", **more):
        folder = tmp_path / f"poplar-ubuntu_20_04-{version}"
        (folder / "lib").mkdir(parents=True)
        for name in libraries:
            (folder / "lib" / f"lib{name}.so").write_text("")
        return {"POPLAR_SDK_ENABLED": str(folder), "LD_LIBRARY_PATH": str(folder / "lib"), **more}

    return make


# -- PopTorch ----------------------------------------------------------------------------------


def test_graphcores_wheel_is_recognised_and_not_imported(install, sdk):
    install()
    checks = check_sdk(sdk())
    assert [check.status for check in checks] == [OK] * 4
    assert named(checks)["PopTorch"].detail == "3.3.0+112992, Graphcore's"
    assert "poptorch" not in sys.modules


@pytest.mark.parametrize("wrong", [{"stated": "Author: Somebody\n"}, {"core": ""}])
def test_a_package_of_that_name_from_elsewhere_is_a_problem(install, wrong):
    install(**wrong)
    check = named(check_sdk({}))["PopTorch"]
    assert check.status == PROBLEM
    assert "not Graphcore's" in check.detail
    assert "pip uninstall poptorch" in check.remedy
    assert "PopTorch requirements" not in named(check_sdk({}))


@pytest.mark.parametrize(("version", "status"), [
    ("3.2.0", PROBLEM), ("2.6.0+1", PROBLEM), ("3.4.0+2", OK), ("3.10.0", WARNING)])
def test_releases(install, version, status):
    install(version)
    check = named(check_sdk({}))["PopTorch"]
    assert check.status == status
    assert version in check.detail
    assert ("3.3 and 3.4" in check.detail) is (status != OK)


# -- PopART ------------------------------------------------------------------------------------


@pytest.fixture
def popart(tmp_path, monkeypatch):
    """Return what enables a `popart`, which must never be imported."""
    def enable(version="3.3.0+7857", core=POPART_CORE):
        folder = tmp_path / f"popart-ubuntu_20_04-{version}" / "python"
        (folder / "popart").mkdir(parents=True)
        (folder / "popart" / "__init__.py").write_text("raise AssertionError('it was imported')")
        if core:
            (folder / core).write_text("")
        monkeypatch.syspath_prepend(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "popart"]:
            monkeypatch.delitem(sys.modules, name)
        return named(check_sdk({}))["PopART"]

    return enable


def test_no_popart():
    check = named(check_sdk({}))["PopART"]
    assert (check.status, check.detail) == (OK, "not enabled in this shell")
    assert "enable.sh" in check.remedy


@pytest.mark.parametrize(("version", "status"), [
    ("3.3.0+7857", OK), ("3.4.0", OK), ("3.2.1", PROBLEM), ("3.5.0", WARNING)])
def test_popart_of_the_sdk(popart, version, status):
    check = popart(version)
    assert check.status == status
    assert check.detail.startswith(version.partition("+")[0] + ", Graphcore's")
    assert "popart" not in sys.modules


def test_popart_for_another_python(popart):
    check = popart(core="popart_core.cpython-27-x86_64-linux-gnu.so")
    assert check.status == PROBLEM
    assert f"made for Python 2.7, and this is {HERE}" in check.detail


def test_popart_of_a_package_index(popart, fake_distribution):
    assert popart(core="").status == WARNING
    fake_distribution("popart", {"popart/unrelated.py": ""}, {}, "0.1")
    check = popart("0.1", core="")
    assert check.status == PROBLEM
    assert "is not Graphcore's" in check.detail
    assert check.remedy.startswith("pip uninstall popart")


# -- PopTorch requirements ----------------------------------------------------------------------


@pytest.mark.parametrize(("stated", "core", "found"), [
    ("Requires-Python: ==2.7.*\n", CORE, f"made for Python 2.7, and this is {HERE}"),
    ("", "poptorch/poptorch_core.cpython-27-x86_64-linux-gnu.so", "made for Python 2.7"),
    ("Requires-Dist: torch (==1.13.1)\n", CORE, "needs torch 1.13.1, and "),
    ("Requires-Dist: torch==1.13.1+cpu\n", CORE, "needs torch 1.13.1, and ")])
def test_what_a_wheel_needs(install, stated, core, found):
    install(stated=MAKER + stated, core=core)
    check = named(check_sdk({}))["PopTorch requirements"]
    assert check.status == PROBLEM
    assert found in check.detail
    assert "environment" in check.remedy


def test_what_is_not_installed_is_no_problem(without_poptorch):
    check = named(check_sdk({}))["PopTorch"]
    assert (check.status, check.detail) == (OK, "not installed, needs the Poplar SDK")
    assert "pip install" not in check.remedy


def test_a_module_without_a_distribution(without_poptorch, tmp_path, monkeypatch):
    (tmp_path / "poptorch.py").write_text("raise AssertionError('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = named(check_sdk({}))["PopTorch"]
    assert check.status == WARNING
    assert str(tmp_path / "poptorch.py") in check.detail


# -- the shell ---------------------------------------------------------------------------------


def test_a_shell_without_the_sdk(install, without_poptorch):
    assert named(check_sdk({}))["IPU SDK"].status == OK
    install()
    check = named(check_sdk({}))["IPU SDK"]
    assert check.status == WARNING
    assert "source the enable.sh" in check.remedy


@pytest.mark.parametrize(("made", "message"), [
    ({"libraries": ("poplar",)}, "no folder of LD_LIBRARY_PATH has libpopart.so"),
    ({"libraries": ()}, "libpoplar.so or libpopart.so"),
    ({"version": "3.4.0+1"}, "is of 3.4, and PopTorch is 3.3.0+112992"),
    ({"POPLAR_SDK_ENABLED": "/nowhere/poplar"}, "which is not there")])
def test_a_shell_with_half_an_sdk(install, sdk, made, message):
    install()
    check = named(check_sdk(sdk(**made)))["IPU SDK"]
    assert check.status == WARNING
    assert message in check.detail
    assert check.remedy


# -- variables ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "status", "meaning"), [
    ("POPTORCH_IPU_MODEL", "1", WARNING, "emulation: measured speeds are meaningless"),
    ("POPTORCH_IPU_MODEL", "true", WARNING, "reads a number"),
    ("POPTORCH_SMALL_IPU_MODEL", "1", WARNING, "four tiles"),
    ("POPTORCH_IPU_MODEL_VERSION", "ipu2", OK, "emulated"),
    ("POPTORCH_IPU_MODEL_VERSION", "mk3", WARNING, "ipu21"),
    ("POPTORCH_WAIT_FOR_IPU", "1", OK, "waits"),
    ("POPTORCH_CACHE_DIR", "there", OK, "--model-cache-path"),
    ("POPTORCH_DEFAULT_OPTIONS", '{"deviceIterations": 3}', WARNING, "does not check"),
    ("POPTORCH_LOG_LEVEL", "TRACE", WARNING, "slow"),
    ("POPLAR_LOG_LEVEL", "ERR", OK, "messages"),
    ("POPTORCH_IPUMODEL", "1", WARNING, "reads no such variable"),
    ("POPLAR_ENGINE_OPTIONS", '{"a": "b"}', OK, "--exchange-memory-target"),
    ("POPLAR_ENGINE_OPTIONS", '{"autoReport.all": "true"}', WARNING, "profile"),
    ("POPLAR_ENGINE_OPTIONS", "a=b", WARNING, "JSON"),
    ("PVTI_OPTIONS", '{"enable": "true"}', WARNING, "trace"),
    ("IPUOF_CONFIG_PATH", "/nowhere", WARNING, "no IPU is found"),
    ("IPUOF_VIPU_API_PARTITION_ID", "p17", OK, "partition")])
def test_a_variable_and_what_it_means(name, value, status, meaning):
    (check,) = check_variables({name: value, "PATH": "/bin"})
    assert (check.name, check.status) == (name, status)
    assert check.detail.startswith(f"{value}: ")
    assert meaning in check.detail
    assert check.remedy == (f"unset {name}" if status == WARNING else "")


def test_variables_without_effect():
    assert check_variables({"POPTORCH_IPU_MODEL": "0", "POPTORCH_WAIT_FOR_IPU": "0",
                            "POPTORCH_CACHE_DIR": "", "HOME": "/"}) == []


# -- poprun ------------------------------------------------------------------------------------


def test_poprun_and_what_it_needs():
    env = {"POPDIST_NUM_TOTAL_REPLICAS": "8", "POPDIST_NUM_LOCAL_REPLICAS": "4"}
    found = named(poprun.checks(env, lambda name: name == "popdist" or None))
    assert found["poprun"].detail == "4 of 8 replicas are this instance's"
    assert [found[name].status for name in ("poprun", "popdist", "horovod")] == [OK, OK, WARNING]
    assert "horovod" in found["horovod"].remedy
    (check,) = poprun.checks({"OMPI_COMM_WORLD_SIZE": "2"}, lambda _: None)
    assert (check.status, check.detail) == (
        OK, "not installed; only several instances of poprun need it")
    check, _ = poprun.checks({"POPDIST_NUM_TOTAL_REPLICAS": "8"}, lambda _: None)
    assert (check.status, "poprun" in check.remedy) == (WARNING, True)


@pytest.mark.parametrize(("about", "status", "detail"), [
    ({"pytorch": TORCH}, OK, f"built for torch {TORCH}"),
    ({"pytorch": f"{TORCH}+cpu"}, OK, f"built for torch {TORCH}+cpu"),
    ({"pytorch": "1.13.1"}, WARNING, f"it was built for torch 1.13.1, and torch {TORCH}"),
    ({"tensorflow": "2.9"}, WARNING, "it was built without PyTorch"),
    (None, WARNING, "it was built without PyTorch")])
def test_horovod_is_built_for_one_torch(tmp_path, monkeypatch, about, status, detail):
    package = tmp_path / "horovod"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    if about is not None:
        (package / "metadata.json").write_text(json.dumps(about))
    monkeypatch.syspath_prepend(str(tmp_path))
    (check,) = poprun.checks({})
    assert (check.name, check.status) == ("horovod", status)
    assert detail in check.detail
    assert ("many-hosts.md" in check.remedy) is (status == WARNING)


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def diagnosed(capsys, monkeypatch):
    monkeypatch.setenv("IPUCNN_DISABLE_PLUGINS", "1")
    use(None)

    def run(*options):
        code = invoke(["doctor", "--json", *options])
        checks = json.loads(capsys.readouterr()[0])["checks"]
        return code, {check["name"]: check for check in checks}

    yield run
    use(None)


def test_the_command_fails_on_a_package_from_elsewhere(install, diagnosed, monkeypatch):
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    install(stated="", core="")
    code, checks = diagnosed()
    assert code == 1
    assert checks["PopTorch"]["status"] == PROBLEM
    assert "measured speeds are meaningless" in checks["POPTORCH_IPU_MODEL"]["detail"]


def test_the_deep_command_reports_the_ipus(poptorch_double):
    plugins = Registry(PluginSettings(disable_all=True))
    check = named(doctor.examine(deep=True, plugins=plugins).checks)["backend poptorch"]
    assert check.status == OK
    for fact in ("IPU version 2, up to 16 in a program", "half precision is float16",
                 "poptorch 3.3.0-double"):
        assert fact in check.detail
    poptorch_double._machine.MACHINE.ipus = 0
    report = doctor.examine(deep=True, plugins=plugins)
    check = named(report.checks)["backend poptorch"]
    assert (check.status, "no IPU" in check.detail) == (WARNING, True)
    assert "POPTORCH_IPU_MODEL" in check.remedy
    assert report.ok
