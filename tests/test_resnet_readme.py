"""The commands of the old PopART trainer's README, on small data in CIFAR-10's published form."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use
from ipucnn.training.checkpoints.checkpoint import load

SHORT = "--epochs 1 --progress off --json --norm-groups 4 --norm-type GROUP --precision 32"
DATA = "--data-dir=./data/cifar10"


@pytest.fixture(autouse=True)
def _data(tmp_path, monkeypatch, small_cifar10):
    monkeypatch.chdir(tmp_path)
    yield
    use(None)


@pytest.fixture
def cli(capsys):
    def run(command: str):
        code = invoke(shlex.split(command))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def train(cli):
    def run(options: str):
        code, out, err = cli(f"train {options} {SHORT}")
        assert code == 0, err
        return json.loads(out)

    return run


def test_the_resnet_of_its_quick_start(train):
    result = train(f"{DATA} --size 20 --dataset CIFAR-10 --batch-size 25 --base-learning-rate -6 "
                   "--no-prng --no-validation --shortcut-type B --num-workers 1")
    assert (result["model"], result["dataset"]) == ("resnet20-cifar", "cifar10")
    assert result["options"]["lr"] == 25 / 64
    assert (result["updates"], result["images"]) == (10, 250)
    assert result["loss"] > 0


def test_cifar_is_neither_enlarged_nor_partly_validated(train):
    """Its trainer validated on random crops, and counted the last step only."""
    result = train(f"{DATA} --size 8 --batch-size 25 --valid-per-epoch 1 --steps-per-log 1")
    assert not [note for note in result["notes"] if "pixels" in note]
    assert [row["images"] for row in result["validations"]] == [50]


def test_replicas_share_the_batch(train):
    result = train(f"{DATA} --size 8 --batch-size 20 --replication-factor 2 --num-ipus 2 "
                   "--gradient-accumulation-factor 2 --batches-per-step 3 --base-learning-rate=-7 "
                   "--no-validation")
    plan = result["plan"]
    assert (plan["micro_batch"], plan["replicas"], plan["devices"]) == (10, 2, 2)
    assert (plan["update_batch"], plan["combined_batch"]) == (40, 120)
    assert plan["accumulation_reduction"] == "sum"
    assert result["options"]["lr"] == 20 / 128
    assert ("learning rate 0.15625 for the sum over 2 accumulated micro-batches, 0.3125 for their "
            "mean") in result["notes"]


def test_a_pipeline_is_cut_by_itself(train):
    result = train(f"{DATA} --size 8 --batch-size 10 --replication-factor 2 --num-ipus 4 "
                   "--pipeline --recompute --gradient-accumulation-factor 3 --no-validation")
    assert (result["plan"]["stages"], result["plan"]["devices"]) == (2, 4)
    assert result["session"]["splits"] == result["options"]["pipeline_splits"] != []
    assert result["options"]["enable_recompute"] is True


def test_a_pipeline_takes_the_accumulation_that_it_needs(cli, train):
    result = train(f"{DATA} --size 8 --batch-size 4 --num-ipus 4 --pipeline --no-validation "
                   "--iterations 2 --base-learning-rate -6")
    plan = result["plan"]
    assert (plan["stages"], plan["gradient_accumulation"]) == (4, 7)
    assert plan["accumulation_reduction"] == "sum"
    assert any("needs a gradient accumulation of 7" in note for note in result["notes"])
    code, _, err = cli(f"train {DATA} --size 8 --batch-size 4 --num-ipus 4 --pipeline "
                       "--gradient-accumulation-factor 2")
    assert code == 2
    assert "4 pipeline stages need a gradient accumulation of at least 7" in err


def test_ipus_without_a_pipeline_take_turns(train):
    result = train(f"{DATA} --size 8 --batch-size 10 --num-ipus 4 --replication-factor 2 "
                   "--no-validation --iterations 2")
    plan = result["plan"]
    assert (plan["stages"], plan["devices"], plan["gradient_accumulation"]) == (2, 4, 1)
    assert result["options"]["sharded"] is True


def test_what_it_writes(train, tmp_path):
    train(f"{DATA} --size 8 --batch-size 25 --steps-per-log 4 --valid-per-epoch 1 --log-dir runs "
          "--log_dir_string first")
    rows = [json.loads(line)
            for line in (tmp_path / "runs/first/metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["update"]) for row in rows] == [
        ("train", 4), ("train", 8), ("validation", 10)]


def test_the_rate_drops_according_to_the_lists(cli, tmp_path):
    code, _, err = cli(
        f"train {DATA} --size 8 --batch-size 25 --epochs 4 --learning-rate-decay 1,0.5,0.25 "
        "--learning-rate-schedule 0.5,0.75 --base-learning-rate -8 --no-validation --log-dir l "
        "--progress off")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "l/metrics.jsonl").read_text().splitlines()]
    base = 25 / 256
    assert [row["learning_rate"] for row in rows] == [base, base, base / 2, base / 4]


def test_a_restored_training_has_what_the_options_stood_for(cli, tmp_path):
    code, _, err = cli(f"train {DATA} --size 8 --batch-size 20 --replication-factor 2 --epochs 1 "
                       "--base-learning-rate -7 --learning-rate-schedule 0.5 --no-validation "
                       "--shortcut-type C --checkpoint-path saved --progress off")
    assert code == 0, err
    checkpoint = load(tmp_path / "saved/resnet8-cifar_cifar10_1.pt")
    saved = checkpoint.options
    assert (saved["model"], saved["lr"], saved["replicas"], saved["batch_size"]) == (
        "resnet8-cifar", 20 / 128, 2, 10)
    assert saved["lr_epoch_decay"] == [0.5]
    assert "layer1.0.downsample.0.weight" in checkpoint.weights
    code, out, err = cli("restore --checkpoint-path saved --epoch 2 --progress off --json")
    assert code == 0, err
    restored = json.loads(out)
    assert (restored["epochs"], restored["options"]["lr"]) == (2, 20 / 128)
    code, _, err = cli("restore --checkpoint-path saved --epoch 3 --shortcut-type A")
    assert code == 2
    assert "'--shortcut-type' cannot be changed when restoring" in err
    code, _, err = cli("restore --checkpoint-path saved --size 20")
    assert code == 2
    assert "--size" in err


def test_the_papers_option_a_trains(train):
    result = train(f"{DATA} --size 14 --shortcut-type A --batch-size 25 --base-learning-rate -8 "
                   "--no-validation")
    assert result["updates"] == 10
    assert result["loss"] == result["loss"]


@pytest.mark.parametrize(("options", "flag"), [
    ("--prng", "--enable-stochastic-rounding"), ("--fp-exceptions", "--enable-fp-exceptions"),
    ("--simulation", "--ipu-model"), ("--get-reports", "--profile"),
    ("--syncless-collectives true", "--syncless-collectives"),
    ("--max-bytes-per-tile 1000", "--max-bytes-per-tile"), ("--half-partials", "--half-partial")])
def test_what_a_backend_lacks_is_refused_by_name(cli, options, flag):
    code, _, err = cli(f"train {DATA} --size 8 {options} --backend torch")
    assert code == 2
    assert re.search(rf"'{flag}' is an option of backends? popart.*; this run uses torch$", err,
                     re.MULTILINE)


def test_the_plan_of_its_options(cli):
    code, out, err = cli("plan --size 50 --dataset IMAGENET --batch-size 64 --replication-factor 4 "
                         "--num-ipus 16 --pipeline --gradient-accumulation-factor 8 "
                         "--base-learning-rate -9 --json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["model"], document["dataset"]) == ("resnet50", "imagenet")
    assert document["plan"]["micro_batch"] == 16
    assert document["learning_rate"] == {"lr": 0.125, "of_mean_gradient": 1.0}
    assert document["begins_at"] == ["input", "layer2/1", "layer3/1", "layer3/5"]


def test_the_python_interface_takes_them_too():
    import ipucnn

    result = ipucnn.train(size=8, dataset="CIFAR-10", batch_size=25, base_learning_rate=-6,
                          precision=32, epochs=1, no_validation=True, iterations=2,
                          data_dir="data/cifar10")
    assert (result.model, result.options["lr"]) == ("resnet8-cifar", 25 / 64)
