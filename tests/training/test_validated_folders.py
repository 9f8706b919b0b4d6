"""`validate` and other folders than that of the training: formats, hints, and what is refused."""

import csv
import json
import re
import shutil

import pytest
import torch
from PIL import Image

from ipucnn.data.formats.sample_data import GeneratedFiles, write_made


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(per_class=2, size=24))
    return folder


def trained(cli, folder, *words):
    done = cli("train", "--model", "resnet8-cifar", "--input-size", "16", "--batch-size", "4",
               "--epoch", "1", "--iterations", "1", "--backend", "torch", "--precision", "full",
               "--progress", "off", "--no-report", "--checkpoint-path", folder, *words)
    assert done.code == 0, done.err
    return done.err


def validated(cli, folder, *words):
    done = cli("validate", "--checkpoint-path", folder, "--json", "--progress", "off", *words)
    rows = json.loads(done.out)["validations"] if done.code == 0 else []
    return done.code, [(row["images"], row["loss"]) for row in rows], done.err


def test_folders_are_recognised_whatever_the_training_read(cli, photos, tmp_path):
    shards = tmp_path / "shards"
    assert cli("data", "convert", "--source", photos, "--target", shards).code == 0
    trained(cli, tmp_path / "a", "--data-dir", shards, "--no-validation")
    trained(cli, tmp_path / "b", "--data", "shapes", "--no-validation")
    for weights in (tmp_path / "a", tmp_path / "b"):
        found = [validated(cli, weights, "--validation-data-dir", place)
                 for place in (photos, shards)]
        assert [code for code, _, _ in found] == [0, 0], found
        (images, loss), = found[0][1]
        assert images == 16
        assert found[1][1] == [(16, pytest.approx(loss, rel=1e-5))]


@pytest.mark.parametrize("trains_on_shards", [True, False])
def test_a_training_validates_on_a_folder_of_another_format(cli, photos, tmp_path,
                                                            trains_on_shards):
    shards = tmp_path / "shards"
    assert cli("data", "convert", "--source", photos, "--target", shards).code == 0
    own, other = (shards, photos) if trains_on_shards else (photos, shards)
    output = trained(cli, tmp_path / "a", "--data-dir", own, "--validation-data-dir", other,
                     "--checkpoint-save-freq", "1")
    name = "image_folder" if trains_on_shards else "webdataset"
    assert f"'{other}' is read as dataset '{name}'" in output
    code, again, err = validated(cli, tmp_path / "a")
    assert code == 0, err
    assert again == validated(cli, tmp_path / "a", "--validation-data-dir", other)[1]
    ((images, loss),) = again
    assert images == 16
    assert [(images, pytest.approx(loss, rel=1e-5))] == validated(
        cli, tmp_path / "a", "--validation-data-dir", own)[1]
    done = cli("average", "--checkpoint-path", tmp_path / "a", "--reestimate-batch-norm", "8",
               "--data-dir", other)
    assert done.code == 0, done.err
    assert f"'{other}' is read as dataset '{name}'" in done.out + done.err


def test_a_saved_share_does_not_prevent_validating_with_validation_images(cli, photos, tmp_path):
    trained(cli, tmp_path / "a", "--data-dir", photos, "--validation-split", "0.5")
    write_made("shapes", str(tmp_path / "both/train"), GeneratedFiles(per_class=2, size=24))
    shutil.copytree(str(photos), str(tmp_path / "both/val"))
    for option in ("--data-dir", "--validation-data-dir"):
        code, rows, err = validated(cli, tmp_path / "a", option, tmp_path / "both")
        assert code == 0, err
        assert [images for images, _ in rows] == [16]
        assert "'--validation-split' has no effect" in err


def test_another_dataset_is_not_downloaded_into_the_folder_of_the_training(
        cli, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPUCNN_CIFAR_URL", "http://127.0.0.1:9")
    trained(cli, "a", "--data-dir", photos)
    for command in (["validate"], ["restore", "--epoch", "2"]):
        done = cli(*command, "--checkpoint-path", "a", "--data", "cifar10", "--progress", "off")
        assert done.code == 1
        assert "unpack it in 'data/cifar10'" in done.err


def test_a_hint_names_no_option_that_average_lacks(cli, tmp_path):
    write_made("shapes", str(tmp_path / "own"), GeneratedFiles(per_class=2, size=24))
    trained(cli, tmp_path / "a", "--data-dir", tmp_path / "own")
    for path in (tmp_path / "own").glob("*/*.jpg"):
        path.write_bytes(b"")
    done = cli("average", "--checkpoint-path", tmp_path / "a", "--reestimate-batch-norm", "4")
    assert done.code == 1
    assert "is empty" in done.err
    assert "hint: 'ipucnn data verify' finds all bad images: repair or remove them" in done.err


def test_hints_name_options_of_validate(cli, photos, tmp_path):
    shards = tmp_path / "shards"
    assert cli("data", "convert", "--source", photos, "--target", shards).code == 0
    trained(cli, tmp_path / "a", "--data-dir", photos)
    code, _, err = validated(cli, tmp_path / "a", "--data-dir", shards)
    assert code == 1
    assert "there are no validation samples" in err
    assert f"'--validation-data-dir {shards}' validates all images" in err
    assert "--no-validation" not in err
    files = sorted(path.relative_to(photos) for path in photos.glob("*/*.jpg"))
    with (tmp_path / "several.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((str(path), f"{path.parent}|drawn")
                                                         for path in files)])
    code, _, err = validated(cli, tmp_path / "a", "--data-dir", photos, "--labels",
                             tmp_path / "several.csv")
    assert code == 2
    assert "validated with the loss of its training" in err
    assert "--loss" not in err


