"""`validate` and other folders than that of the training: formats, hints, and what is refused."""

import csv
import json

import pytest

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
