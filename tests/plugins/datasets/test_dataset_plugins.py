import os
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image

from ipucnn import load_dataset
from ipucnn.core.errors import DataError
from ipucnn.core.options.declaration import declared
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.data.formats.verify import verify
from ipucnn.data.host_loader import HostLoader


def load(name, **request):
    return load_dataset(name, **request)


def options_of(name):
    """The names of the options that a dataset declares."""
    declaring = registry().options_class(registry().get("dataset", name))
    return [item.name for item in declared(declaring)] if declaring else []


def save(path, colour="red", size=(9, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_records_describe_the_datasets():
    specs = {name: registry().get_typed(DatasetSpec, name)
             for name in ("real", "image_folder", "shapes", "generated", "synthetic", "cifar10",
                          "cifar100", "imagenet", "coco")}
    assert [n for n, s in specs.items() if s.labelled] == [
        "image_folder", "shapes", "cifar10", "cifar100", "imagenet"]
    assert [n for n, s in specs.items() if not s.finite] == ["generated", "synthetic"]
    assert [n for n, s in specs.items() if s.on_device] == ["synthetic"]
    assert [n for n, s in specs.items() if s.needs_data_dir] == ["image_folder", "imagenet", "coco"]
    assert {n: options_of(n) for n in registry().names("dataset") if options_of(n)} == {
        "coco": ["annotations", "centre_crop"], "real": ["data_cache_dir", "data_cache_size"],
        "image_folder": ["data_cache_dir", "data_cache_size", "labels", "validation_split"],
        "webdataset": ["data_cache_dir", "data_cache_size", "webdataset_memory_cache_ratio"]}
    assert [n for n, s in specs.items() if s.verify] == [
        "real", "image_folder", "cifar10", "cifar100", "imagenet", "coco"]


def test_importing_the_plugins_imports_neither_torch_nor_numpy():
    code = ("import sys; from ipucnn.plugins.datasets import real, image_folder, shapes, "
            "generated, synthetic, cifar, imagenet, coco; [m.ipucnn_datasets() for m in (real, "
            "image_folder, shapes, generated, synthetic, cifar, imagenet, coco)]; "
            "print([m for m in ('torch', 'torchvision', 'numpy', 'PIL') if m in sys.modules])")
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True)
    assert output.stdout.strip() == "[]"


class TestReal:
    def test_nested_and_named_as_the_user_would(self, tmp_path, monkeypatch):
        save(tmp_path / "photos/b.png", "blue")
        save(tmp_path / "photos/a/c.bmp", "lime")
        monkeypatch.chdir(tmp_path)
        dataset = load("real", data_dir="photos")
        assert [dataset.name(i) for i in range(len(dataset))] == ["photos/a/c.bmp", "photos/b.png"]
        assert dataset.image(1)[:, 0, 0].tolist() == [0, 0, 255]
        assert dataset.label(0) is None
        assert dataset.class_names == ()

    def test_default_folder(self, tmp_path, monkeypatch):
        save(tmp_path / "data/images/x.png")
        monkeypatch.chdir(tmp_path)
        assert load("real").name(0) == "data/images/x.png"

    def test_one_file(self, tmp_path):
        path = save(tmp_path / "x.png")
        save(tmp_path / "y.png")
        dataset = load("real", data_dir=str(path))
        assert len(dataset) == 1
        assert dataset.name(0) == str(path)

    @pytest.mark.parametrize("name", [
        "été 漢字 🦓.png", "a'b\"c\\d\n.png", "x" * 251 + ".png", " .png"])
    def test_odd_names(self, tmp_path, name):
        save(tmp_path / name)
        dataset = load("real", data_dir=str(tmp_path))
        assert dataset.image(0).shape == (3, 7, 9)
        assert dataset.name(0) == str(tmp_path / name)

    @pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
    def test_name_that_is_not_text(self, tmp_path):
        save(tmp_path / "x.png")
        os.rename(os.fsencode(str(tmp_path / "x.png")),
                  os.fsencode(str(tmp_path)) + b"/caf\xe9.png")
        os.mkdir(os.fsencode(str(tmp_path)) + b"/\xff.png")
        with open(os.fsencode(str(tmp_path)) + b"/\xfe.png", "wb"):
            pass
        dataset = load("real", data_dir=str(tmp_path))
        assert dataset.image(0).shape == (3, 7, 9)
        assert dataset.name(0).endswith(r"caf\xe9.png")
        with pytest.raises(DataError, match="is empty") as caught:
            dataset.image(1)
        assert caught.value.message.encode("utf-8")

    def test_missing_folder(self, tmp_path, monkeypatch):
        with pytest.raises(DataError, match=r"'.*nowhere' does not exist") as caught:
            load("real", data_dir=str(tmp_path / "nowhere"))
        assert caught.value.hint.startswith("check its name; ")
        assert "--data-dir" not in caught.value.hint  # no option of 'ipucnn data show'
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match="'data/images' does not exist") as caught:
            load("real")
        for way in ("make get_data", "ipucnn data fetch sample-images", "ipucnn data shapes --out",
                    "--data-dir"):
            assert way in caught.value.hint

    def test_empty_folder(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(DataError, match="no images in") as caught:
            load("real", data_dir=str(tmp_path))
        assert ".jpg" in caught.value.hint

    def test_ten_thousand_files(self, tmp_path):
        original = save(tmp_path / "00/0.png", size=(1, 1))
        for number in range(1, 10_000):
            folder = tmp_path / f"{number % 100:02d}"
            if number < 100:
                folder.mkdir(exist_ok=True)
            os.link(original, folder / f"{number}.png")
        dataset = load("real", data_dir=str(tmp_path))
        assert len(dataset) == 10_000
        with HostLoader(dataset, Preprocessing(2), 500, range(len(dataset)), workers=2) as loader:
            batches = list(loader)
        assert [len(batch) for batch in batches] == [500] * 20
        loaded = [dataset.name(index) for batch in batches for index in batch.indices]
        assert loaded == sorted(loaded)
        assert len(set(loaded)) == 10_000

    def test_bad_files_among_good_ones(self, tmp_path):
        save(tmp_path / "1.jpg")
        (tmp_path / "2.jpg").write_text("not a picture")
        (tmp_path / "3.jpg").write_bytes(b"")
        (tmp_path / "5.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:-20])
        save(tmp_path / "6.jpg")
        (tmp_path / "7.jpg").symlink_to("gone")
        dataset = load("real", data_dir=str(tmp_path))
        assert dataset.notes == (f"left out of {str(tmp_path)!r}: 1 broken link: 7.jpg",)
        with pytest.raises(DataError, match=r"2\.jpg"):
            list(HostLoader(dataset, Preprocessing(8), 4, range(5), workers=2))
        loader = HostLoader(dataset, Preprocessing(8), 4, range(5), workers=2, skip_bad=True)
        assert [batch.indices for batch in loader] == [[0, 4]]
        assert [os.path.basename(name) for name, _ in loader.skipped] == [
            "2.jpg", "3.jpg", "5.jpg"]


class TestImageFolder:
    def test_classes_and_labels(self, tmp_path):
        save(tmp_path / "b/1.png", "blue")
        save(tmp_path / "b/deep/2.png")
        save(tmp_path / "A/9.png", "lime")
        save(tmp_path / ".cache/x.png")
        dataset = load("image-folder", data_dir=str(tmp_path), num_classes=2)
        assert dataset.class_names == ("A", "b")
        assert [dataset.label(i) for i in range(len(dataset))] == [0, 1, 1]
        assert dataset.name(2) == str(tmp_path / "b/deep/2.png")
        assert dataset.image(0)[:, 0, 0].tolist() == [0, 255, 0]

    def test_reads_what_shapes_writes(self, tmp_path):
        write_made("shapes", str(tmp_path), GeneratedFiles(per_class=2, size=16))
        written = load("image_folder", data_dir=str(tmp_path))
        made = load("shapes", input_size=16, length=16)
        assert written.class_names == made.class_names
        assert [written.label(i) for i in range(16)] == sorted(made.label(i) for i in range(16))

    def test_no_folder_given(self):
        with pytest.raises(DataError, match=r"needs a folder.*--data-dir"):
            load("image_folder")

    def test_missing_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"'.*nowhere' does not exist"):
            load("image_folder", data_dir=str(tmp_path / "nowhere"))

    def test_missing_folder_of_another_working_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # a checkpoint may contain a relative path
        with pytest.raises(DataError) as caught:
            load("image_folder", data_dir="photos")
        assert caught.value.message == f"folder 'photos' does not exist in {os.getcwd()!r}"

    def test_no_class_folders(self, tmp_path):
        save(tmp_path / "x.png")
        with pytest.raises(DataError, match=r"no class folders.*but 1 image.*--data real"):
            load("image_folder", data_dir=str(tmp_path))

    def test_empty_class(self, tmp_path):
        save(tmp_path / "a/x.png")
        (tmp_path / "b").mkdir()
        with pytest.raises(DataError, match=r"'.*b' has no images"):
            load("image_folder", data_dir=str(tmp_path))

    def test_more_classes_than_outputs(self, tmp_path):
        for name in "abc":
            save(tmp_path / name / "x.png")
        with pytest.raises(DataError, match="has 3 classes and the model 2 outputs"):
            load("image_folder", data_dir=str(tmp_path), num_classes=2)


class TestImageFolderSplits:
    @staticmethod
    def write(root, validation="validation", train="abc", held_out="abc"):
        for name in train:
            save(root / "train" / name / "1.png", "blue")
            save(root / "train" / name / "2.png", "blue")
        for name in held_out:
            save(root / validation / name / "3.png", "lime")
        return str(root)

    @pytest.mark.parametrize("validation", ["validation", "val", "test"])
    def test_splits(self, tmp_path, validation):
        root = self.write(tmp_path, validation)
        train = load("image_folder", data_dir=root, split="train")
        assert [train.label(i) for i in range(len(train))] == [0, 0, 1, 1, 2, 2]
        for split in ("validation", None):
            dataset = load("image_folder", data_dir=root, split=split)
            assert [dataset.label(i) for i in range(len(dataset))] == [0, 1, 2]
            assert (train.split, dataset.split) == ("train", "validation")
            assert dataset.name(0) == str(tmp_path / validation / "a/3.png")
            assert dataset.class_names == train.class_names == ("a", "b", "c")

    def test_the_class_folders_themselves(self, tmp_path):
        for name in "ab":
            save(tmp_path / name / "x.png")
        for split in ("train", None):
            dataset = load("image_folder", data_dir=str(tmp_path), split=split)
            assert (len(dataset), dataset.split) == (2, "")
        with pytest.raises(DataError, match="no validation images in") as caught:
            load("image_folder", data_dir=str(tmp_path), split="validation")
        for way in ("--data-dir/validation", "--validation-data-dir", "--no-validation"):
            assert way in caught.value.hint

    def test_labels_are_numbered_by_the_training_classes(self, tmp_path):
        root = self.write(tmp_path, held_out="ac")
        dataset = load("image_folder", data_dir=root, split="validation")
        assert [dataset.label(i) for i in range(2)] == [0, 2]
        assert dataset.class_names == ("a", "b", "c")

    def test_a_class_that_is_not_trained_is_refused(self, tmp_path):
        root = self.write(tmp_path, held_out="abd")
        with pytest.raises(DataError, match=r"class folder '.*validation.d' is none of the 3"):
            load("image_folder", data_dir=root, split="validation")

    def test_a_folder_elsewhere_is_numbered_like_the_given_classes(self, tmp_path):
        for name in "ca":
            save(tmp_path / name / "x.png")
        dataset = load("image_folder", data_dir=str(tmp_path), class_names=("a", "b", "c"))
        assert [dataset.label(i) for i in range(2)] == [0, 2]
        with pytest.raises(DataError, match="is none of the 2 classes"):
            load("image_folder", data_dir=str(tmp_path), class_names=("a", "b"))

    def test_a_training_folder_alone_is_not_a_class(self, tmp_path):
        root = self.write(tmp_path, held_out="")
        train = load("image_folder", data_dir=root, split="train")
        assert train.class_names == ("a", "b", "c")
        with pytest.raises(DataError, match="no validation images"):
            load("image_folder", data_dir=root, split="validation")

    def test_verify_finds_every_bad_image(self, tmp_path):
        root = self.write(tmp_path)
        assert verify(root) == []
        (tmp_path / "train/b/4.jpg").write_text("no image")
        (tmp_path / "validation/c/5.jpg").write_bytes(b"")
        problems = verify(root)
        assert ["4.jpg" in problem for problem in problems] == [True, False]
        assert ["5.jpg" in problem for problem in problems] == [False, True]

    def test_verify_finds_damage_that_is_shown_all_the_same(self, tmp_path):
        root = self.write(tmp_path)
        path = tmp_path / "train/b/4.jpg"
        noise = numpy.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=numpy.uint8)
        Image.fromarray(noise).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:3000] + bytes(200) + whole[3200:])
        (problem,) = verify(root)
        assert "4.jpg" in problem
        assert "is damaged" in problem

    def test_verify_finds_faults_of_the_layout(self, tmp_path):
        (problem,) = verify(str(tmp_path), "image_folder")
        assert "no class folders" in problem
        (problem,) = verify(self.write(tmp_path, held_out="abcd"))
        assert "is none of the 3" in problem