def test_no_folder_of_validation_images_is_ignored_silently(cli, photos, tmp_path):
    output = trained(cli, tmp_path / "a", "--data", "generated", "--validation-data-dir", photos)
    assert "'--validation-data-dir' has no effect with dataset 'generated'" in output
    code, _, err = validated(cli, tmp_path / "a", "--validation-data-dir", photos / "star")
    assert code == 2
    assert "'--validation-data-dir' cannot be used with dataset 'generated'" in err
    assert validated(cli, tmp_path / "a")[0] == 0  # the saved one is not used


def test_hints_of_a_run_name_its_options(cli, photos):
    done = cli("run", "--model", "resnet8-cifar", "--weights", "random", "--data", "imagenet",
               "--data-dir", photos)
    assert done.code == 1
    assert "name another folder with '--data-dir'" in done.err
    assert "--no-validation" not in done.err
    for words in (["run", "--weights"], ["validate", "--checkpoint-path"]):
        done = cli(*words, "https://localhost/a.pt", "--data-dir", photos)
        assert done.code == 1
        assert "download the file" in done.err


def test_balanced_class_weights_are_those_of_the_training(cli, photos, tmp_path):
    folder = tmp_path / "a"
    uneven = tmp_path / "uneven"
    for place in photos.glob("*/*.jpg"):
        for copy in range(3 if place.parent.name == "star" else 1):
            path = uneven / place.parent.name / f"{copy}{place.name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(place.read_bytes())
    trained(cli, folder, "--data-dir", uneven, "--validation-split", "0.5",
            "--checkpoint-save-freq", "1", "--class-weights", "balanced")
    metrics = (folder / "metrics.jsonl").read_text().splitlines()
    logged = [row["loss"] for row in map(json.loads, metrics)
              if row["kind"] == "validation"]
    code, found, err = validated(cli, folder)
    assert code == 0, err
    assert [loss for _, loss in found] == [pytest.approx(loss, rel=1e-5) for loss in logged]
    assert cli("average", "--checkpoint-path", folder).code == 0
    average, = folder.glob("*_averaged.pt")
    assert validated(cli, average)[1] == found  # of one checkpoint
    path, = set(folder.glob("*.pt")) - {average}
    content = torch.load(path, weights_only=True)
    del content["data"]["class_counts"]
    torch.save(content, path)
    code, plain, err = validated(cli, path)
    assert code == 0, err
    assert plain != found
    assert "the classes have equal weights in the loss" in err
    for name, wrong in (("class_counts", ["balanced"]), ("images", "9"), ("fingerprint", None)):
        torch.save({**content, "data": {**content["data"], name: wrong}}, path)
        code, _, err = validated(cli, path)
        assert code == 1
        assert "its 'data' is not what a training wrote" in err


@pytest.mark.parametrize("words", [("--replicas", "2", "--sync-batchnorm"),
                                   ("--available-memory-proportion", "0.5")])
def test_options_of_training_only_are_not_inherited(cli, photos, tmp_path, words):
    done = cli("train", "--model", "resnet8-cifar", "--data-dir", photos, "--input-size", "16",
               "--batch-size", "4", "--epoch", "1", "--iterations", "1", "--progress", "off",
               "--no-report", "--no-validation", "--checkpoint-path", tmp_path / "a", *words)
    assert done.code == 0, done.err
    code, found, err = validated(cli, tmp_path / "a", "--validation-data-dir", photos)
    assert code == 0, err
    assert [images for images, _ in found] == [16]


@pytest.mark.parametrize("freeze", ["1", "layer1"])
def test_fine_tuned_checkpoints_are_validated(cli, photos, tmp_path, freeze):
    trained(cli, tmp_path / "a", "--data-dir", photos, "--no-validation")
    trained(cli, tmp_path / "b", "--data-dir", photos, "--no-validation", "--weights",
            tmp_path / "a", "--freeze", freeze)
    code, found, err = validated(cli, tmp_path / "b", "--validation-data-dir", photos)
    assert code == 0, err
    assert [images for images, _ in found] == [16]
    done = cli("average", "--checkpoint-path", tmp_path / "b", "--reestimate-batch-norm", "4")
    assert done.code == 0, done.err


def test_fewer_epochs_than_trained_keep_the_last_validation(cli, photos, tmp_path):
    folder = tmp_path / "a"
    trained(cli, folder, "--data-dir", photos, "--epoch", "2", "--checkpoint-save-freq", "1")
    best, metrics = ((folder / name).read_text() for name in ("best.json", "metrics.jsonl"))
    done = cli("restore", "--checkpoint-path", folder, "--epoch", "1", "--progress", "off")
    assert done.code == 0, done.err
    assert (folder / "best.json").read_text() == best
    assert (folder / "metrics.jsonl").read_text() == metrics


