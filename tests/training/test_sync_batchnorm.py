"""`--sync-batchnorm`: statistics over all replicas, in one process and in several."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from ranks import TINY, Ranks, run

from ipucnn.__main__ import invoke
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

PIPELINES = importlib.util.find_spec("torch.distributed.pipelining") is not None
WORDS = ["train", "--model", "tiny", "--backend", "torch", "--precision", "full", "--progress",
         "off", "--gradient-accumulation", "3", "--epoch", "1", "--lr", "0.05", "--optimizer",
         "sgd", "--momentum", "0.9", "--lr-schedule", "no", "--no-validation",
         "--dataloader-worker", "1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(per_class=8, size=20))
    return folder


def trained(folder, photos, count, *more):
    words = [*WORDS, "--data-dir", photos, "--checkpoint-path", folder / "saved", *more]
    folder.mkdir()
    if count == 1:
        assert invoke([*TINY, *map(str, words)]) == 0
    else:
        run(folder, count, *words)
    return torch.load(next((folder / "saved").glob("*_1.pt")), weights_only=True)["model"]


def test_processes_and_replicas_equal_one_large_micro_batch(photos, tmp_path):
    whole = trained(tmp_path / "whole", photos, 1, "--batch-size", "8")
    small = ["--batch-size", "2", "--replicas", "4"]
    for name, count, more in (
            ("replicas", 1, small), ("processes", 2, small),
            *([("stages", 4, ["--batch-size", "4", "--replicas", "2", "--pipeline-splits", "1"])]
              if PIPELINES else [])):
        found = trained(tmp_path / name, photos, count, *more, "--sync-batchnorm")
        for key, value in whole.items():
            assert torch.allclose(found[key].double(), value.double(), atol=1e-5), (name, key)
    without = trained(tmp_path / "without", photos, 1, *small)
    assert not torch.allclose(without["1.1.running_var"], whole["1.1.running_var"], atol=1e-4)


@pytest.mark.parametrize(("words", "message"), [
    (["--normlayer", "none"], "'--sync-batchnorm' has no effect: the model has no batch norm"),
    (["--compile"], "'--compile'"),
])
def test_what_it_cannot_do_is_refused(photos, tmp_path, words, message):
    ranks = Ranks(tmp_path, [[*WORDS, "--data-dir", photos, "--sync-batchnorm", *words,
                              "--no-checkpoints", "--batch-size", "2"]] * 2)
    assert ranks.codes() == [2, 2]
    assert message in ranks.err()
    assert "Traceback" not in ranks.err()
