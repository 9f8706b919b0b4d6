"""Training as a user meets it: commands, files, errors."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use
from ipucnn.plugins.backends.torch.training import TorchTrainingSession
from ipucnn.training.checkpoints import keeper
from ipucnn.training.metrics.validation import Evaluator

# the folder is linked into every test's working directory
TINY = ["--model", "resnet8-cifar", "--data", "image_folder", "--data-dir", "pictures",
        "--input-size", "32", "--precision", "full",
        "--batch-size", "4", "--iterations", "3", "--epoch", "2", "--lr", "0.05",
        "--progress", "off"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Real JPEG files: 32 to train on, 24 to validate."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "4", "--size", "40",
                   "--validation-per-class", "3"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _pictures_here(own_folder, pictures, tmp_path):
    (tmp_path / "pictures").symlink_to(pictures)


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A folder of checkpoints of a short training."""
    folder = tmp_path_factory.mktemp("trained") / "ckpt"
    os.chdir(str(pictures.parent))
    assert invoke(["train", *TINY, "--checkpoint-path", str(folder), "--momentum", "0.9",
                   "--no-validation", "--ema-decay", "0.9"]) == 0
    use(None)
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_prints_what_old_scripts_parse(cli, tmp_path):
    code, out, err = cli("train", *TINY, "--no-validation")
    assert code == 0, err
    assert re.findall(r"^Epoch \d/2$", out, re.M) == ["Epoch 1/2", "Epoch 2/2"]
    assert len(re.findall(r"^Epoch \d: Train accuracy is \d+\.\d+%$", out, re.M)) == 2
    assert len(re.findall(r"^Throughput of the epoch:\d+\.\d img/sec$", out, re.M)) == 2
    (folder,) = (tmp_path / "logs").iterdir()
    assert [row["kind"] for row in rows(folder)] == ["train", "train"]
    with open(folder / "metrics.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in table] == [row["loss"] for row in rows(folder)]
    assert yaml.safe_load((folder / "options.yaml").read_text())["batch_size"] == 4


def test_a_training_that_is_aborted_keeps_its_record(cli, tmp_path, monkeypatch):
    def aborted(*_):
        raise KeyboardInterrupt("SIGINT")  # as by a second Ctrl-C

    monkeypatch.setattr(TorchTrainingSession, "step", aborted)
    assert cli("train", *TINY, "--backend", "torch", "--log-dir", "a")[0] == 130
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert (record["status"], record["model"]) == ("failed", "resnet8-cifar")
    assert record["options"]["batch_size"] == 4
    assert "packages" in record["environment"]


def test_a_checkpoint_is_due_after_minutes_at_the_end_of_an_epoch_as_well(cli, monkeypatch):
    saved = []

    def save(checkpoint, folder):
        saved.append(checkpoint.name)
        return write(checkpoint, folder)

    write = keeper.save
    monkeypatch.setattr(keeper, "save", save)
    code, _out, err = cli("train", *TINY, "--iterations", "1", "--epoch", "3", "--no-validation",
                          "--checkpoint-save-freq", "3", "--checkpoint-save-minutes", "1e-9")
    assert code == 0, err
    names = [name.partition("image_folder_")[2] for name in saved]
    assert names == ["2.step1.pt", "3.step2.pt", "3.pt"]


def test_more_steps_than_an_epoch_has_are_noted(cli):
    short = ["train", *TINY, "--epoch", "1", "--no-validation"]
    code, _out, err = cli(*short, "--steps-per-log", "4", "--checkpoint-save-steps", "3")
    assert code == 0, err
    text = " ".join(err.split())
    assert "'--steps-per-log 4' records no metrics of the training: an epoch has 3 host" in text
    assert "'--checkpoint-save-steps 3' has no effect: an epoch has 3 host calls" in text
    code, _out, err = cli(*short, "--steps-per-log", "3", "--checkpoint-save-steps", "2")
    assert (code, "an epoch has" in err) == (0, False), err


def test_the_saved_options_repeat_the_training(cli, tmp_path):
    first = cli("train", *TINY, "--no-validation", "--checkpoint-path", "c", "--log-dir", "a",
                "--result", "r.json")
    before = {path.name: path.read_bytes() for path in (
        *(tmp_path / "a").iterdir(), *(tmp_path / "c").iterdir(), tmp_path / "r.json")}
    again = cli("train", "--config", "a/options.yaml", "--progress", "off")
    assert (first[0], again[0]) == (0, 0), again[2]
    (other,) = (tmp_path / "logs").iterdir()
    assert [row["loss"] for row in rows(tmp_path / "a")] == [row["loss"] for row in rows(other)]
    assert before == {path.name: path.read_bytes() for path in (
        *(tmp_path / "a").iterdir(), *(tmp_path / "c").iterdir(), tmp_path / "r.json")}


def test_a_log_folder_in_use_keeps_the_record_of_the_other_training(cli, tmp_path):
    short = [*TINY, "--no-validation", "--epoch", "1", "--iterations", "1"]
    assert cli("train", *short, "--log-dir", "a")[0] == 0
    before = (tmp_path / "a" / "metrics.jsonl").read_text()
    code, _out, err = cli("train", *short, "--log-dir", "a", "--lr", "0.5")
    assert code == 0, err
    assert "contains the record of another training" in " ".join(err.split())
    assert (tmp_path / "a" / "metrics.jsonl.superseded").read_text() == before
    assert len(rows(tmp_path / "a")) == 1
    # killed before its first checkpoint: the same command begins it again
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.jsonl").write_text(before)
    (tmp_path / "c" / "training.json").write_text('{"status": "running"}')
    assert cli("train", *short, "--checkpoint-path", "c")[0] == 0
    assert not list((tmp_path / "c").glob("*.superseded"))
    assert len(rows(tmp_path / "c")) == 1


def test_a_record_that_begins_with_a_restored_checkpoint_is_noted(cli, tmp_path, monkeypatch):
    short = [*TINY, "--no-validation", "--epoch", "1", "--iterations", "1"]
    place = str(tmp_path / "c")
    assert cli("train", *short, "--checkpoint-path", place, "--log-dir", "a")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pictures").symlink_to(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path / "elsewhere")
    restored = ("restore", "--checkpoint-path", place)
    code, _out, err = cli(*restored, "--epoch", "2", "--log-dir", "../a")
    assert (code, "has no record of this training" in err) == (0, False), err
    assert len(rows(tmp_path / "a")) == 2
    checkpoint = place + "/resnet8-cifar_image_folder_1.pt"
    code, _out, err = cli("restore", "--checkpoint-path", checkpoint, "--epoch", "2")
    assert (code, "elsewhere/a' has no record of this training" in err) == (0, True), err
    code, _out, err = cli(*restored, "--epoch", "3")
    assert (code, "has no record of this training" in err) == (0, False), err


def test_results_of_restored_trainings_are_checked_before_the_work(cli, tmp_path):
    short = [*TINY, "--no-validation", "--epoch", "1", "--iterations", "1", "--checkpoint-path"]
    (tmp_path / "full").mkdir()
    assert cli("train", *short, "a", "--result", "r.json")[0] == 0
    (tmp_path / "r.json").unlink()
    (tmp_path / "r.json").mkdir()  # it cannot be written any more, and is not written again
    code, _out, err = cli("restore", "--checkpoint-path", "a", "--epoch", "2")
    assert code == 0, err
    first = (tmp_path / "a" / "metrics.jsonl").read_text()
    for start in (["restore", "--checkpoint-path", "a"], ["train", *TINY, "--resume", "a"]):
        code, _out, err = cli(*start, "--epoch", "3", "--no-checkpoints")
        assert (code, "cannot be used for a restored training" in err) == (2, True), err
        for place, expected, reason in (("full", 1, "cannot write 'full': it is a folder"),
                                        ("./a/best.json", 2, "which the training writes")):
            code, _out, err = cli(*start, "--epoch", "3", "--result", place)
            assert (code, reason in err) == (expected, True), err
    code, _out, err = cli("train", *short, "b", "--result", "b/metrics.jsonl")
    assert (code, "which the training writes" in err) == (2, True), err
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == first
    assert cli("restore", "--checkpoint-path", "a", "--epoch", "3", "--result", "s.json")[0] == 0
    assert json.loads((tmp_path / "s.json").read_text())["epochs"] == 3
    assert ipucnn.restore("a", epoch=4, result="t.json").epochs == 4
    assert json.loads((tmp_path / "t.json").read_text())["epochs"] == 4


def test_an_interrupt_of_the_preparation_ends_it_at_once(cli, monkeypatch):
    def opened(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        pytest.fail("it goes on")

    monkeypatch.setattr("ipucnn.training.job.prepare", opened)
    code, _out, err = cli("train", *TINY)
    assert (code, err.splitlines()[-1]) == (130, "interrupted")


def test_json_is_one_document(cli):
    code, out, err = cli("train", *TINY, "--no-validation", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["format"] == "ipucnn.train/1"
    assert (result["epochs"], result["updates"], result["images"]) == (2, 6, 24)


def test_validation_after_training_scores_every_checkpoint(cli):
    code, out, err = cli("train", *TINY, "--checkpoint-path", "c")
    assert code == 0, err
    assert len(re.findall(r"^Accuracy on test set: \d+\.\d+%$", out, re.M)) == 2


def test_validation_during_training_and_the_best(cli, tmp_path):
    code, _out, err = cli("train", *TINY, "--checkpoint-path", "c", "--validation-mode", "during",
                         "--validation-frequency", "1", "--keep-best", "--keep-last", "1",
                         "--best-metric", "loss", "--ema-decay", "0.5")
    assert code == 0, err
    found = [row for row in rows(tmp_path / "c") if row["kind"] == "validation"]
    assert [(row["epoch"], row["weights"]) for row in found] == [
        (1, "raw"), (1, "ema"), (2, "raw"), (2, "ema")]
    best = json.loads((tmp_path / "c" / "best.json").read_text())
    assert best["value"] == min(row["loss"] for row in found)
    assert (tmp_path / "c" / best["file"]).exists()


def test_validation_reports_the_loss_that_is_trained(cli):
    plugin = ["--plugin", str(Path(__file__).parent.parent / "tiny_plugin.py")]
    losses = {}
    for name in ("cross-entropy", "focal"):
        code, out, err = cli(*plugin, "train", *TINY[2:], "--model", "tiny", "--input-size", "16",
                             "--iterations", "1", "--epoch", "1", "--lr", "0", "--loss", name,
                             "--validation-mode", "during", "--checkpoint-path", name, "--json")
        assert code == 0, err
        losses[name] = json.loads(out)["validations"][0]["loss"]
    # of one untrained network with 8 classes, whose probabilities are near 1/8
    assert losses["focal"] == pytest.approx(losses["cross-entropy"] * 0.875 ** 2, rel=0.05)
    code, out, err = cli(*plugin, "validate", "--checkpoint-path", "focal", "--json",
                         "--progress", "off")
    assert code == 0, err
    assert json.loads(out)["validations"][0]["loss"] == pytest.approx(losses["focal"], rel=1e-5)


SEVERAL = """
import ipucnn
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import ImageDataset

class Images(ImageDataset):
    class_names = ("cat", "dog")
    multi_label = True
    def __len__(self):
        return 8
    def image(self, index):
        import torch
        return torch.zeros(3, 16, 16, dtype=torch.uint8)
    def name(self, index):
        return f"image {index}"

@ipucnn.hookimpl
def ipucnn_datasets():
    return [DatasetSpec(name="several", summary="s", target=lambda request: Images(),
                        labelled=True)]
"""


def test_images_with_several_classes_need_a_loss_that_takes_them(cli, tmp_path):
    (tmp_path / "several.py").write_text(SEVERAL)
    code, _, err = cli("--plugin", "several.py", "train", "--model", "mobilenet-v3-small",
                       "--data", "several", "--loss", "focal", "--input-size", "32")
    assert code == 2
    assert "images of dataset 'several' may have several classes" in err
    assert "loss 'focal' takes one per image" in err
    assert "use '--loss binary-cross-entropy'" in err


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_without_a_label_are_not_trained_on(cli, tmp_path, in_memory):
    (tmp_path / "partly.py").write_text(SEVERAL.replace("several", "partly").replace(
        "multi_label = True", f"""labels_in_memory = {in_memory}
    def label(self, index):
        return None if index == 5 else index % 2"""))
    code, _, err = cli("--plugin", "partly.py", "train", "--model", "resnet8-cifar", "--data",
                       "partly", "--input-size", "16", "--batch-size", "8", "--epoch", "1",
                       "--no-validation", "--no-checkpoints", "--progress", "off")
    assert code == 1, err
    assert "training image 'image 5' has no label" in err


def test_early_stopping_ends_the_training(cli):
    code, out, err = cli("train", *TINY[:-1], "off", "--epochs", "9", "--lr", "0",
                         "--validation-mode", "during", "--validation-frequency", "1",
                         "--early-stopping", "2", "--json", "--momentum", "0")
    assert code == 0, err
    result = json.loads(out)
    assert result["stopped_by"] == "early stopping"
    assert result["epochs"] < 9
    folder = os.path.dirname(result["checkpoint"])
    code, _, err = cli("restore", "--checkpoint-path", folder, "--progress", "off")
    assert code == 0, err
    assert "without a better result: 2; a larger '--early-stopping' continues it" in err
    code, out, _ = cli("watch", folder, "--once")
    assert code == 0
    assert f"epoch {result['epochs']}/9" in out
    assert "backend torch" in out


def test_validate_agrees_with_itself_whatever_the_batch(cli, trained):
    answers = []
    for size in ("1", "7", "32"):
        code, out, err = cli("validate", "--checkpoint-path", trained, "--batch-size", size,
                             "--json", "--progress", "off")
        assert code == 0, err
        answers.append(json.loads(out)["validations"])
    assert [row["images"] for row in answers[0]] == [24] * 4
    for other in answers[1:]:
        assert [row["top1"] for row in other] == [row["top1"] for row in answers[0]]
        assert [row["loss"] for row in other] == pytest.approx(
            [row["loss"] for row in answers[0]], rel=1e-5)
    assert [(row["epoch"], row["weights"]) for row in answers[0]] == [
        (1, "raw"), (1, "ema"), (2, "raw"), (2, "ema")]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_validate_with_an_engine_of_inference(cli, trained, engine):
    pytest.importorskip(engine)
    (newest,) = trained.glob("*_2.pt")
    losses = []
    for backend in ("torch", engine):
        code, out, err = cli("validate", "--checkpoint-path", newest, "--no-ema", "--backend",
                             backend, "--json", "--progress", "off")
        assert code == 0, err
        (row,) = json.loads(out)["validations"]
        assert row["images"] == 24
        losses.append(row["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_validate_with_options_of_the_calls_of_an_engine(cli, trained, engine):
    pytest.importorskip(engine)
    (newest,) = trained.glob("*_2.pt")
    validate = ["validate", "--checkpoint-path", newest, "--no-ema", "--backend", engine, "--json",
                "--progress", "off", "--precision", "full", "--batch-size", "8"]
    requests = ["--requests", "2"] if engine != "torch" else []
    spinning = ["--no-spinning"] if engine == "onnxruntime" else []
    losses = []
    for words in ([], ["--images-per-call", "2", *requests, *spinning]):
        code, out, err = cli(*validate, *words)
        assert code == 0, err
        losses.append(json.loads(out)["validations"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    code, _, err = cli(*validate, "--images-per-call", "3")
    assert code == 2
    assert "does not divide a micro-batch of 8" in err


def test_options_of_validate_are_those_that_apply(cli, trained):
    listed = cli("validate", "--help")[1]
    assert "--images-per-call" in listed
    assert "--sync-batchnorm" not in listed
    code, _, err = cli("validate", "--checkpoint-path", trained, "--sync-batchnorm")
    assert code == 2
    assert "'--sync-batchnorm' is an option of backend torch (training only)" in err
    code, _, err = cli("train", "--images-per-call", "2")
    assert code == 2
    assert "(inference only)" in err


def test_validate_reports_classes_and_writes_the_matrix(cli, trained, tmp_path):
    (newest,) = trained.glob("*_2.pt")
    code, out, err = cli("validate", "--checkpoint-path", newest, "--per-class", "--no-ema",
                         "--confusion-matrix", tmp_path / "m.csv", "--progress", "off")
    assert code == 0, err
    assert "triangle" in out
    with open(tmp_path / "m.csv") as file:
        matrix = list(csv.reader(file))
    assert matrix[0][1:] == ["bar", "circle", "crescent", "cross", "ring", "square", "star",
                             "triangle"]
    assert sum(int(cell) for row in matrix[1:] for cell in row[1:]) == 24


def test_validations_before_an_interrupt_are_printed_and_written(cli, trained, tmp_path,
                                                                 monkeypatch):
    evaluate = Evaluator.__call__

    def interrupted(self, weights, epoch, *more):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, weights, epoch, *more)

    monkeypatch.setattr(Evaluator, "__call__", interrupted)
    code, out, err = cli("validate", "--checkpoint-path", trained, "--no-ema", "--json",
                         "--result", "r.json", "--progress", "off")
    assert (code, "interrupted" in err) == (130, True), err
    for found in (json.loads(out), json.loads(Path("r.json").read_text())):
        assert [one["epoch"] for one in found["validations"]] == [1]


def test_average_never_eats_its_own_output(cli, trained, tmp_path):
    first = cli("average", "--checkpoint-path", trained, "--output", tmp_path / "a.pt", "--json")
    again = cli("average", "--checkpoint-path", trained, "--json")
    third = cli("average", "--checkpoint-path", trained, "--json")
    assert (first[0], again[0], third[0]) == (0, 0, 0), first[2] + again[2]
    assert json.loads(first[1])["files"] == json.loads(third[1])["files"]
    for file in trained.glob("*averaged*"):
        file.unlink()


def test_average_can_estimate_the_statistics_again(cli, trained, tmp_path):
    code, _out, err = cli("average", "--checkpoint-path", trained, "--output", tmp_path / "a.pt",
                         "--reestimate-batch-norm", "32")
    assert code == 0, err
    code, _out, err = cli("average", "--checkpoint-path", trained, "--output", tmp_path / "c.pt",
                          "--reestimate-batch-norm", "32", "--data-dir", tmp_path / "nowhere")
    assert code == 1, err
    assert not (tmp_path / "c.pt").exists()
    assert cli("average", "--checkpoint-path", trained, "--output", tmp_path / "b.pt")[0] == 0
    scores = [cli("validate", "--checkpoint-path", tmp_path / name, "--json", "--progress",
                  "off") for name in ("a.pt", "b.pt")]
    assert [code for code, _, _ in scores] == [0, 0], scores
    losses = [json.loads(out)["validations"][0]["loss"] for _, out, _ in scores]
    assert losses[0] != losses[1]


def test_restore_continues_and_reports_changes(cli, trained, tmp_path):
    code, out, err = cli("restore", "--checkpoint-path", trained, "--epoch", "3", "--lr", "0.01",
                         "--checkpoint-output-dir", tmp_path / "new", "--json", "--progress", "off")
    assert code == 0, err
    assert "epoch: 2 -> 3" in err
    assert "lr: 0.05 -> 0.01" in err
    assert json.loads(out)["epochs"] == 3
    assert [path.name for path in (tmp_path / "new").glob("*.pt")] == [
        "resnet8-cifar_image_folder_3.pt"]


@pytest.mark.parametrize("change", [
    ["--model", "resnet34"], ["--normlayer", "none"], ["--optimizer", "adam"],
    ["--weights", "pretrained"]])
def test_restore_refuses_what_makes_no_sense(cli, trained, change):
    code, _, err = cli("restore", "--checkpoint-path", trained, "--progress", "off", *change)
    assert code == 2
    assert f"'{change[0]}' cannot be changed when restoring" in err


def test_restore_does_not_offer_another_optimizer_for_its_options(cli, trained):
    code, _, err = cli("restore", "--checkpoint-path", trained, "--progress", "off",
                       "--trust-ratio-max", "2")
    assert code == 2
    assert "'--trust-ratio-max' is an option of optimizer lamb; this run uses sgd" in err
    assert "leave it out: a training is restored with the same '--optimizer'" in err
    assert "choose" not in err


def test_a_trained_model_classifies(cli, trained, tmp_path):
    (newest,) = trained.glob("*_2.pt")
    code, out, err = cli("run", "--model", "resnet8-cifar", "--weights", newest, "--data",
                         "shapes", "--iterations", "1", "--input-size", "32", "--precision",
                         "full", "--batch-size", "64",
                         "--json", "--progress", "off")
    assert code == 0, err
    assert json.loads(out)["accuracy"]["images"] == 64


BAD = [
    (["train", "--data", "real", "--data-dir", "."], "no labels", 2),
    (["train", *TINY, "--batch-size", "600"], "one host call takes", 2),
    (["train", *TINY, "--keep-best", "--no-validation"], "'--keep-best' needs validation", 2),
    (["train", *TINY, "--lr-schedule", "cosine", "--lr-decay", "0.3"], "--lr-decay", 2),
    (["train", *TINY, "--optimizer", "adam", "--momentum", "0.5"], "--momentum", 2),
    (["train", *TINY, "--enable-stochastic-rounding"],
     "'--enable-stochastic-rounding' is an option of backends popart, poptorch", 2),
    (["train", *TINY, "--mixup-alpha", "0.1", "--batch-size", "1"], "mixup cannot mix", 2),
    (["train", *TINY, "--initial-loss-scaling", "8"], "'--initial-loss-scaling 8' is above", 2),
    (["train", *TINY, "--pipeline-splits", "layer2"], "gradient accumulation of at least 3", 2),
    (["train", "--data", "imagenet"], "needs a folder", 2),
    (["train", "--data", "imagenet", "--imagenet-data-path", "nowhere"], "nowhere", 1),
    (["restore", "--checkpoint-path", "nowhere"], "nowhere", 1),
    (["restore"], "a checkpoint is required", 2),
    (["validate", "--checkpoint-path", "nowhere"], "nowhere", 1),
    (["average", "--checkpoint-path", "nowhere"], "nowhere", 1),
    (["average", "--checkpoint-path", "nowhere", "--reestimate-batch-norm", "1"], "too few", 2),
]


@pytest.mark.parametrize(("argv", "message", "code"), BAD,
                         ids=lambda value: value if isinstance(value, str) else None)
def test_bad_usage(cli, argv, message, code):
    found, _out, err = cli(*argv)
    assert message in err, err
    assert found == code
    assert err.count("error: ") == 1
    assert "Traceback" not in err


def test_a_used_folder_is_not_trained_over(cli, trained):
    code, _, err = cli("train", *TINY, "--checkpoint-path", trained)
    assert code == 2
    assert "ipucnn restore" in err


def test_a_loss_that_is_not_finite_stops_with_everything_named(cli):
    code, _, err = cli("train", *TINY, "--checkpoint-path", "c", "--lr", "1e30",
                       "--no-validation", "--epoch", "5", "--lr-schedule", "constant",
                       "--warmup-epoch", "0")
    assert code == 1
    error = next(line for line in err.splitlines() if line.startswith("error: "))
    for part in ("step", "learning rate 1e+30", "loss scaling 1", "last good checkpoint"):
        assert part in error
    assert "'--loss-scaling'" not in err  # it is not above 1


def test_a_training_that_fails_after_a_checkpoint_suggests_to_continue(cli, trained, tmp_path):
    shutil.copytree(str(trained), str(tmp_path / "copy"))
    code, out, err = cli("restore", "--checkpoint-path", "copy", "--epoch", "4", "--lr", "1e30",
                         "--progress", "off")
    assert (code, "last good checkpoint: copy" in " ".join(err.split())) == (1, True), err
    assert "The last checkpoint is saved. Next:" in out
    assert "ipucnn restore --checkpoint-path copy   (continue)" in out


def test_a_truncated_checkpoint_is_named_and_the_one_before_taken(cli, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(str(trained), str(copy))
    (newest,) = copy.glob("*_2.pt")
    newest.write_bytes(newest.read_bytes()[:5000])
    code, _out, err = cli("restore", "--checkpoint-path", copy, "--progress", "off")
    assert code == 0, err
    assert "_2.pt' is skipped" in err
    assert "restoring" in err
    assert "_1.pt" in err
    assert torch.load(newest, weights_only=True)["format"] == "ipucnn.checkpoint/1"


def test_half_resolution_training(cli, tmp_path):
    code, out, err = cli(
        "train", *TINY, "--checkpoint-path", "c", "--half-res-training", "--fine-tune-epoch", "1",
        "--fine-tune-batch-size", "4", "--fine-tune-first-trainable-layer", "layer3",
        "--weight-avg-strategy", "mean", "--no-validation")
    assert code == 0, err
    assert "Training at 24 pixels" in out
    assert "Fine-tuning at 32 pixels" in out
    before = torch.load(next(tmp_path.glob("c/*averaged.pt")), weights_only=True)["model"]
    after = torch.load(next(tmp_path.glob("c/fine-tune/*.pt")), weights_only=True)["model"]
    assert torch.equal(before["conv1.weight"], after["conv1.weight"])
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_a_half_resolution_training_is_restored_in_any_phase(cli, tmp_path):
    argv = ["train", *TINY, "--checkpoint-path", "c", "--half-res-training", "--fine-tune-epoch",
            "2", "--fine-tune-batch-size", "4", "--fine-tune-first-trainable-layer", "layer3",
            "--weight-avg-strategy", "mean", "--no-validation"]
    assert cli(*argv)[0] == 0
    last = tmp_path / "c/fine-tune/resnet8-cifar_image_folder_2.pt"
    whole = last.read_bytes()
    last.unlink()
    code, out, err = cli("restore", "--checkpoint-path", "c", "--progress", "off")
    assert code == 0, err
    assert "Fine-tuning at 32 pixels from c/fine-tune/resnet8-cifar_image_folder_1.pt" in out
    assert last.read_bytes() == whole
    for path in [*tmp_path.glob("c/*_2*.pt"), *tmp_path.glob("c/fine-tune/*.pt")]:
        path.unlink()
    code, out, err = cli("restore", "--checkpoint-path", "c", "--progress", "off")
    assert code == 0, err
    assert "Training at 24 pixels" in out
    assert last.read_bytes() == whole


def test_losses_that_are_not_finite_are_tolerated_up_to_a_number(cli):
    argv = ["train", *TINY, "--no-validation", "--lr", "1e30", "--epoch", "4", "--json"]
    code, out, err = cli(*argv, "--skip-non-finite", "100")
    assert code == 0, err
    result = json.loads(out)
    assert result["skipped"]["updates"] > 3
    assert result["updates"] == 12
    code, out, err = cli(*argv, "--skip-non-finite", "3")
    assert code == 1
    assert "not finite" in err
    assert json.loads(out)["skipped"]["updates"] == 3


def test_a_training_whose_updates_are_all_skipped_fails(cli, monkeypatch, tmp_path):
    from ipucnn.plugins.backends.torch.training import TorchTrainingSession

    monkeypatch.setattr(TorchTrainingSession, "_updated", lambda *_: (None, 0))
    code, out, err = cli("train", *TINY, "--no-validation", "--epoch", "2", "--json",
                         "--checkpoint-path", "c", "--skip-non-finite", "100")
    assert code == 1
    assert "error: all 3 updates are skipped: their loss is not finite" in err
    result = json.loads(out)
    assert (result["loss"], result["accuracy"], result["skipped"]["updates"]) == (None, None, 3)
    rows = [json.loads(row) for row in (tmp_path / "c/metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [None]