class TestShapes:
    def test_splits_have_different_images(self):
        train, validation, again = (load("shapes", input_size=24, length=40, split=split)
                                    for split in ("train", "validation", "validation"))
        images = torch.stack([dataset.image(i) for dataset in (train, validation)
                              for i in range(40)])
        assert len(images.flatten(1).unique(dim=0)) == 80
        assert torch.equal(validation.image(7), again.image(7))
        assert (train.split, validation.split) == ("train", "validation")
        assert validation.label(9) == train.label(9) == 1

    @pytest.mark.parametrize("size", [1, 8, 33, 224])
    def test_any_size(self, size):
        dataset = load("shapes", input_size=size, length=9)
        assert dataset.ready
        for index in range(9):
            image = dataset.image(index)
            assert image.shape == (3, size, size)
            assert image.dtype == torch.uint8

    def test_depends_on_seed_and_index_only(self):
        first, again = (load("shapes", input_size=32, seed=5) for _ in range(2))
        other = load("shapes", input_size=32, seed=6, length=64)
        assert len(first) == 1024
        assert torch.equal(first.image(9), again.image(9))
        assert not torch.equal(first.image(9), first.image(17))
        assert not torch.equal(first.image(9), other.image(9))

    def test_leaves_the_global_generators_alone(self):
        dataset = load("shapes", input_size=16)
        torch_state, numpy_state = torch.get_rng_state(), numpy.random.get_state()[1].copy()
        dataset.image(3)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert (numpy.random.get_state()[1] == numpy_state).all()

    def test_labels_name_the_sorted_classes_in_turn(self):
        dataset = load("shapes", length=20)
        assert list(dataset.class_names) == sorted(set(dataset.class_names))
        assert len(dataset.class_names) == 8
        assert [dataset.label(i) for i in range(20)] == [i % 8 for i in range(20)]
        assert dataset.name(17) == "shapes/17"

    def test_every_image_shows_its_shape(self):
        """The area with another colour than the background is that of the outline of the class."""
        dataset = load("shapes", input_size=48, length=160)
        shares = {name: [] for name in dataset.class_names}
        for index in range(160):
            red, green, blue = dataset.image(index).long()
            # the plane colour is the one many pixels have exactly; the background is noisy
            counts = (65536 * red + 256 * green + blue).unique(return_counts=True)[1]
            shares[dataset.class_names[dataset.label(index)]].append(counts.max().item() / 48**2)
        mean = {name: sum(values) / len(values) for name, values in shares.items()}
        assert all(min(values) > 0.02 for values in shares.values())
        assert mean["circle"] > mean["ring"] > mean["bar"]
        assert mean["circle"] > mean["square"] > mean["triangle"] > mean["star"] * 0.8
        assert mean["circle"] > mean["crescent"]

    def test_a_small_model_is_refused(self):
        with pytest.raises(DataError, match="8 classes and the model 4 outputs"):
            load("shapes", num_classes=4)
        assert len(load("shapes", num_classes=1000, length=3)) == 3