def test_validations_after_a_training_are_rows_and_include_the_average(cli, photos, tmp_path):
    folder = tmp_path / "a"
    trained(cli, folder, "--data-dir", photos, "--epoch", "2", "--validation-mode", "after",
            "--weight-avg-strategy", "mean", "--checkpoint-save-freq", "1")
    names = [f"resnet8-cifar_image_folder_{name}.pt" for name in ("1", "2", "2_averaged")]
    for _ in range(2):  # a restored training records them again, not twice
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["kind"] for row in rows] == ["train"] * 2 + ["validation"] * 3
        assert [(row["checkpoint"], row["update"]) for row in rows[2:]] == [
            (names[0], 1), (names[1], 2), (names[2], 2)]
        assert cli("restore", "--checkpoint-path", folder, "--progress", "off").code == 0
    alone = validated(cli, folder / names[2])[1]
    assert validated(cli, folder)[1][2:] == alone == [
        (rows[4]["images"], pytest.approx(rows[4]["loss"]))]


def test_one_validation_after_a_training_without_checkpoints_is_a_row(cli, photos, tmp_path):
    done = cli("train", "--model", "resnet8-cifar", "--input-size", "16", "--batch-size", "4",
               "--epoch", "1", "--iterations", "2", "--backend", "torch", "--precision", "full",
               "--progress", "off", "--no-checkpoints", "--validation-mode", "after", "--log-dir",
               tmp_path / "log", "--data-dir", photos)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "log/metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["update"]) for row in rows] == [("train", 2), ("validation", 2)]


def test_boxes_of_a_profile_can_be_left_out(cli, photos, tmp_path):
    (tmp_path / "mine.yaml").write_text("use_bbox_info: true\n")
    words = ("train", "--config", tmp_path / "mine.yaml", "--model", "resnet8-cifar",
             "--input-size", "16", "--batch-size", "4", "--epoch", "1", "--iterations", "1",
             "--precision", "full", "--progress", "off", "--no-validation", "--no-checkpoints",
             "--log-dir", tmp_path / "log", "--data-dir", photos)
    refused = cli(*words)
    assert refused.code == 1
    assert "has no bounding boxes here" in refused.err
    (flag,) = re.findall("add '(--[a-z-]+)' to a profile", refused.err.replace("\n", " "))
    assert cli(*words, flag).code == 0


def test_a_training_restored_on_another_format_keeps_the_names_of_its_checkpoints(cli, photos,
                                                                                  tmp_path):
    shards, folder = tmp_path / "shards", tmp_path / "a"
    assert cli("data", "convert", "--source", photos, "--target", shards).code == 0
    trained(cli, folder, "--data-dir", photos, "--no-validation")
    for epoch, words in ("2", ("--data", "webdataset", "--data-dir", shards)), ("3", ()):
        done = cli("restore", "--checkpoint-path", folder, "--epoch", epoch, "--progress", "off",
                   *words)
        assert done.code == 0, done.err
    assert sorted(path.name for path in folder.glob("*.pt")) == [
        f"resnet8-cifar_image_folder_{epoch}.pt" for epoch in (1, 2, 3)]


def test_classes_with_other_names_are_matched_by_position(cli, photos, tmp_path):
    trained(cli, tmp_path / "a", "--data-dir", photos, "--no-validation")
    _, expected, _ = validated(cli, tmp_path / "a", "--validation-data-dir", photos)
    for folder in photos.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, tmp_path / "renamed" / f"x{folder.name}")
    code, _, err = validated(cli, tmp_path / "a", "--validation-data-dir", tmp_path / "renamed")
    assert code == 1
    assert "'--match-classes position' if only the names differ" in err
    assert validated(cli, tmp_path / "a", "--validation-data-dir", tmp_path / "renamed",
                     "--match-classes", "position")[1] == expected


def test_similar_names_of_classes_are_noted(cli, tmp_path):
    for number, name in enumerate(("Cat", "cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (16, 16), (80 * number, 9, index)).save(
                tmp_path / "photos" / name / f"{index}.png")
    output = trained(cli, tmp_path / "a", "--data-dir", tmp_path / "photos", "--no-validation")
    assert output.count("'Cat', 'cat' are 2 classes of the model") == 1


def test_images_that_are_skipped_are_reported(cli, photos, tmp_path):
    trained(cli, tmp_path / "a", "--data-dir", photos, "--no-validation")
    damaged = tmp_path / "damaged"
    shutil.copytree(photos, damaged)
    next(damaged.rglob("*.jpg")).write_bytes(b"")
    words = ("validate", "--weights", tmp_path / "a", "--validation-data-dir", damaged,
             "--skip-bad-samples", "--report", tmp_path / "report.html")
    done = cli(*words)
    assert done.code == 0, done.err
    assert done.err.count("note: 1 image that cannot be read is not counted") == 1
    assert "skipped" in (tmp_path / "report.html").read_text()
