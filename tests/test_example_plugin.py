"""The example distribution, installed by pip and used from a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "ipucnn-example-plugin"
OFFERED = {"model": "tinynet", "dataset": "stripes", "norm-layer": "instance",
           "optimizer": "signsgd", "schedule": "triangular", "backend": "reference"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder into which pip has installed the example, without any network."""
    setuptools = pytest.importorskip("setuptools", minversion="64",
                                     reason="building needs setuptools 64 or newer")
    assert setuptools
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(str(EXAMPLE), str(root / "source"), ignore=shutil.ignore_patterns(
        "build", "*.egg-info", "__pycache__"))
    target = root / "site"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--disable-pip-version-check", "--target", str(target),
         str(root / "source")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return target


@pytest.fixture(scope="module")
def python(installed, tmp_path_factory):
    """Run Python with the example installed; return the finished process."""

    def run(*arguments):
        env = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
        env.update(PYTHONPATH=str(installed), NO_COLOR="1",
                   IPUCNN_CACHE=str(tmp_path_factory.getbasetemp() / "cache"))
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True,
                              text=True, cwd=str(tmp_path_factory.getbasetemp()))

    return run


def parsed(done):
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_it_is_listed_without_importing_what_it_offers(python):
    rows = parsed(python("-c", """if True:
        import json, sys
        from ipucnn.core.registry.registry import registry
        rows = [[r.kind, r.name, r.state.value, r.provider.version] for r in registry().rows()
                if r.provider.distribution == "ipucnn-example-plugin"]
        loaded = sorted(m for m in sys.modules if m.startswith("ipucnn_example_plugin."))
        print(json.dumps([rows, loaded, "torch" in sys.modules]))"""))
    assert rows == [[[kind, name, "ok", "0.1.0"] for kind, name in OFFERED.items()],
                    ["ipucnn_example_plugin.plugin"], False]


def test_it_passes_the_conformance_checks(python):
    results = parsed(python("-c", """if True:
        import json
        from ipucnn.testing import check_distribution
        print(json.dumps(check_distribution("ipucnn-example-plugin")))"""))
    assert set(results) == {f"{kind}/{name}" for kind, name in OFFERED.items()}
    outcomes = {(plugin, check): result for plugin, checks in results.items()
                for check, result in checks.items()
                if result not in ("passed", "skipped: it offers no training")}
    assert outcomes == {("backend/reference", "test_every_declared_precision_works"):
                        "skipped: it declares single precision only"}


def test_its_own_tests_pass(python):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE),
                  str(EXAMPLE / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_list_plugins_shows_it(python):
    listed = parsed(python("-m", "ipucnn", "list-plugins", "--json"))
    rows = listed if isinstance(listed, list) else listed["plugins"]
    mine = {row["kind"]: row["name"] for row in rows
            if row["distribution"] == "ipucnn-example-plugin"}
    assert mine == OFFERED


def test_check_plugin_command(python):
    assert parsed(python("-m", "ipucnn", "check-plugin", "schedule:triangular", "--json"))


RUN = ("-m", "ipucnn", "run", "--model", "tinynet", "--data", "stripes", "--normlayer", "instance",
       "--backend", "reference", "--weights", "random", "--iterations", "3", "--json")


def test_run_uses_it(python):
    result = parsed(python(*RUN, "--precision", "full", "--batch-size", "4"))
    assert "tinynet" in json.dumps(result)
    assert "reference" in json.dumps(result)


def test_run_refuses_what_its_backend_does_not_offer(python):
    done = python(*RUN, "--precision", "half")
    assert done.returncode == 2
    assert "backend 'reference' does not compute in precision '16.16'" in done.stderr
    assert done.stdout == ""


def test_without_plugins_it_is_unknown_and_the_message_says_why(python):
    done = python(*RUN, "--precision", "full", "--no-plugins")
    assert done.returncode == 2
    assert "unknown model 'tinynet'" in done.stderr
    assert "disabled" in done.stderr