class TestGenerated:
    def test_images_differ_and_are_repeatable(self):
        dataset = load("generated", input_size=8, length=500, seed=1)
        images = torch.stack([dataset.image(i) for i in range(500)])
        assert images.shape == (500, 3, 8, 8)
        assert images.dtype == torch.uint8
        assert len(images.flatten(1).unique(dim=0)) == 500
        assert 120 < images.float().mean() < 135
        again = load("generated", input_size=8, length=500, seed=1)
        assert torch.equal(again.image(77), images[77])
        assert not torch.equal(load("generated", input_size=8, seed=2).image(77), images[77])

    def test_is_ready_unlabelled_and_of_the_given_length(self):
        dataset = load("generated", length=10**9)
        assert len(dataset) == 10**9
        assert dataset.ready
        assert dataset.label(5) is None
        assert dataset.image(10**9 - 1).shape == (3, 224, 224)

    def test_leaves_the_global_generators_alone(self):
        torch_state, numpy_state = torch.get_rng_state(), numpy.random.get_state()[1].copy()
        load("generated", input_size=8).image(0)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert (numpy.random.get_state()[1] == numpy_state).all()


def test_synthetic_has_no_images_on_the_host():
    dataset = load("synthetic", length=7)
    assert len(dataset) == 7
    with pytest.raises(DataError, match=r"'synthetic/3' exists on the device only.*generated"):
        dataset.image(3)


@pytest.mark.parametrize(("name", "content"), [
    ("shards.tar", b"x" * 1024), ("labels.csv", b"a,b\n"), ("photo", b"no image")])
def test_a_file_that_is_no_image_is_named(name, content, tmp_path, cli):
    (tmp_path / name).write_bytes(content)
    done = cli("run", "--model", "resnet8-cifar", "--weights", "random", "--data", "real",
               "--data-dir", tmp_path / name)
    assert done.code != 0
    assert f"{name}' is not an image file" in done.err


def test_an_image_file_may_have_any_name(tmp_path, cli):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.photo", "PNG")
    done = cli("run", "--model", "resnet8-cifar", "--weights", "random", "--data", "real",
               "--backend", "torch", "--data-dir", tmp_path / "a.photo")
    assert done.code == 0, done.err


def test_a_conversion_has_the_spellings_of_other_commands(tmp_path, cli):
    (tmp_path / "photos/cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/cat/1.png")
    done = cli("data", "convert", "--data-dir", tmp_path / "photos", "--out", tmp_path / "shards",
               "--splits", "train")
    assert done.code == 0, done.err
    assert list((tmp_path / "shards").glob("*.tar"))
