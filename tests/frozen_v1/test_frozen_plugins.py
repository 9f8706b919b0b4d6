"""Plugins of record contract 1 keep loading, running and restoring."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from ipucnn.core.execution.launching import launcher_named
from ipucnn.core.registry import discovery
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import State

HERE = Path(__file__).parent
CHECKPOINT = "frozen-model_frozen-dataset_{}.pt"


@pytest.fixture(autouse=True)
def _site(monkeypatch):
    """The distributions, installed for one test."""
    monkeypatch.syspath_prepend(str(HERE / "site"))
    discovery.refresh()
    registries.use(None)
    yield
    for name in [name for name in sys.modules if name.startswith(("ipucnn_frozen", "ipucnn_ex"))]:
        del sys.modules[name]
    monkeypatch.undo()
    discovery.refresh()
    registries.use(None)


def test_one_of_each_kind_loads():
    rows = [row for row in registries.registry().rows() if not row.provider.builtin
            and row.provider.distribution.startswith(("ipucnn-frozen", "ipucnn-example"))]
    assert {row.kind for row in rows} == set(KINDS)
    assert {row.state for row in rows} == {State.OK}
    assert {row.spec.api_version for row in rows} == {1}
    assert len(rows) == len(KINDS) + 6
    for row in rows:
        assert callable(registries.registry().resolve(row.spec))
        assert registries.registry().options_class(row.spec) is not None or \
            row.name == "triangular"


def test_they_restore_what_they_trained(cli, tmp_path):
    for path in (HERE / "checkpoints").iterdir():
        shutil.copyfile(str(path), str(tmp_path / path.name))
    done = cli("restore", "--checkpoint-path", tmp_path / CHECKPOINT.format(1),
               "--checkpoint-output-dir", tmp_path / "again", "--log-dir", tmp_path, "--json")
    assert done.code == 0, done.err
    found, expected = (torch.load(str(folder / CHECKPOINT.format(2)), weights_only=True)["model"]
                       for folder in (tmp_path / "again", tmp_path))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-6), name
    rows = [[json.loads(row) for row in path.read_text().splitlines()] for path in (
        tmp_path / "frozen-logger.jsonl", HERE / "checkpoints" / "frozen-logger.jsonl")]
    assert [row["kind"] for row in rows[0]] == [row["kind"] for row in rows[1]]
    assert rows[0][-1]["loss"] == pytest.approx(rows[1][-1]["loss"], abs=1e-5)


def test_they_run(cli):
    done = cli("run", "--model", "frozen-model", "--data", "frozen-dataset", "--backend",
               "frozen-backend", "--weights", "random", "--precision", "full", "--iterations", "2",
               "--frozen-backend-channels-last", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["backend"] == "frozen-backend"
    done = cli("run", "--model", "tinynet", "--data", "stripes", "--normlayer", "instance",
               "--backend", "reference", "--weights", "random", "--precision", "full",
               "--iterations", "2", "--stripe-period", "6", "--json")
    assert done.code == 0, done.err


def test_the_launcher_recognises_its_processes():
    launcher = launcher_named("frozen-launcher")
    launch = launcher.launch(launcher.environment(1, 3))
    assert (launch.index, launch.count) == (1, 3)
    assert launcher.start([sys.executable, "-c", "raise SystemExit(3)"]) == 3
