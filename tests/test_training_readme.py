"""The example commands of the old training application's README, on small data."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from PIL import Image

from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use

IMAGENET = "--data imagenet --imagenet-data-path path-to/imagenet"
RESNET = ("--model resnet50  --data cifar10 --normlayer group --groupnorm-group-num 32 "
          "--replicas 4 --batch-size 4 --device-iteration 2 --pipeline-splits layer1/2 layer2/3 "
          "layer3/3 --enable-pipeline-recompute --no-validation --precision half "
          "--gradient-accumulation 64")
EFFICIENTNET = ("--model efficientnet-b0 --precision half --pipeline-splits "
                "_blocks/1/_project_conv _blocks/4/_bn1 _blocks/10 --device-iteration 1 "
                "--available-memory-proportion 0.1 --enable-pipeline-recompute --no-validation "
                "--batch-size 4 --gradient-accumulation 128 --epoch 10 --replicas 4")
SMALL = "--input-size 32 --progress off"
# the smallest accumulation that fills four pipeline stages; data for the whole takes minutes
SHORT = f"{SMALL} --iterations 1 --epoch 1 --gradient-accumulation 7"


@pytest.fixture(autouse=True)
def _data(tmp_path, monkeypatch, small_cifar10):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 6), ("validation", 3)):
        for number in range(2):
            place = tmp_path / "path-to" / "imagenet" / split / f"n0144076{number}"
            place.mkdir(parents=True)
            for image in range(count):
                Image.new("RGB", (50, 40), (80 * number, 20 * image, 9)).save(
                    str(place / f"{image}.JPEG"))
    yield
    use(None)


@pytest.fixture
def cli(capsys):
    def run(command: str):
        code = invoke(shlex.split(command))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


def test_training_imagenet_and_using_its_checkpoints(cli, tmp_path):
    out = cli(f"train {IMAGENET} {SMALL} --epoch 2 --batch-size 4 --checkpoint-path saved")
    assert len(re.findall(r"^Accuracy on test set: \d+\.\d\d%$", out, re.M)) == 2
    files = sorted(path.name for path in tmp_path.glob("saved/*.pt"))
    assert files == ["resnet18_imagenet_1.pt", "resnet18_imagenet_2.pt"]
    rows = [json.loads(line) for line in (tmp_path / "saved/metrics.jsonl").read_text().splitlines()
            ]
    assert [row["update"] for row in rows if row["kind"] == "train"] == [3, 6]

    cli("restore --checkpoint-path saved/resnet18_imagenet_2.pt --epoch 3 --progress off")
    assert (tmp_path / "saved/resnet18_imagenet_3.pt").exists()

    one = cli("validate --checkpoint-path saved/resnet18_imagenet_1.pt --progress off")
    assert len(re.findall("Accuracy on test set", one)) == 1
    document = json.loads(cli("validate --checkpoint-path saved --progress off --json"))
    assert [(v["epoch"], v["images"]) for v in document["validations"]] == [(1, 6), (2, 6), (3, 6)]


def test_resnet50_of_sixteen_ipus(cli, tmp_path):
    result = json.loads(cli(f"train {RESNET} {SHORT} --json"))
    assert result["plan"] == {
        "micro_batch": 4, "device_iterations": 2, "replicas": 4, "gradient_accumulation": 7,
        "accumulation_reduction": "mean", "instances": 1, "stages": 4, "devices": 16,
        "combined_batch": 224, "update_batch": 112,
        "precision": "16.16", "half": result["plan"]["half"]}
    assert result["updates"] == 2
    assert result["session"]["splits"] == ["layer1/2", "layer2/3", "layer3/3"]
    assert result["session"]["recomputed"] > 0


def test_efficientnet_of_sixteen_ipus(cli):
    result = json.loads(cli(f"train {EFFICIENTNET} {SHORT} --json"))
    assert result["dataset"] == "cifar10"
    assert result["plan"]["devices"] == 16
    assert result["updates"] == 1
    assert result["images"] == 4 * 4 * 7
