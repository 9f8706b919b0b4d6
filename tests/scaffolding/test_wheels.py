"""New plugins of every kind and examples, as wheels installed in one fresh environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from ipucnn.scaffolding.scaffold import CHOICES, TRAINING_BACKEND, NewPlugin, write

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
BACKENDS = ("backend", TRAINING_BACKEND)
PLUGINS = [NewPlugin("wheel-mixed", tuple(kind for kind in CHOICES if kind not in BACKENDS)),
           NewPlugin("wheel-backend", BACKENDS[:1]), NewPlugin("wheel-trained", BACKENDS[1:])]
NETWORKS = ["ipucnn-efficientnet-lite", "ipucnn-timm"]


def run(*words, **how):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, **how)
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new environment with the wheels, which shares the other packages of this one."""
    pytest.importorskip("setuptools", minversion="64", reason="building needs setuptools 64")
    root = tmp_path_factory.mktemp("wheels")
    folders = []
    for plugin in PLUGINS:
        folders.append(root / plugin.distribution)
        write(plugin.files(), folders[-1])
    for name in NETWORKS:
        shutil.copytree(str(EXAMPLES / name), str(root / name), ignore=shutil.ignore_patterns(
            "build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    wheels = root / "wheels"
    done = run(*pip, "wheel", *offline, "--wheel-dir", wheels, *folders,
               *(root / name for name in NETWORKS))
    assert done.returncode == 0, done.stderr
    built = sorted(wheels.glob("*.whl"))
    assert len(built) == len(PLUGINS) + len(NETWORKS)
    done = run(sys.executable, "-m", "venv", "--without-pip", root / "venv")
    assert done.returncode == 0, done.stderr
    python = root / "venv" / "bin" / "python"
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = run(python, "-c", program).stdout.strip()
    done = run(*pip, "install", *offline, "--target", site, *built)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(site, "shared.pth"), "w") as file:
        file.write(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return root, python, folders


@pytest.fixture
def how(environment):
    """The working folder and the variables of a command."""
    variables = {name: value for name, value in os.environ.items()
                 if not name.startswith("IPUCNN_")}
    return {"cwd": str(environment[0]), "env": {**variables, "IPUCNN_STRICT_PLUGINS": "1"}}


def test_they_are_listed_checked_and_pass_their_tests(environment, how):
    _, python, folders = environment
    listed = json.loads(run(python, "-m", "ipucnn", "list-plugins", "--filter", "wheel-*",
                            "--json", **how).stdout)
    assert sorted((row["distribution"], row["kind"], row["state"]) for row in listed) == sorted(
        (plugin.distribution, kind.name, "ok") for plugin in PLUGINS for kind in plugin.records)
    own = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error",
              "--import-mode=importlib", "-k", "not training",  # see test_new_plugin.py
              *(folder / "tests" for folder in folders), **how)
    assert own.returncode == 0, own.stdout
    checked = run(python, "-m", "ipucnn", "check-plugin", PLUGINS[0].distribution, "--json",
                  **how)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    results = json.loads(checked.stdout)
    assert len(results) == len(PLUGINS[0].kinds) + 1
    assert all(result == "passed" or result.startswith("skipped: ")
               for found in results.values() for result in found.values())


def test_the_networks_of_the_examples_are_listed_checked_and_run(environment, how):
    _, python, _ = environment
    listed = {}
    for names in ("timm/test_*", "efficientnet-lite*"):
        rows = json.loads(run(python, "-m", "ipucnn", "list-plugins", "models", "--filter", names,
                              "--json", **how).stdout)
        listed.update({row["name"]: row for row in rows})
    assert listed["timm/test_resnet"]["distribution"] == "ipucnn-timm"
    assert listed["efficientnet-lite0"]["distribution"] == "ipucnn-efficientnet-lite"
    if not find_spec("timm"):
        assert listed["timm/test_resnet"]["state"] == "unavailable"
        return
    assert listed["timm/test_resnet"]["state"] == "ok"
    checked = run(python, "-m", "ipucnn", "check-plugin", "timm/test_resnet", **how)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = run(python, "-m", "ipucnn", "run", "--model", "timm/test_resnet", "--weights", "random",
               "--data", "synthetic", "--iterations", "2", "--batch-size", "2", "--backend",
               "torch", "--json", **how)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 4
