"""Trainings and validations with `--cache-images`: equal results, notes, and what is refused."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from ranks import TINY

from ipucnn.core.errors import UsageError
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import registry
from ipucnn.data import pixel_cache
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.training import image_cache
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.preparation import prepare


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(per_class=4, size=40, validation_per_class=1))
    return folder


def options(photos, **values):
    return build(TrainOptions, {"data": "image_folder", "data_dir": str(photos), "batch_size": 4,
                                "model": "resnet8-cifar", "backend": "torch", **values})


def notes(photos, **values):
    prepared = prepare(options(photos, **values), registry())
    with image_cache.kept_images(prepared):
        return [note for note in prepared.notes if "kept" in note or "cache" in note], \
            [cache and cache.store.bytes for cache in (prepared.cache, prepared.validation_cache)]


def trained(cli, photos, folder, *words):
    done = cli("train", *TINY, "--model", "tiny", "--data-dir", str(photos), "--batch-size", "8",
               "--epoch", "2", "--lr", "0.05", "--backend", "torch", "--precision", "full",
               "--progress", "off", "--no-report", "--checkpoint-path", str(folder), *words)
    assert done.code == 0, done.err
    newest = sorted(folder.glob("*.pt"))[-1]
    return torch.load(newest, weights_only=True)["model"], done.err


def test_weights_are_the_same_with_a_cache(cli, photos, tmp_path):
    expected, _ = trained(cli, photos, tmp_path / "none")
    cache = str(tmp_path / "images")
    sizes = []
    for run, words in enumerate((["ram"], *2 * [["disk", "--cache-images-dir", cache]])):
        weights, output = trained(cli, photos, tmp_path / str(run), "--cache-images", *words)
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
        assert "training images are kept once they are decoded" in output
        sizes.append(sorted(file.stat().st_size for file in tmp_path.glob("images/*/pixels")))
    assert sizes[1] == sizes[2]  # the second training adds nothing
    assert sizes[1][0] > 0
    assert sizes[1][1] >= 32 * 40 * 40 * 3


def validated(cli, folder, *words):
    done = cli("validate", *TINY, "--checkpoint-path", folder, "--json", "--progress", "off",
               "--dataloader-worker", "0", *words)
    return done.code, [(row["loss"], row["top1"]) for row in json.loads(done.out)["validations"]] \
        if done.out else [], done.err


def test_validation_decodes_once_for_all_checkpoints(cli, photos, tmp_path, monkeypatch):
    trained(cli, photos, tmp_path)
    # checkpoints with other options have the same images
    done = cli("restore", *TINY, "--checkpoint-path", tmp_path, "--epoch", "3", "--progress", "off",
               "--no-report")
    assert done.code == 0, done.err
    decoded, decode = [], pixel_cache.decode_whole
    monkeypatch.setattr(pixel_cache, "decode_whole",
                        lambda *given: decoded.append(given[0]) or decode(*given))
    _, expected, _ = validated(cli, tmp_path)
    assert len(expected) == 3
    assert decoded == []
    _, found, output = validated(cli, tmp_path, "--cache-images", "ram")
    assert found == expected
    assert output.count("validation images are kept once they are decoded") == 1
    assert len(decoded) == len(set(decoded)) == 8  # all validation images


def test_validation_uses_the_files_of_a_training(cli, photos, tmp_path):
    words = ["--cache-images", "disk", "--cache-images-dir", str(tmp_path / "images")]
    trained(cli, photos, tmp_path / "a", *words)
    before = sorted((file, file.stat().st_size) for file in tmp_path.glob("images/*/*"))
    code, found, output = validated(cli, tmp_path / "a", *words)
    assert "validation images are kept" in output
    assert found == validated(cli, tmp_path / "a")[1]
    assert sorted((file, file.stat().st_size) for file in tmp_path.glob("images/*/*")) == before
    # nor are images cached that are used only once, or that do not fit
    newest = next((tmp_path / "a").glob("*_2.pt"))
    code, found, output = validated(cli, newest, "--cache-images", "ram")
    assert (code, len(found)) == (0, 1)
    assert "'--cache-images ram' has no effect: every image is used once" in output


def test_validation_notes_and_refuses_as_a_training(cli, photos, tmp_path, monkeypatch):
    trained(cli, photos, tmp_path)
    monkeypatch.setattr(image_cache, "available_memory", lambda: 2_000)
    code, _, output = validated(cli, tmp_path, "--cache-images", "ram", "--cache-images-dir", "x")
    assert code == 0
    assert "the validation images are not kept: decoded they need" in output
    assert "'--cache-images-dir' has no effect without '--cache-images disk'" in output
    code, _, output = validated(cli, tmp_path, "--cache-images", "disk", "--data", "shapes")
    assert code == 2
    assert "cannot notice that they have changed" in output


def test_changed_images_replace_their_cache(photos, tmp_path):
    values = {"cache_images": "disk", "cache_images_dir": str(tmp_path)}
    first, _ = notes(photos, **values)
    folders = set(os.listdir(tmp_path))
    assert len(folders) == len(first) == 2
    image = next((photos / "train").rglob("*.jpg"))
    os.utime(image, (1, 1))
    notes(photos, **values)
    assert len(set(os.listdir(tmp_path)) & folders) == 1  # that of the validation images
    assert len(os.listdir(tmp_path)) == 2


def test_images_that_do_not_fit_are_not_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "available_memory", lambda: 200_000)
    found, sizes = notes(photos, cache_images="ram")
    assert sizes == [None, 8 * 32 * 32 * 3]  # the smaller one fits
    assert found[0] == ("the training images are not kept: decoded they need 0.2 MB or more, and "
                        "0.1 MB can be taken (half of the memory that is available); "
                        "'--cache-images disk' keeps them in files")


def test_a_disk_without_room_gets_nothing(photos, tmp_path, monkeypatch):
    values = {"cache_images": "disk", "cache_images_dir": str(tmp_path), "validation_mode": "none"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))  # two images
    found, sizes = notes(photos, **values)
    assert sizes == [None, None]
    assert "0.0 MB can be taken" in found[0]
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_noted(photos, tmp_path):
    (tmp_path / "images").mkdir()
    values = {"cache_images": "disk", "cache_images_dir": str(tmp_path / "images")}
    notes(photos, **values)
    for folder in (tmp_path / "images").iterdir():
        (folder / "entries").unlink()
        (folder / "entries").mkdir()
    found, sizes = notes(photos, **values)
    assert sizes == [None, None]
    assert found[0].startswith("training images are not kept: the cache cannot be opened: ")


@pytest.mark.parametrize(("values", "message"), [
    ({"data": "shapes", "cache_images": "disk"}, "cannot notice that they have changed"),
    ({"data": "generated", "cache_images": "ram", "validation_mode": "none"}, "has no end")])
def test_what_cannot_be_kept_is_refused(values, message):
    prepared = prepare(build(TrainOptions, {
        "batch_size": 4, "model": "resnet8-cifar", "backend": "torch", **values}), registry())
    with pytest.raises(UsageError, match=message), image_cache.kept_images(prepared):
        pass


def test_images_in_memory_are_not_kept_twice(small_cifar10):
    found, sizes = notes(small_cifar10, data="cifar10", cache_images="ram")
    assert sizes == [None, None]
    assert found == ["'--cache-images ram' has no effect: dataset 'cifar10' has its images in "
                     "memory"]
