"""Trainings, validations and runs that several processes share through torch.distributed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from ranks import Ranks, free_port, last, run, same_progress

from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.testing.launchers import LauncherSuite

MODEL = ["--backend", "torch", "--precision", "full", "--progress", "off"]
TRAINING = ["train", "--model", "tiny", *MODEL, "--batch-size", "4", "--replicas", "4",
            "--gradient-accumulation", "2", "--device-iterations", "2", "--epoch", "2",
            "--lr", "0.05", "--optimizer", "sgd", "--momentum", "0.9", "--lr-schedule", "no",
            "--mixup-alpha", "0.2", "--ema-decay", "0.9", "--logs-per-epoch", "2",
            "--validation-mode", "during", "--dataloader-worker", "1"]


@pytest.fixture(scope="module", autouse=True)
def photos(tmp_path_factory):
    """Images of four classes: four host calls per epoch, and 12 of validation."""
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder / "all"),
               GeneratedFiles(per_class=64, size=20, validation_per_class=3))
    for split in ("train", "validation"):
        for name in sorted(os.listdir(folder / "all" / split))[:4]:
            shutil.move(str(folder / "all" / split / name), str(folder / split / name))
    TRAINING[1:1] = ["--data-dir", str(folder)]
    yield folder
    del TRAINING[1:3]


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    """The folder of a training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    run(folder, 1, *TRAINING, "--checkpoint-path", folder / "saved")
    return folder / "saved"


def same(folder, other):
    """Compare weights, averages, statistics of every replica, optimizer state and metrics."""
    one, two = last(folder), last(other)
    for found, expected in ((one["model"], two["model"]), (one["ema"], two["ema"]),
                            *zip(one["session"]["replica_buffers"],
                                 two["session"]["replica_buffers"])):
        assert found.keys() == expected.keys()
        for name in found:
            assert torch.allclose(found[name].double(), expected[name].double(), atol=1e-6), name
    assert len(one["session"]["replica_buffers"]) == len(two["session"]["replica_buffers"]) == 3
    same_progress(folder, other, 1e-5)


@pytest.mark.parametrize(("count", "more"), [(2, ["--cache-images", "ram"]), (4, [])])
def test_ranks_train_as_one_process_does(alone, tmp_path, count, more):
    ranks = run(tmp_path, count, *TRAINING, *more, "--checkpoint-path", tmp_path / "saved")
    same(tmp_path / "saved", alone)
    assert ranks.out().count("Epoch 2: Train accuracy") == 1
    assert not ranks.out(1).strip()


def test_a_training_continues_on_another_number_of_ranks(alone, tmp_path):
    first = [*TRAINING, "--checkpoint-path", tmp_path / "saved"]
    first[first.index("--epoch") + 1] = "1"
    run(tmp_path, 4, *first)
    run(tmp_path, 2, "restore", "--checkpoint-path", tmp_path / "saved", "--epoch", "2",
        "--progress", "off")
    same(tmp_path / "saved", alone)


def test_validation_and_inference_are_shared(alone, photos, tmp_path):
    checkpoint = next(alone.glob("*_2.pt"))
    words = ["validate", "--checkpoint-path", checkpoint, "--json", "--progress", "off"]
    shared, one = (json.loads(run(tmp_path, count, *words).out())["validations"]
                   for count in (2, 1))
    assert [entry.pop("loss") for entry in shared] == pytest.approx(
        [entry.pop("loss") for entry in one])
    assert shared == one
    words = ["run", "--weights", checkpoint, "--data-dir", photos / "train", *MODEL,
             "--batch-size", "8", "--json"]
    shared, one = (json.loads(run(tmp_path, count, *words).out()) for count in (2, 1))
    assert shared["images"] == 256
    assert shared["plan"]["instances"] == shared["plan"]["replicas"] == 2
    assert shared["accuracy"] == one["accuracy"]


@pytest.mark.parametrize(("change", "message"), [
    (["--lr", "0.06"], "instance 2 of 2 has --lr 0.06, and the first one 0.05"),
    (["--device-iterations", "1"], "instance 2 of 2 has --device-iterations 1, and the first"),
])
def test_ranks_with_other_options_are_refused(tmp_path, change, message):
    words = [*TRAINING, "--checkpoint-path", tmp_path / "saved"]
    ranks = Ranks(tmp_path, [words, [*words, *change]])
    assert ranks.codes() == [2, 2]
    assert message in ranks.err()
    assert not (tmp_path / "saved").exists()


def test_ranks_may_have_their_images_in_other_folders(photos, tmp_path):
    (tmp_path / "elsewhere").symlink_to(photos)
    words = [*TRAINING, "--epoch", "1", "--checkpoint-path", tmp_path / "saved"]
    ranks = Ranks(tmp_path, [words, [*words, "--data-dir", tmp_path / "elsewhere"]])
    assert ranks.codes() == [0, 0], ranks.err()


