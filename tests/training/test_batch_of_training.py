"""`--batch-size auto` of trainings, runs and validations."""

import json
import re

import pytest
import torch
from ranks import TINY, run

from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.models import batch_search
from ipucnn.training.setup import preparation

TRAINING = ["train", *TINY, "--model", "tiny", "--epoch", "1", "--backend", "torch",
            "--precision", "full", "--progress", "off", "--no-report", "--no-validation"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(per_class=12, size=24))
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(batch_search, "_FEWEST_SECONDS", 0.01)


def trained(cli, photos, folder, *words):
    done = cli(*TRAINING, "--data-dir", photos, "--checkpoint-path", folder, *words)
    assert done.code == 0, done.err
    return torch.load(next(folder.glob("*.pt")), weights_only=True), done.err


def test_a_training_measures_once_and_stores_the_number(cli, photos, tmp_path):
    first, text = trained(cli, photos, tmp_path / "a", "--batch-size", "auto")
    size = first["options"]["batch_size"]
    # 96 images: an epoch keeps 20 updates
    assert size in (1, 2, 4)
    assert re.search(rf"micro-batch {size}: [0-9.,]+ images/s measured; .*reproduce with "
                     rf"'--batch-size {size}'; an update has {size} images, learning rate [0-9.e-]+"
                     " for this number", text)
    again, text = trained(cli, photos, tmp_path / "b", "--batch-size", "auto")
    assert f"micro-batch {size}: " in text
    assert "measured in an earlier run" in text
    given, _ = trained(cli, photos, tmp_path / "c", "--batch-size", str(size))
    for other in (again, given):
        assert all(torch.equal(value, other["model"][name])
                   for name, value in first["model"].items())
        assert other["options"]["lr"] == first["options"]["lr"]


def test_accumulation_and_a_given_rate_stay(cli, photos, tmp_path):
    stored, text = trained(cli, photos, tmp_path / "a", "--batch-size", "auto", "--lr", "0.01",
                           "--gradient-accumulation", "4", "--mixup-alpha", "0.2")
    assert (stored["options"]["batch_size"], stored["options"]["lr"]) == (2, 0.01)
    assert "2 is the largest possible size" in text
    assert "an update has 8 images, learning rate 0.01 as given" in text


def test_the_input_size_of_small_images_is_measured(cli, photos, monkeypatch):
    sizes = []

    def measured(options, network, chosen, plan, images, sharing):
        sizes.append(plan.preprocessing.input_size)
        return options.with_values(batch_size=1), ""

    monkeypatch.setattr(preparation, "with_measured_batch", measured)
    assert cli("train", "--model", "resnet18", "--data-dir", photos, "--batch-size", "auto",
               "--epoch", "1", "--iterations", "1", "--no-validation", "--no-checkpoints",
               "--backend", "torch", "--progress", "off").code == 0
    assert sizes == [64]


@pytest.mark.slow  # it starts processes
def test_instances_agree(photos, tmp_path):
    ranks = run(tmp_path, 2, *TRAINING, "--data-dir", photos, "--checkpoint-path", tmp_path / "a",
                "--batch-size", "auto", "--replicas", "2", "--dataloader-worker", "1")
    assert "images/s measured" in ranks.err()
    assert "images/s" not in ranks.err(1)


def test_a_run_measures_once(cli, photos):
    words = ["run", *TINY, "--model", "tiny", "--weights", "random", "--data", "image_folder",
             "--data-dir", photos, "--backend", "torch", "--batch-size", "auto", "--json",
             "--progress", "off", "--precision", "full"]
    sizes = []
    for when in ("measured;", "measured in an earlier run;"):
        done = cli(*words)
        assert done.code == 0, done.err
        result = json.loads(done.out)
        assert result["images"] == 96
        note = next(note for note in result["notes"] if note.startswith("micro-batch "))
        assert when in note
        sizes.append((result["options"]["batch_size"], note.split()[1]))
    assert sizes[0] == sizes[1] == (sizes[0][0], f"{sizes[0][0]}:")


