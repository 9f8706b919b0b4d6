"""Trainings and inferences whose pipeline stages are divided among processes."""

from __future__ import annotations

import csv
import importlib.util
import json

import pytest
import torch
from ranks import Ranks, last, run, same_progress

from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

PIPELINES = importlib.util.find_spec("torch.distributed.pipelining") is not None
needs_pipelines = pytest.mark.skipif(not PIPELINES, reason="torch 2.5 has pipelines")
MODEL = ["--backend", "torch", "--precision", "full", "--progress", "off"]
TRAINING = ["train", "--model", "tiny", *MODEL, "--batch-size", "4", "--replicas", "2",
            "--gradient-accumulation", "5", "--device-iterations", "2", "--epoch", "2",
            "--lr", "0.05", "--momentum", "0.9", "--optimizer", "sgd", "--lr-schedule", "no",
            "--mixup-alpha", "0.2", "--ema-decay", "0.9", "--loss-scaling", "8",
            "--logs-per-epoch", "2", "--validation-mode", "during", "--dataloader-worker", "1"]


@pytest.fixture(scope="module", autouse=True)
def photos(tmp_path_factory):
    """Images for two host calls per epoch, and 10 of validation."""
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(
        per_class=16, size=20, validation_per_class=1))
    TRAINING[1:1] = ["--data-dir", str(folder)]
    yield folder
    del TRAINING[1:3]


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    """The folder of a training of the whole model by one process."""
    folder = tmp_path_factory.mktemp("alone")
    run(folder, 1, *TRAINING, "--checkpoint-path", folder / "saved")
    return folder / "saved"


def same(folder, other):
    """Compare weights, averages, statistics, optimizer state and metrics."""
    one, two = last(folder), last(other)
    assert list(one["model"]) == list(two["model"])
    pairs = [(one["model"], two["model"]), (one["ema"], two["ema"]),
             *zip(one["session"]["replica_buffers"], two["session"]["replica_buffers"])]
    states = [each["session"]["optimizer"] for each in (one, two)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    pairs += [(states[0]["state"][key], states[1]["state"][key]) for key in states[0]["state"]]
    assert len(pairs) > 6
    for found, expected in pairs:
        assert found.keys() == expected.keys()
        for name, value in found.items():
            if isinstance(value, torch.Tensor):
                assert torch.allclose(value.double(), expected[name].double(), atol=1e-5), name
    same_progress(folder, other, 1e-4)


@needs_pipelines
@pytest.mark.parametrize(("count", "splits", "schedule"), [
    (2, ["1"], "gpipe"), (3, ["1", "2"], "1f1b"), (4, ["1"], "1f1b")])
def test_stages_in_processes_train_as_the_whole_model(alone, tmp_path, count, splits, schedule):
    ranks = run(tmp_path, count, *TRAINING, "--pipeline-splits", *splits, "--pipeline-schedule",
                schedule, "--checkpoint-path", tmp_path / "saved")
    same(tmp_path / "saved", alone)
    assert ranks.out().count("Epoch 2: Train accuracy") == 1
    assert not ranks.out(count - 1).strip()


@needs_pipelines
def test_a_training_continues_with_and_without_stages(alone, tmp_path):
    saved = tmp_path / "saved"
    first = [*TRAINING, "--pipeline-splits", "1", "--checkpoint-path", saved]
    first[first.index("--epoch") + 1] = "1"
    run(tmp_path, 4, *first)
    run(tmp_path, 1, "restore", "--checkpoint-path", saved, "--epoch", "2", "--progress", "off")
    same(saved, alone)


@needs_pipelines
def test_a_training_of_one_process_continues_in_stages(alone, tmp_path):
    saved = tmp_path / "saved"
    first = [*TRAINING, "--pipeline-splits", "1", "--checkpoint-path", saved]
    first[first.index("--epoch") + 1] = "1"
    ranks = run(tmp_path, 1, *first)
    assert "one process computes all 2 pipeline stages: the splits are checked" in ranks.err()
    run(tmp_path, 2, "restore", "--checkpoint-path", saved, "--epoch", "2", "--progress", "off")
    same(saved, alone)


@needs_pipelines
def test_stages_in_processes_classify_as_the_whole_model(alone, photos, tmp_path):
    checkpoint = next(alone.glob("*_2.pt"))
    words = ["run", "--weights", checkpoint, "--data-dir", photos / "train", *MODEL,
             "--batch-size", "8", "--device-iterations", "2", "--json"]
    files = [tmp_path / f"{name}.csv" for name in ("one", "shared")]
    one = json.loads(run(tmp_path, 1, *words, "--predictions", files[0]).out())
    shared = json.loads(run(tmp_path, 4, *words, "--pipeline-splits", "1",
                            "--predictions", files[1]).out())
    assert shared["accuracy"] == one["accuracy"]
    assert shared["images"] == one["images"] == 128
    assert shared["session"]["stage_processes"] == 2
    rows = [list(csv.DictReader(file.read_text().splitlines())) for file in files]
    assert len(rows[1]) == 128
    assert [row["path"] for row in rows[1]] == [row["path"] for row in rows[0]]
    assert [row["class_1"] for row in rows[1]] == [row["class_1"] for row in rows[0]]


@pytest.mark.parametrize(("count", "words", "message"), [
    (2, ["--pipeline-splits", "1", "2"],
     "3 pipeline stages need as many processes, and torchrun started 2"),
    (3, ["--pipeline-splits", "1"],
     "2 pipeline stages need a multiple of as many processes, and torchrun started 3"),
    (4, ["--pipeline-splits", "1", "--replicas", "3"],
     "3 replicas cannot be divided among 2 instances"),
    (2, ["--pipeline-splits", "1", "--sharded"], "'--sharded' has no effect"),
    pytest.param(3, ["--pipeline-splits", "2", "2/2"], "begins at '2' has no parameters",
                 marks=needs_pipelines),
])
def test_stages_that_processes_cannot_hold_are_refused(tmp_path, count, words, message):
    ranks = Ranks(tmp_path, [[*TRAINING, *words, "--checkpoint-path", tmp_path / "saved"]] * count)
    assert ranks.codes() == [2] * count
    assert message in ranks.err()
    assert "Traceback" not in ranks.err()


@pytest.mark.skipif(PIPELINES, reason="this torch has pipelines")
def test_an_old_torch_is_refused(tmp_path):
    ranks = Ranks(tmp_path, [[*TRAINING, "--pipeline-splits", "1", "--no-checkpoints"]] * 2)
    assert ranks.codes() == [2, 2]
    assert "has no pipelines between processes" in ranks.err()