def test_ranks_that_continue_from_other_checkpoints_are_refused(alone, tmp_path):
    ranks = Ranks(tmp_path, [["restore", "--checkpoint-path", next(alone.glob(f"*_{epoch}.pt")),
                              "--checkpoint-output-dir", tmp_path / "more", "--epoch", "3",
                              "--progress", "off"] for epoch in (2, 1)])
    assert ranks.codes() == [2, 2]
    assert "instance 2 of 2 has checkpoint to continue from 'tiny_image_folder_1.pt, update 8', " \
        "and the first one 'tiny_image_folder_2.pt, update 16'" in ranks.err()
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("command", ["train", "validate", "run"])
def test_ranks_with_other_images_are_refused(alone, photos, tmp_path, command):
    other = tmp_path / "other"
    shutil.copytree(str(photos / "validation"), str(other))
    image = next(other.glob("*/*"))
    image.rename(image.with_name(f"other{image.suffix}"))
    checkpoint = next(alone.glob("*_2.pt"))
    words = {"train": [*TRAINING, "--checkpoint-path", tmp_path / "saved",
                       "--validation-data-dir"],
             "validate": ["validate", "--checkpoint-path", checkpoint, "--validation-data-dir"],
             "run": ["run", "--weights", checkpoint, *MODEL, "--batch-size", "2", "--data-dir"]}
    ranks = Ranks(tmp_path, [[*words[command], place] for place in (photos / "validation", other)])
    assert ranks.codes() == [2, 2]
    assert "instance 2 of 2 has list of " in ranks.err()
    assert not (tmp_path / "saved").exists()


def test_ranks_are_not_advised_to_skip_a_bad_image(photos, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(str(photos), str(bad))
    image = min((bad / "train").glob("*/*"))
    image.write_bytes(image.read_bytes()[:60])
    words = [str(bad) if word == str(photos) else word for word in TRAINING]
    ranks = Ranks(tmp_path, [[*words, "--checkpoint-path", tmp_path / "saved"]] * 2)
    assert ranks.codes() == [1, 1]
    assert "cannot decode image" in ranks.err()
    assert "'ipucnn data verify' finds all bad images" in ranks.err()
    assert "--skip-bad-samples" not in ranks.err()


def test_replicas_that_ranks_do_not_divide_are_refused(tmp_path):
    ranks = Ranks(tmp_path, [[*TRAINING, "--replicas", "3"]] * 2)
    assert ranks.codes() == [2, 2]
    assert "3 replicas cannot be divided among 2 instances" in ranks.err()


def test_a_time_limit_that_is_no_number_is_refused(tmp_path):
    ranks = Ranks(tmp_path, [TRAINING] * 2, IPUCNN_RANK_TIMEOUT="soon")
    assert ranks.codes() == [2, 2]
    assert "environment variable IPUCNN_RANK_TIMEOUT is 'soon'" in ranks.err()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_fails_or_hangs_ends_the_run(tmp_path, number):
    words = [*TRAINING, "--epoch", "1000", "--checkpoint-path", tmp_path / "saved",
             "--validation-mode", "none"]
    ranks = Ranks(tmp_path, [words] * 2, IPUCNN_RANK_TIMEOUT="8")
    until = time.monotonic() + 60
    while not list((tmp_path / "saved").glob("*_2.pt")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(ranks.processes[1].pid, number)
    ranks.processes[0].join(40)
    assert ranks.processes[0].exitcode == 1, ranks.err()
    ranks.codes(0.1)
    assert "instance 2 does not respond" in ranks.err()
    assert "Traceback" not in ranks.err()
    run(tmp_path, 1, "restore", "--checkpoint-path", tmp_path / "saved", "--epoch", "2",
        "--progress", "off")


def test_the_first_of_several_ranks_writes_to_a_store_and_all_read_it(alone, photos, tmp_path):
    pytest.importorskip("fsspec")
    words = [*TRAINING, "--checkpoint-path", f"local://{tmp_path}/saved"]
    words[words.index(str(photos))] = f"local://{photos}"
    caches = [{"IPUCNN_CACHE": str(tmp_path / f"cache{rank}")} for rank in range(2)]  # two hosts
    ranks = Ranks(tmp_path, [words] * 2, variables=caches)
    assert ranks.codes() == [0, 0], ranks.err()
    same(tmp_path / "saved", alone)
    ranks = Ranks(tmp_path, [["restore", "--checkpoint-path", f"local://{tmp_path}/saved",
                              "--epoch", "3", "--progress", "off"]] * 2, variables=caches)
    assert ranks.codes() == [0, 0], ranks.err()
    assert list((tmp_path / "saved").glob("*_3.pt"))
    assert not (tmp_path / "cache1" / "sent").exists()


# -- other launchers ------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path):
    """The plugin of the page on scale, in a file."""
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    path = tmp_path / "slurm.py"
    path.write_text(page.partition("```python\n")[2].partition("```")[0])
    return path


def test_the_documented_launcher_passes_its_suite(slurm):
    registry = Registry(PluginSettings(extra=(str(slurm),)))
    suite = type("Slurm", (LauncherSuite,), {"name": "slurm", "registry": registry})()
    checks = [name for name in dir(suite) if name.startswith("test_")]
    assert checks
    for name in checks:
        getattr(suite, name)()


def test_the_documented_launcher_connects_processes(slurm, alone, tmp_path):
    program = tmp_path / "scontrol"
    program.write_text("#!/bin/sh\necho 127.0.0.1\n")
    program.chmod(0o755)
    words = ["--plugin", slurm, *TRAINING, "--launcher", "slurm",
             "--checkpoint-path", tmp_path / "saved"]
    own = [{"TORCHELASTIC_RUN_ID": None, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
            "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "node[1-2]",
            "SLURM_JOB_ID": str(free_port() - 20000), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
           for rank in range(2)]
    for variables in own:
        variables["SLURM_JOB_ID"] = own[0]["SLURM_JOB_ID"]
    ranks = Ranks(tmp_path, [words] * 2, variables=own)
    assert ranks.codes() == [0, 0], ranks.err()
    same(tmp_path / "saved", alone)