def test_a_validation_uses_the_measurement_of_a_run(cli, photos, tmp_path):
    _, _ = trained(cli, photos, tmp_path / "a", "--batch-size", "8", "--mixup-alpha", "0.2",
                   "--label-smoothing", "0.1")
    weights = tmp_path / "a"
    done = cli("run", *TINY, "--weights", weights, "--data-dir", photos, "--backend", "torch",
               "--precision", "full", "--batch-size", "auto", "--json", "--progress", "off")
    assert done.code == 0, done.err
    size = json.loads(done.out)["options"]["batch_size"]
    # random augmentation, which needs larger micro-batches, does not apply to validation
    shown = []
    for words in (["auto"], ["auto", "--cache-images", "ram"], ["1"]):
        done = cli("validate", *TINY, "--checkpoint-path", weights, "--validation-data-dir", photos,
                   "--result", tmp_path / "v.json", "--progress", "off", "--batch-size", *words)
        assert done.code == 0, done.err
        result = json.loads((tmp_path / "v.json").read_text())
        shown.append((result["validations"][0]["top1"], result["validations"][0]["images"]))
        assert result["options"]["batch_size"] == (size if words[0] == "auto" else 1)
        assert (f"micro-batch {size}: " in done.err and "measured in an earlier run" in done.err) \
            == (words[0] == "auto")
    assert shown == [(shown[0][0], 96)] * 3


def test_a_run_uses_the_measurement_of_a_validation(cli, photos, tmp_path):
    trained(cli, photos, tmp_path / "a", "--batch-size", "8")
    validate = ["validate", *TINY, "--checkpoint-path", tmp_path / "a", "--validation-data-dir",
                photos, "--batch-size", "auto", "--progress", "off"]
    done = cli(*validate)
    assert done.code == 0, done.err
    assert "images/s measured;" in done.err
    done = cli("run", *TINY, "--weights", tmp_path / "a", "--data-dir", photos, "--backend",
               "torch", "--precision", "full", "--batch-size", "auto", "--progress", "off")
    assert "measured in an earlier run" in done.err
    # another precision or another number of steps per call is another measurement
    for words in (["--precision", "half"], ["--device-iterations", "2"]):
        done = cli(*validate, *words)
        assert done.code == 0, done.err
        assert "images/s measured;" in done.err


@pytest.mark.parametrize(("words", "message"), [
    (["--instances", "2"], "by a run of one process"),
    (["--pipeline-splits", "layer2"], "cannot be used with '--pipeline-splits'"),
    (["--precision", "int8", "--backend", "openvino"], "cannot be used with 8-bit integers")])
def test_runs_that_cannot_be_measured_are_refused(cli, words, message):
    done = cli("run", "--model", "resnet8-cifar", "--weights", "random", "--data", "generated",
               "--backend", "torch", "--batch-size", "auto", *words)
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize("command", ["train", "run"])
def test_ipus_point_to_the_plan(cli, command, photos, popart_double):
    more = [] if command == "train" else ["--weights", "random"]
    done = cli(command, "--model", "resnet8-cifar", "--data", "image_folder", "--data-dir", photos,
               "--backend", "popart", "--batch-size", "auto", *more)
    assert done.code == 2
    assert "cannot be used with backend 'popart'" in done.err
    assert "'ipucnn plan' shows what fits" in done.err


def test_validations_that_cannot_be_measured_are_refused(cli, photos, tmp_path, popart_double,
                                                         monkeypatch):
    trained(cli, photos, tmp_path / "a", "--batch-size", "8")
    words = ["validate", *TINY, "--checkpoint-path", tmp_path / "a", "--validation-data-dir",
             photos, "--batch-size", "auto"]
    done = cli(*words, "--backend", "popart")
    assert done.code == 2
    assert "cannot be used with backend 'popart'" in done.err
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("RANK", "0"), ("LOCAL_RANK", "0"),
                        ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    done = cli(*words)
    assert done.code == 2
    assert "'--batch-size auto' cannot be used with several instances" in done.err


def test_a_plan_measures_nothing(cli, photos):
    done = cli("plan", "--model", "resnet18", "--data-dir", photos, "--batch-size", "auto")
    assert done.code == 2
    assert "cannot be used with 'plan'" in done.err
