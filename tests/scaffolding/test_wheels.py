"""New plugins of every kind, built as wheels and installed in one fresh environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig

import pytest

from ipucnn.scaffolding.scaffold import CHOICES, NewPlugin, write

pytestmark = pytest.mark.slow

NAMES = {kind: f"wheel-{kind.replace('training-', 'trained-')}" for kind in CHOICES}


def run(*words, **how):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, **how)
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new environment with a wheel of each kind, which shares the other packages of this one."""
    pytest.importorskip("setuptools", minversion="64", reason="building needs setuptools 64")
    root = tmp_path_factory.mktemp("wheels")
    folders = []
    for kind, name in NAMES.items():
        folders.append(root / f"ipucnn-{name}")
        write(NewPlugin(name, (kind,)).files(), folders[-1])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    wheels = root / "wheels"
    done = run(*pip, "wheel", *offline, "--wheel-dir", wheels, *folders)
    assert done.returncode == 0, done.stderr
    built = sorted(wheels.glob("*.whl"))
    assert len(built) == len(CHOICES)
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


def test_they_are_listed_checked_and_pass_their_tests(environment):
    root, python, folders = environment
    variables = {name: value for name, value in os.environ.items()
                 if not name.startswith("IPUCNN_")}
    how = {"cwd": str(root), "env": {**variables, "IPUCNN_STRICT_PLUGINS": "1"}}
    listed = json.loads(run(python, "-m", "ipucnn", "list-plugins", "--filter", "wheel-*",
                            "--json", **how).stdout)
    assert {(row["name"], row["state"]) for row in listed} == {
        (name, "ok") for name in NAMES.values()}
    assert all(row["distribution"] == f"ipucnn-{row['name']}" for row in listed)
    own = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error",
              "--import-mode=importlib", *(folder / "tests" for folder in folders), **how)
    assert own.returncode == 0, own.stdout
    cheap = [f"ipucnn-{name}" for kind, name in NAMES.items() if "backend" not in kind]
    checked = run(python, "-m", "ipucnn", "check-plugin", *cheap, "--json", **how)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    results = json.loads(checked.stdout)
    assert len(results) == 2 * len(cheap)
    assert all(result == "passed" or result.startswith("skipped: ")
               for found in results.values() for result in found.values())
