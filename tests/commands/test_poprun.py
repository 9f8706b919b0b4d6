"""Several real processes under the double of `poprun`, which share one training."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import forked
import pytest
import torch
from forked import Forked

from ipucnn.training.checkpoints.checkpoint import load

TESTS = Path(__file__).parents[1]
DOUBLES = TESTS / "doubles"
COMMON = ["--backend", "poptorch", "--data", "shapes", "--precision", "full", "--batch-size", "4",
          "--device-iterations", "2", "--progress", "off"]
TRAINING = ["--gradient-accumulation", "2", "--iterations", "6", "--epoch", "2", "--lr", "0.05",
            "--momentum", "0.9", "--mixup-alpha", "0.2", "--logs-per-epoch", "3",
            "--validation-mode", "during", "--validation-frequency", "1",
            "--dataloader-worker", "2"]
CACHE = os.path.join(tempfile.gettempdir(), f"ipucnn-{os.getpid()}")
TINY = ["--plugin", str(TESTS / "tiny_plugin.py")]
REAL_HOROVOD = os.environ.get("POPRUN_DOUBLE_HOROVOD") == "real"


def environment(doubles=DOUBLES):
    return {**os.environ, "OMP_NUM_THREADS": "1", "POPTORCH_DOUBLE_TORCH": "any",
            "PYTHONPATH": str(doubles), "IPUCNN_CACHE": CACHE}


def arguments(instances, replicas, ipus=1):
    return ["--num-instances", instances, "--num-replicas", replicas, "--ipus-per-replica", ipus]


def poprun(instances, replicas, words, ipus=1, doubles=DOUBLES):
    """Start instances of ipucnn."""
    launched = arguments(instances, replicas, ipus)
    if REAL_HOROVOD:  # its server is a thread, which a process that is forked must not have
        command = [doubles / "poprun.py", *launched, sys.executable, "-m", "ipucnn", *words]
        return subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True,
                                env=environment(doubles))
    return Forked(forked.poprun, [*launched, "ipucnn", *words], environment(doubles))


def finished(process, code=0):
    with process:  # it has ended, also when it hangs
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == code, err
    return out, err


def ipucnn(command, *words):
    model = ["--model", "tiny"] if command in ("train", "run") else []
    return [*TINY, command, *model, *words]


def alone(*words):
    return finished(Forked(forked.ipucnn, ipucnn(*words), environment()))


def weights(path):
    return load(path).weights


def rows(folder):
    """Return the metrics that are not of the clock."""
    return [{name: value for name, value in json.loads(line).items()
             if name not in ("images_per_second", "data_wait_share")}
            for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(one, other, tolerance=1e-5):
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=name)


@pytest.fixture(scope="module", autouse=True)
def _no_cache_stays():
    yield
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two instances, and what it printed."""
    folder = tmp_path_factory.mktemp("two") / "c"
    out, err = finished(poprun(2, 4, ipucnn("train", *COMMON, *TRAINING, "--checkpoint-path",
                                             folder, "--checkpoint-save-steps", "4")))
    return folder, out, err


def test_two_instances_train_as_one_process_with_all_replicas(trained, tmp_path):
    folder, out, _ = trained
    alone("train", *COMMON, *TRAINING, "--replicas", "4", "--checkpoint-path", tmp_path)
    assert_same(weights(folder / "tiny_shapes_2.pt"), weights(tmp_path / "tiny_shapes_2.pt"))
    ours, theirs = rows(folder), rows(tmp_path)
    assert [row["kind"] for row in ours] == ["train", "train", "train", "validation"] * 2
    for mine, other in zip(ours, theirs):
        assert mine.pop("loss") == pytest.approx(other.pop("loss"), abs=1e-5)
        assert mine == other
    assert {row["images"] for row in ours if row["kind"] == "validation"} == {1024}
    assert re.search(r"^batch +64 per host call", out, re.MULTILINE)


def test_only_the_first_instance_speaks_and_writes(trained):
    folder, out, err = trained
    assert out.count("Epoch 1: Train accuracy") == 1
    assert out.count("throughput") == 1
    assert err.count("note: chosen for these images") == 1
    assert err.count("one of 2 instances compiles") == 1
    assert len(err.strip().splitlines()) == 2
    assert sorted(path.name for path in folder.glob("*.pt"))[-1] == "tiny_shapes_2.pt"


