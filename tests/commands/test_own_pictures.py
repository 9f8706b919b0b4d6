"""Training on a folder of one's own: held-out images, classes of unequal size, labels in a file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from ipucnn import restore
from ipucnn.core.options.building import build
from ipucnn.core.progress import Listener
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, registry, use
from ipucnn.data.formats.recognition import scored_as
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.phases import train_all

PLUGIN = str(Path(__file__).parents[1] / "tiny_plugin.py")
TINY = ["--plugin", PLUGIN, "--model", "tiny", "--precision", "full", "--batch-size", "4",
        "--progress", "off", "--lr", "0.05"]
COUNTS = {"ant": 24, "bee": 6}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Real JPEG files: 24 of ants, 6 of bees."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    random = numpy.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (24, 30, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(str(folder / name / f"{name}{number}.jpg"), "JPEG")
    return folder


@pytest.fixture(autouse=True)
def _photos_here(own_folder, photos, tmp_path):
    (tmp_path / "photos").symlink_to(photos)


def train(cli, *more, data="photos"):
    return cli("train", *TINY, "--data", "image_folder", "--data-dir", data, *more)


def losses(folder):
    return [(row["kind"], row["loss"]) for row in map(
        json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())]


def test_one_folder_is_divided_and_validated_alike_everywhere(cli):
    code, out, err = train(cli, "--epoch", "2", "--checkpoint-path", "c", "--json",
                           "--validation-mode", "during", "--validation-frequency", "1")
    assert code == 0, err
    assert "note: 3 of the 30 images in 'photos' are held out for validation: set the share" in err
    assert "note: classes differ in size: 'ant' has 22 images and 'bee' 5; '--class-weights" in err
    result = json.loads(out)
    assert [row["images"] for row in result["validations"]] == [3, 3]
    best = json.loads(Path("c/best.json").read_text())
    for epoch in (1, 2):  # checkpoints are written before their validation
        code, out, err = cli("--plugin", PLUGIN, "show", f"c/tiny_image_folder_{epoch}.pt",
                             "--json")
        assert code == 0, err
        expected = {f"best {name}": value for name, value in best.items() if name != "file"}
        assert json.loads(out)["metrics"] == (expected if epoch == best["epoch"] else {})
    code, out, err = cli("validate", "--plugin", PLUGIN, "--checkpoint-path", "c", "--json")
    assert code == 0, err
    assert "would hold out" not in err
    found = json.loads(out)["validations"]
    assert [row["loss"] for row in found] == pytest.approx(
        [row["loss"] for row in result["validations"]])
    for flag, images in (("--data-dir", 3), ("--validation-data-dir", 30)):
        code, out, err = cli("validate", "--plugin", PLUGIN, "--weights",
                             "c/tiny_image_folder_2.pt", flag, "photos", "--json")
        assert code == 0, err
        assert json.loads(out)["validations"][0]["images"] == images
        assert ("counts the 3 images that a training on 'photos' would hold out" in err) == (
            images == 3)
    code, out, err = cli("restore", "--plugin", PLUGIN, "--checkpoint-path",
                         "c/tiny_image_folder_1.pt", "--checkpoint-output-dir", "d", "--json",
                         "--progress", "off")
    assert code == 0, err
    assert json.loads(out)["validations"][-1]["loss"] == result["validations"][-1]["loss"]
    code, _, err = cli("restore", "--plugin", PLUGIN, "--checkpoint-path", "c",
                       "--validation-split", "0.3")
    assert code == 2
    assert "'--validation-split' cannot be changed when restoring" in err
    code, out, err = cli("run", *TINY[:4], "--weights", "random", "--data", "image_folder",
                         "--data-dir", "photos", "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 30
    code, _, err = cli("run", *TINY[:4], "--data", "image_folder", "--data-dir", "photos",
                       "--validation-split", "0.3")
    assert code == 2
    assert "validation-split" in err


def test_without_validation_all_images_are_trained(cli):
    code, out, err = train(cli, "--epoch", "1", "--no-validation", "--json", "--batch-size", "30",
                           "--checkpoint-path", "c")
    assert code == 0, err
    assert json.loads(out)["images"] == 30
    code, _, err = cli("validate", "--plugin", PLUGIN, "--checkpoint-path", "c")
    assert code == 1
    assert "there are no validation images in 'photos'" in err


def test_a_share_is_not_held_out_beside_other_validation_images(cli):
    elsewhere = ["--validation-data-dir", "photos", "--epoch", "1", "--json", "--checkpoint-path"]
    code, _, err = train(cli, "--validation-split", "0.5", *elsewhere, "c")
    assert code == 2
    assert "'--validation-split' has no effect: the validation images are those in 'photos'" in err
    code, out, err = train(cli, "--validation-split", "0", *elsewhere, "c", "--batch-size", "30")
    assert code == 0, err
    assert json.loads(out)["images"] == 30
    # a restored training keeps its images
    code, _, err = train(cli, "--validation-split", "0.5", "--epoch", "1", "--checkpoint-path", "d")
    assert code == 0, err
    code, out, err = cli("restore", "--plugin", PLUGIN, "--checkpoint-path", "d", "--epoch", "2",
                         "--validation-data-dir", "photos", "--progress", "off")
    assert code == 0, err
    assert "15 of the 30 images in 'photos' are held out" in err
    # in its fine-tuning, too
    code, _, err = train(cli, "--validation-split", "0.5", "--epoch", "1", "--half-res-training",
                         "--fine-tune-epoch", "1", "--fine-tune-batch-size", "4",
                         "--fine-tune-first-trainable-layer", "2", "--weight-avg-strategy", "mean",
                         "--checkpoint-path", "h")
    assert code == 0, err
    shutil.rmtree("h/fine-tune")
    code, _, err = cli("restore", "--plugin", PLUGIN, "--checkpoint-path", "h", "--epoch", "2",
                       "--validation-data-dir", "photos", "--progress", "off")
    assert code == 0, err
    assert list(Path("h/fine-tune").glob("*.pt"))


def test_folders_that_are_no_classes_of_the_model_are_noted(cli, photos):
    code, _, err = train(cli, "--epoch", "1", "--no-validation", "--checkpoint-path", "c")
    assert code == 0, err
    for place, name in (("pets/cat", "ant"), ("pets/dog", "bee"), ("split/train/cat", "ant"),
                        ("split/val/cat", "ant"), ("split/val/dog", "bee"), ("flat", "ant"),
                        ("album/2023", "ant"), ("loose/cat", "ant"), ("loose/dog", "bee"),
                        ("a/b/c/train/cat", "ant"), ("a/b/c/train/dog", "bee"),
                        ("years/2023/ant", "ant"), ("years/2024/bee", "bee")):
        Path(place).mkdir(parents=True)
        Path(place, "1.jpg").symlink_to(photos / name / f"{name}1.jpg")
    Path("album/loose.jpg").symlink_to(photos / "bee" / "bee1.jpg")
    argv = ["run", *TINY[:2], "--backend", "torch", "--progress", "off", "--weights", "c",
            "--data-dir"]
    Path("loose/0.jpg").symlink_to(photos / "bee" / "bee1.jpg")
    for place in ("pets", "split", "loose", "a"):
        code, _, err = cli(*argv, place)
        assert code == 0, err
        (note,) = [line for line in err.splitlines() if "being scored" in line]
        assert f"the images of '{place}' are classified without being scored" in note
        assert "none of its folders, such as 'cat', is a class of the model, such as 'ant'" in note
        assert "'--data image_folder --match-classes position'" in note
    Path("wrapped", "__MACOSX").mkdir(parents=True)
    Path("wrapped", "inside", "archive").mkdir(parents=True)
    Path("wrapped", "inside", "archive", "test").symlink_to(photos)
    assert scored_as("wrapped", ["ant", "bee"], registry()) == "image_folder"
    code, _, err = cli(*argv, "years")  # the folders of years are no classes
    assert code == 0, err
    assert "folder 'ant' is the class 'ant' of the model: '--data image_folder' scores" in err
    Path("one.jpg").symlink_to(photos / "bee" / "bee1.jpg")
    quiet = [[place] for place in ("flat", "album", "pets/cat/1.jpg", "one.jpg", "photos")]
    for more in (*quiet, ["pets", "--data", "real"], ["pets", "--data", "image_folder",
                                                      "--match-classes", "position"]):
        code, _, err = cli(*argv, *more)
        assert code == 0, err
        assert "being scored" not in err
    code, _, err = cli(*argv, "pets", "--instances", "2", "--oversubscribe")
    assert code == 0, err
    assert err.count("being scored") == 1


def test_one_class_is_refused(cli, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "bee").symlink_to(tmp_path / "photos" / "bee")
    code, _, err = train(cli, "--no-validation", data="one")
    assert code == 1
    assert "error: 'bee' is the only class of dataset 'image_folder' here" in err
    assert "images of another class" in err


class StopsAfter(Listener):
    """Requests a stop after so many host calls."""

    def __init__(self, calls):
        self.left = calls

    def stop(self):
        self.left -= 1
        return "SIGTERM" if self.left <= 0 else ""


def test_balanced_training_is_resumed_exactly():
    use(Registry(PluginSettings(extra=(PLUGIN,))))
    values = {"model": "tiny", "data": "image_folder", "data_dir": "photos", "precision": "full",
              "batch_size": 4, "epoch": 2, "sampler": "balanced", "no_validation": True}
    last = "tiny_image_folder_2.pt"
    for folder in ("whole", "part"):
        result = train_all(build(TrainOptions, {**values, "checkpoint_path": folder}),
                           listener=StopsAfter(10 if folder == "part" else 1000))
    assert result.stopped_by == "SIGTERM"
    assert not Path("part", last).exists()
    assert restore("part").stopped_by is None
    whole, part = (torch.load(str(Path(folder, last)), weights_only=True)["model"]
                   for folder in ("whole", "part"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_balanced_weights(cli):
    def first_loss(*more):
        code, _, err = train(cli, "--epoch", "1", "--no-validation", "--batch-size", "30",
                             "--augmentation", "none", "--log-dir", "log", *more)
        assert code == 0, err
        return losses("log")[-1][1]

    expected = first_loss("--class-weights", str(30 / 48), str(30 / 12))
    assert first_loss("--class-weights", "balanced") == pytest.approx(expected, rel=1e-6)
    code, _, err = train(cli, "--class-weights", "balanced", "--sampler", "balanced")
    assert code == 2
    assert "balance the classes twice" in err


def test_several_labels_per_image(cli, tmp_path):
    rows = [f"{name}{number},{'insect' if number % 5 else ''} {name}"
            for name, count in COUNTS.items() for number in range(count)]
    Path("tags.csv").write_text("\n".join(["image_id,tags", *rows, "gone,ant"]))
    argv = ["--labels", "tags.csv", "--epoch", "1", "--checkpoint-path", "c"]
    code, _, err = train(cli, *argv)
    assert code == 2
    assert "may have several classes, and loss 'cross-entropy' takes one per image" in err
    assert "--loss binary-cross-entropy" in err
    code, out, err = train(cli, *argv, "--loss", "binary-cross-entropy", "--json",
                           "--mixup-alpha", "0.2", "--class-weights", "balanced")
    assert code == 0, err
    assert "1 image that the labels name and that does not exist: gone" in err
    result = json.loads(out)
    assert result["validations"][0]["images"] == 3
    assert 0 < result["validations"][0]["loss"] < 2
    card = torch.load("c/tiny_image_folder_1.pt", weights_only=True)["card"]
    assert (card["multi_label"], card["class_names"]) == (True, ["ant", "bee", "insect"])
    for flag in (["--per-class"], ["--confusion-matrix", "m.csv"]):
        code, _, err = cli("validate", "--plugin", PLUGIN, "--checkpoint-path", "c", *flag)
        assert code == 2
        assert f"'{flag[0]}' counts images by their one class" in err
    code, out, err = cli("run", *TINY[:4], "--weights", "random", "--num-classes", "3", "--data",
                         "image_folder", "--data-dir", "photos", "--labels", "tags.csv",
                         "--predictions", "p.csv", "--json")
    assert code == 0, err
    assert json.loads(out)["accuracy"]["images"] == 30
    header, first = Path("p.csv").read_text().splitlines()[:2]
    assert header.split(",")[:3] == ["path", "labels", "class_1"]
    assert first.startswith("photos/ant/ant0.jpg,ant,")
    code, _, err = cli("data", "convert", "--source", "photos", "--data", "image_folder",
                       "--labels", "tags.csv", "--target", "shards")
    assert code == 2
    assert "several labels cannot be converted" in err


def test_labels_from_a_file_are_converted(cli):
    Path("photos.csv").write_text("file,label,split\n" + "".join(
        f"{name}{number},{name},{'val' if number < 2 else 'train'}\n"
        for name, count in COUNTS.items() for number in range(count)))
    code, out, err = cli("data", "convert", "--source", "photos", "--data", "image_folder",
                         "--labels", "photos.csv", "--target", "shards", "--json")
    assert code == 0, err
    assert {split: made["samples"] for split, made in json.loads(out)["splits"].items()} == {
        "train": 26, "validation": 4}
    assert json.loads(Path("shards/metadata.json").read_text())["classes"] == ["ant", "bee"]
    assert scored_as("shards", ["crow"], registry()) == "webdataset"
    assert scored_as("photos", ["crow"], registry()) is None
    code, _, err = train(cli, "--epoch", "1", "--checkpoint-path", "c")
    assert code == 0, err
    code, out, err = cli("validate", "--plugin", PLUGIN, "--weights", "c", "--data-dir", "shards",
                         "--json")
    assert code == 0, err
    assert json.loads(out)["validations"][0]["images"] == 4


def test_every_command_notes_what_is_left_out(cli, tmp_path):
    folder = tmp_path / "mixed"
    for name in COUNTS:
        (folder / name).mkdir(parents=True)
        for number in range(6):
            (folder / name / f"{number}.jpg").symlink_to(
                tmp_path / "photos" / name / f"{name}{number}.jpg")
    (folder / "ant" / "raw.cr2").write_bytes(b"raw")
    (folder / "ant" / "gone.jpg").symlink_to("nothing")
    (folder / "__MACOSX" / "ant").mkdir(parents=True)
    labelled = ["--data", "image_folder", "--data-dir", "mixed"]
    backend = [*TINY[:6], "--progress", "off"]
    expected = {0: [
        ("train", *TINY, *labelled, "--epoch", "1", "--checkpoint-path", "c"),
        ("validate", "--plugin", PLUGIN, "--checkpoint-path", "c"),
        ("run", *backend, "--weights", "random", *labelled),
        ("run", *backend, "--weights", "random", "--data", "real", "--data-dir", "mixed"),
        ("data", "convert", "--source", "mixed", "--target", "shards"),
        ("data", "partition", "--data-dir", "mixed", "--partitions", "2", "--output", "parts"),
        ("data", "bench", "--data", "image_folder", "--data-dir", "mixed", "--iterations", "1",
         "--dataloader-worker", "1"),
        ("average", "--checkpoint-path", "c", "--reestimate-batch-norm", "8", "--plugin", PLUGIN)],
        1: [("data", "verify", "mixed")]}
    for wanted, commands in expected.items():
        for argv in commands:
            code, out, err = cli(*argv)
            assert code == wanted, (argv, err)
            assert "broken link: ant/gone.jpg" in err, argv
            assert re.search(r"1 image of a format that no .*: ant/raw.cr2; pip install", err), argv
            assert err.count("__MACOSX") == 1, argv
    assert "gone.jpg' is a broken link" in out


def test_small_images_are_left_as_they_are_or_enlarged_with_a_note(cli, small_cifar10):
    argv = ["train", *TINY, "--data", "cifar10", "--epoch", "1", "--iterations", "1"]
    code, _, err = cli(*argv, "--input-size", "32")
    assert code == 0, err
    assert "enlarged" not in err
    code, _, err = cli(*argv, "--input-size", "48")
    assert code == 0, err
    assert "note: images of 32 pixels are enlarged to the model's input of 48: '--input-size 32'" \
        in err


def test_classes_in_weights_of_other_programs(cli, tmp_path):
    import tiny_plugin

    torch.save({"state_dict": tiny_plugin.build(3).state_dict(), "epoch": 7,
                "class_to_idx": {"bee": 0, "wasp": 1, "ant": 2}}, str(tmp_path / "other.pth"))
    code, out, err = cli("run", *TINY[:4], "--weights", "other.pth", "--data-dir", "photos",
                         "--predictions", "p.json", "--json", "--progress", "off")
    assert code == 0, err
    assert json.loads(out)["accuracy"]["images"] == 30
    rows = json.loads(Path("p.json").read_text())
    assert {(row["label"], row["label_name"]) for row in rows} == {(2, "ant"), (0, "bee")}
    names = {row["class_1"]: row["name_1"] for row in rows}
    assert names.items() <= {0: "bee", 1: "wasp", 2: "ant"}.items()


def test_wrong_predictions_of_several_labels_are_shown(cli):
    names = [f"{name}/{name}{number}.jpg" for name in COUNTS for number in range(6)]
    Path("labels.csv").write_text("file,labels\n" + "".join(
        f"{name},{'x|y' if number % 2 else ''}\n" for number, name in enumerate(names)))
    code, out, err = cli("run", *TINY[:4], "--weights", "random", "--num-classes", "3",
                         "--match-classes", "position", "--data", "image_folder", "--labels",
                         "labels.csv", "--data-dir", "photos", "--progress", "off")
    assert code == 0, err
    assert re.search(r"ant0.jpg +class \d +\d+\.\d % +wrong\n", out)
    assert re.search(r"ant1.jpg +class \d +\d+\.\d % +(right|wrong: x\|y)\n", out)


EMPTY = """
from ipucnn.plugin import DatasetSpec, ImageDataset, hookimpl


class Nothing(ImageDataset):
    class_names = ("a", "b")

    def __len__(self):
        return 0

    def image(self, index):
        raise IndexError(index)

    def name(self, index):
        raise IndexError(index)


@hookimpl
def ipucnn_datasets():
    return [DatasetSpec(name="nothing", summary="no images", labelled=True,
                        target=lambda request: Nothing())]
"""


@pytest.mark.parametrize("command", [
    ("run", "--weights", "random"), ("train", "--no-checkpoints"),
    ("data", "bench", "--iterations", "1")])
def test_a_dataset_without_images_is_an_error(cli, command):
    Path("empty.py").write_text(EMPTY)
    model = [] if command[0] == "data" else TINY[:4]
    code, out, err = cli("--plugin", "empty.py", *command, *model, "--data", "nothing")
    assert (code, out) == (1, "")
    assert re.search(r"dataset 'nothing' has no (train )?images", err)
