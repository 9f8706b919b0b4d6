"""The doubles of PopDist, Horovod and `poprun` against the contract file."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOUBLES = Path(__file__).resolve().parents[2] / "doubles"
CONTRACT = json.loads((DOUBLES / "contracts" / "popdist-3.3.json").read_text())


@pytest.fixture
def popdist(poptorch_double, monkeypatch):
    monkeypatch.syspath_prepend(str(DOUBLES / "host"))
    for name in ("TOTAL", "LOCAL"):
        monkeypatch.setenv(f"POPDIST_NUM_{name}_REPLICAS", "2")
    yield importlib.import_module("popdist")
    for name in list(sys.modules):
        if name.split(".")[0] in ("popdist", "horovod"):
            del sys.modules[name]


def parameters(signature):
    """Return the names of parameters in a signature of the contract."""
    inside = signature[1:signature.index(")")]
    return [part.strip().split(":")[0].split("=")[0].strip() for part in inside.split(",") if part]


def public(module):
    return [name for name in vars(module) if not name.startswith("_")
            and not inspect.ismodule(getattr(module, name))]


def test_popdist_has_nothing_that_the_contract_lacks(popdist):
    for name in public(popdist):
        entry = CONTRACT["functions"][f"popdist.{name}"]
        assert list(inspect.signature(getattr(popdist, name)).parameters) == parameters(
            entry["signature"]), name


def test_options_refuse_what_poprun_decides(popdist):
    options = importlib.import_module("popdist.poptorch").Options
    entry = CONTRACT["functions"]["popdist.poptorch.Options"]
    assert list(inspect.signature(options).parameters) == parameters(entry["signature"])
    made = options(ipus_per_replica=1)
    assert made.replication_factor == 2
    for refused, value in (("replicationFactor", 2), ("useIpuId", 0)):
        assert refused in entry["does"]
        with pytest.raises(RuntimeError):
            getattr(made, refused)(value)
    with pytest.raises(AssertionError):
        options(ipus_per_replica=4)


def test_horovod_has_nothing_that_the_contract_lacks(popdist):
    hvd = importlib.import_module("horovod.torch")
    calls = " ".join(CONTRACT["horovod"]["calls"])
    for name in public(hvd):
        assert re.search(rf"\b{name}\b", calls), name
    with pytest.raises(ValueError, match="initialized"):
        hvd.rank()


@pytest.mark.parametrize("words", [
    ["--num-instances", "2", "--num-threads", "4"],
    ["--num-instances", "2", "--num-replicas", "3", sys.executable, "-c", "print('started')"]])
def test_poprun_refuses_what_the_real_one_would(words):
    done = subprocess.run([sys.executable, str(DOUBLES / "poprun.py"), *words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          timeout=60)
    assert done.returncode
    assert "started" not in done.stdout


def test_poprun_sets_the_variables_of_the_contract(tmp_path):
    # Each process has a file of its own: lines of two that share a pipe may run into each other.
    subprocess.run(
        [sys.executable, str(DOUBLES / "poprun.py"), "--num-instances=2", "--num-replicas=4",
         "--ipus-per-replica=2", sys.executable, "-c",
         "import json, os; from pathlib import Path; found = {k: v for k, v in os.environ.items() "
         "if k.startswith('POPDIST_NUM') or k == 'POPDIST_REPLICA_INDEX_OFFSET'}; "
         "Path(found['POPDIST_REPLICA_INDEX_OFFSET'] + '.json').write_text(json.dumps(found))"],
        cwd=str(tmp_path), timeout=60, check=True)
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert found == [{"POPDIST_NUM_TOTAL_REPLICAS": "4", "POPDIST_NUM_LOCAL_REPLICAS": "2",
                      "POPDIST_NUM_IPUS_PER_REPLICA": "2",
                      "POPDIST_REPLICA_INDEX_OFFSET": offset} for offset in ("0", "2")]
    assert set(found[0]) <= set(CONTRACT["env"])