@pytest.mark.parametrize("instances", [2, 1])
def test_a_restored_training_is_the_uninterrupted_one(trained, tmp_path, instances):
    folder = tmp_path / "c"
    shutil.copytree(str(trained[0]), str(folder))
    _, err = finished(poprun(instances, 4, ipucnn(
        "restore", "--checkpoint-path", folder / "tiny_shapes_1.pt", "--progress", "off")))
    assert "restoring" in err
    assert_same(weights(folder / "tiny_shapes_2.pt"), weights(trained[0] / "tiny_shapes_2.pt"),
                0 if instances == 2 else 1e-5)
    if instances == 2:
        assert rows(folder) == rows(trained[0])


def test_a_signal_ends_all_at_the_same_step_and_nothing_is_lost(tmp_path):
    folder, whole = tmp_path / "c", tmp_path / "whole"
    long = ["train", *COMMON, *TRAINING, "--iterations", "30", "--momentum", "0.5",
            "--validation-mode", "none"]
    finished(poprun(2, 2, ipucnn(*long, "--checkpoint-path", whole)))
    process = poprun(2, 2, ipucnn(*long, "--checkpoint-path", folder,
                                   "--checkpoint-save-steps", "2"))
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = finished(process, 143)
    assert err.count("SIGTERM: saving after this step") == 1
    _, err = finished(poprun(2, 2, ipucnn("restore", "--checkpoint-path", folder,
                                           "--progress", "off")))
    assert " calls\n" in err  # in the middle of an epoch
    assert_same(weights(folder / "tiny_shapes_2.pt"), weights(whole / "tiny_shapes_2.pt"), 0)
    assert rows(folder) == rows(whole)


def test_validation_after_training_and_averages_of_two_instances(tmp_path):
    folder = tmp_path / "c"
    out, _ = finished(poprun(2, 2, ipucnn(
        "train", *COMMON, *TRAINING, "--validation-mode", "after", "--weight-avg-strategy", "mean",
        "--checkpoint-path", folder)))
    assert out.count("Averaged 2 checkpoints") == 1
    assert out.count("Accuracy on test set") == 3  # the average, too
    out, _ = finished(poprun(2, 2, ipucnn(
        "validate", "--checkpoint-path", folder / "tiny_shapes_2.pt", "--json",
        "--progress", "off")))
    by_two = json.loads(out)["validations"][0]
    by_one = json.loads(alone("validate", "--checkpoint-path", folder / "tiny_shapes_2.pt",
                              "--json", "--progress", "off")[0])["validations"][0]
    assert by_two.pop("loss") == pytest.approx(by_one.pop("loss"))
    assert by_two == by_one
    assert by_two["images"] == 1024


def test_a_run_is_shared_and_measured_together():
    out, _ = finished(poprun(2, 2, ipucnn(
        "run", *COMMON, "--weights", "random", "--num-classes", "8", "--iterations", "5",
        "--json")))
    result = json.loads(out)
    assert result["plan"]["instances"] == 2
    assert result["images"] == 5 * 4 * 2 * 2
    assert result["iterations"] == 5
    assert result["accuracy"]["images"] == result["images"]


