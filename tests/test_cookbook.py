"""The code of the cookbook's pages works: it is executed, checked and used."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ipucnn.core.registry import discovery
from ipucnn.testing.reports import Wishes, check_all, failures, status_of

PAGES = Path(__file__).parents[1] / "docs" / "cookbook"

# Stands in for the package: the calls that its documentation names, with their arguments.
MLFLOW = '''
class _Run:
    class info:
        run_id = "17"

calls = []

def set_tracking_uri(uri): calls.append(("uri", uri))
def set_experiment(experiment_name): calls.append(("experiment", experiment_name))
def start_run(run_id=None): calls.append(("start", run_id)); return _Run()
def log_params(params): calls.append(("params", params))
def log_metrics(metrics, step=None): calls.append(("metrics", metrics, step))
def log_artifact(local_path): calls.append(("artifact", local_path))
def set_tag(key, value): calls.append(("tag", key, value))
def end_run(status="FINISHED"): calls.append(("end", status))
'''


@pytest.fixture
def plugin(tmp_path):
    """Write the plugin of a page to the file that it names; give its path."""

    def write(page):
        text = (PAGES / page).read_text()
        (name,) = re.findall(r"[Ss]ave (?:this|it) as `(\w+\.py)`", text)
        path = tmp_path / name
        path.write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
        return path

    return write


def checked(path, **wishes):
    """Check a plugin; give the names of the checks that were skipped."""
    results = check_all([str(path)], Wishes(**wishes))
    assert failures(results) == []
    return {check for found in results.values() for check, result in found.items()
            if status_of(result)[0] == "skipped"}


def test_optimizer(plugin, cli):
    path = plugin("optimizer.md")
    assert checked(path) == set()
    done = cli("train", "--plugin", path, "--optimizer", "lion", "--lion-beta2", "0.98", "--data",
               "shapes", "--epoch", "1", "--iterations", "2", "--batch-size", "4", "--model",
               "resnet8-cifar", "--input-size", "16", "--no-validation")
    assert done.code == 0, done.err
    done = cli("train", "--plugin", path, "--optimizer", "lion", "--lion-beta1", "1")
    assert "'--lion-beta1 1' ignores the gradient" in done.err


def test_dataset(plugin, cli, tiny_images):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted(tiny_images.rglob("*.jpg"))
    parquet.write_table(pyarrow.table({
        "image": [file.read_bytes() for file in files],
        "label": [file.parent.name for file in files],
        "split": ["train", "train", "validation"] * 2}), str(tiny_images / "images.parquet"))
    path = plugin("dataset.md")
    assert checked(path, data_dir=str(tiny_images)) == set()
    done = cli("train", "--plugin", path, "--data", "parquet", "--data-dir", tiny_images,
               "--model", "resnet8-cifar", "--epoch", "1", "--batch-size", "2",
               "--input-size", "16", "--json")
    assert done.code == 0, done.err
    (tiny_images / "images.parquet").write_bytes(b"PAR1")
    done = cli("train", "--plugin", path, "--data", "parquet", "--data-dir", tiny_images)
    assert done.code == 1
    assert "images.parquet': " in done.err


def test_logger(plugin, cli, tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "mlflow.py").write_text(MLFLOW)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    discovery.forget_modules()
    path = plugin("logger.md")
    assert checked(path) == set()
    import mlflow

    mlflow.calls.clear()
    train = ("train", "--plugin", path, "--logger", "my-mlflow", "--mlflow-uri", "runs",
             "--mlflow-checkpoints", "--data", "shapes", "--epoch", "1", "--iterations", "2",
             "--batch-size", "4", "--model", "resnet8-cifar", "--input-size", "16", "--log-dir",
             tmp_path / "logs", "--checkpoint-path", tmp_path / "checkpoints")
    done = cli(*train)
    assert done.code == 0, done.err
    kinds = [call[0] for call in mlflow.calls]
    assert kinds[:4] == ["uri", "experiment", "start", "params"]
    assert {"metrics", "tag"} <= set(kinds)
    assert kinds[-2:] == ["artifact", "end"]
    assert mlflow.calls[-1] == ("end", "FINISHED")
    assert (tmp_path / "logs" / "mlflow-run.txt").read_text() == "17"
    del sys.modules["mlflow"]
    discovery.forget_modules()