@pytest.mark.skipif(sys.platform == "win32", reason="the printed command is for a shell")
def test_the_printed_command_launches_the_training(tmp_path):
    programs = {"poprun": f"'{DOUBLES / 'poprun.py'}'", "ipucnn": "-m ipucnn"}
    for name, words in programs.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\nexec '{sys.executable}' {words} \"$@\"\n")
        script.chmod(0o755)
    (tmp_path / "mine.yaml").write_text("ipus: 2\ninstances_per_host: 4\nnuma_aware: true\n"
                                        "only_stdout_from_instance: 0\n")
    command, _ = alone("plan", *COMMON, "--model", "tiny", "--replicas", "2", *TRAINING,
                       "--checkpoint-path", tmp_path / "our checkpoints", "--launch",
                       tmp_path / "mine.yaml", "--poprun")
    assert "--num-instances=2" in command
    done = subprocess.run(
        ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=240, cwd=str(tmp_path),
        env={**environment(), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "our checkpoints" / "tiny_shapes_2.pt").exists()
    assert re.search(r"^updates +24$", done.stdout, re.MULTILINE)


SCRIPT = """
import json, sys
import torch
from ipucnn.core.execution.launching import joined

instances = joined()
assert joined() is instances
index = instances.index
network = torch.nn.BatchNorm1d(2)
with torch.no_grad():
    network.weight.fill_(index + 1)
    network.running_mean.fill_(index + 5)
instances.share(network.state_dict())
found = [instances.gather(2**62 + 1 + index), instances.gather({"text": "a" * index, "none": None}),
         instances.sum(torch.tensor([2**53 + 1, index])).tolist(),
         instances.sum(torch.tensor([0.1], dtype=torch.float64)).tolist(),
         network.weight.tolist(), network.running_mean.tolist(), instances.totals([1.5, index])]
open(sys.argv[1] + str(index), "w").write(json.dumps(found))
"""


def test_values_that_instances_exchange_are_exact(tmp_path):
    words = [DOUBLES / "poprun.py", *arguments(3, 3), sys.executable, "-c", SCRIPT,
             tmp_path / "found"]
    subprocess.run([sys.executable, *map(str, words)], env=environment(), timeout=240, check=True)
    found = [json.loads((tmp_path / f"found{index}").read_text()) for index in range(3)]
    assert found[0] == found[1] == found[2]
    assert found[0] == [
        [2**62 + 1, 2**62 + 2, 2**62 + 3], [{"text": "a" * n, "none": None} for n in range(3)],
        [3 * (2**53 + 1), 3], [pytest.approx(0.3, abs=1e-15)], [1.0, 1.0], [5.0, 5.0], [4.5, 3.0]]


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "ipus", "message"), [
    (["--pipeline-splits", "1"], 1,
     "poprun gives each replica 1 IPUs, and the model has 2 pipeline stages"),
    (["--backend", "torch"], 1, "torch.distributed, which poprun does not set up"),
    (["--skip-bad-samples"], 1, "'--skip-bad-samples' would move images between instances")])
def test_what_instances_cannot_do_is_refused(tmp_path, more, ipus, message):
    _, err = finished(poprun(2, 2, ipucnn(
        "train", *COMMON, *TRAINING, *more, "--gradient-accumulation", "4"), ipus=ipus), 2)
    assert message in err
    assert "error: instance " in err
    assert "hint: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("missing", "folder"), [("popdist", "popdist"), ("horovod", "host")])
def test_what_is_not_installed_is_named(tmp_path, missing, folder):
    if folder == "host" and REAL_HOROVOD:
        pytest.skip("Horovod is installed")
    doubles = tmp_path / "doubles"
    shutil.copytree(str(DOUBLES), str(doubles))
    shutil.rmtree(str(doubles / folder))
    _, err = finished(poprun(2, 2, ipucnn("train", *COMMON, *TRAINING), doubles=doubles), 2)
    assert f"'{missing}" in err
    assert "hint: install the popdist wheel" in err or "hint: build Horovod" in err
    assert "Traceback" not in err


def test_replicas_that_poprun_overrides_are_noted(tmp_path):
    _, err = finished(poprun(1, 2, ipucnn(
        "train", *COMMON, *TRAINING, "--replicas", "8", "--epoch", "1", "--iterations", "1",
        "--validation-mode", "none", "--log-dir", tmp_path)))
    assert "poprun started 2 replicas: '--replicas 8' is not used" in err


def test_one_process_imports_neither_popdist_nor_horovod(tmp_path):
    script = ("import sys\nfrom ipucnn.__main__ import invoke\ncode = invoke(sys.argv[1:])\n"
              "assert 'poptorch' in sys.modules\n"
              "assert not {'popdist', 'horovod'} & set(sys.modules)\nsys.exit(code)")
    done = subprocess.run(
        [sys.executable, "-c", script, *ipucnn("train"), *COMMON, *TRAINING, "--epoch", "1",
         "--iterations", "1", "--validation-mode", "none", "--log-dir", str(tmp_path)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=240)
    assert done.returncode == 0, done.stderr
