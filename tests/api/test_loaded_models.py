"""Loaded models: `ipucnn.load(...).predict(...)`, and runs over images of this process."""

from __future__ import annotations

import csv
import io
import os
import pickle
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy
import pytest
import torch
import torchvision
from PIL import Image

import ipucnn
from ipucnn.core.options.declaration import declared
from ipucnn.data.given_images import GivenImages
from ipucnn.data.host_loader import HostLoader
from ipucnn.inference.options import RunResults
from ipucnn.plugins.backends.torch.inference import TorchInferenceSession


@pytest.fixture(scope="module")
def model(trained):
    with ipucnn.load(trained, backend="torch") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def photo(photos):
    return next((photos / "validation" / "ring").iterdir())


def test_answers_are_those_of_a_run(model, photos, trained, tmp_path):
    answers = model.predict(photos / "validation")
    ipucnn.run(weights=trained, backend="torch", data_dir=photos / "validation",
               predictions=tmp_path / "rows.csv", top_k=3)
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [answer.path for answer in answers]
    for row, answer in zip(rows, answers):
        assert [row[f"name_{rank}"] for rank in (1, 2, 3)] == list(answer.names[:3])
        assert float(row["probability_1"]) == pytest.approx(answer.probability, abs=1e-6)


def test_an_image_of_any_library_has_one_answer(model, photo):
    image = Image.open(photo)
    pixels = numpy.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = model.predict(photo)
    assert len(expected) == 5
    assert expected.name == expected.names[0]
    assert dict(expected) == expected.as_dict()
    for same in (str(photo), image, pixels, tensor, pixels.transpose(2, 0, 1)):
        found = model.predict(same)
        assert found.names == expected.names
        assert found.probabilities == pytest.approx(expected.probabilities, abs=0.02)
    grey = model.predict(pixels[:, :, 0])
    assert grey.classes == model.predict(numpy.stack([pixels[:, :, 0]] * 3, 2)).classes


def test_several_images_have_several_answers(model, photo):
    pixels = numpy.array(Image.open(photo))
    assert [one.path for one in model.predict([photo, pixels])] == [str(photo), "image 1"]
    assert len(model.predict(numpy.stack([pixels, pixels, pixels]), top_k=1)) == 3
    assert len(model.predict(pixels for _ in range(2))) == 2
    assert len(model.predict([(pixels, "ring")])) == 1
    assert model.predict([]) == []
    found = model.predict(numpy.stack([pixels, pixels, pixels]))
    assert found[1:].records() == found.records()[1:]
    assert found[-1] is list(found)[2]
    assert len(model.predict(pixels, top_k=99)) == 8


def test_images_are_in_the_order_of_an_array_or_a_column_of_paths(model, photos, monkeypatch):
    paths = sorted((photos / "validation").rglob("*.jpg"))[:3]
    expected = model.predict(paths)
    assert model.predict(numpy.array(list(map(str, paths)))) == expected
    assert model.predict(numpy.array(paths, object)) == expected
    monkeypatch.setenv("HOME", str(photos))
    at_home = ["~/" + str(path.relative_to(photos)) for path in paths]
    assert [one.names for one in model.predict(at_home)] == [one.names for one in expected]
    pandas = pytest.importorskip("pandas")
    for kind in ("object", "category"):  # the index is not that of the positions
        column = pandas.Series(list(map(str, paths)), index=[2, 0, 1], dtype=kind)
        assert model.predict(column) == expected
    with pytest.raises(ipucnn.IpucnnError) as raised:
        model.predict(pandas.DataFrame({"path": paths}))
    assert "a column of a data frame" in raised.value.hint


def test_a_loaded_model_has_classes_and_a_card(model):
    assert model.classes[:2] == ("bar", "circle")
    assert model.card.preprocessing.input_size == 32
    assert model.module(torch.zeros(1, 3, 32, 32)).shape == (1, 8)
    assert "8: bar, circle" in str(model)
    assert "<th>classes</th>" in model._repr_html_()


def test_files_of_every_kind_are_loaded(model, photo, trained, tmp_path, monkeypatch):
    (checkpoint,) = trained.glob("*.pt")
    exported = ipucnn.export(weights=checkpoint, output=tmp_path / "models" / "net.onnx")
    expected = model.predict(photo)
    for place in (checkpoint, exported.path, tmp_path / "models"):
        with ipucnn.load(place, backend="onnxruntime" if place != checkpoint else "torch",
                         precision="full") as other:
            assert other.predict(photo).name == expected.name
            assert other.classes == model.classes
    with pytest.raises(ipucnn.IpucnnError, match="is an ONNX file, not a torch module"):
        assert ipucnn.load(exported.path, backend="onnxruntime").module
    torch.save(model.module.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(ipucnn.IpucnnError, match="does not state which model its weights are of"):
        ipucnn.load(tmp_path / "plain.pth")
    plain = ipucnn.load(tmp_path / "plain.pth", model="resnet8-cifar", num_classes=8,
                        backend="torch", input_size=32)
    assert plain.classes[0] == "class 0"
    assert len(plain.predict(photo)) == 5
    (tmp_path / "resnet8-cifar").mkdir()  # a name of a model comes before a folder
    monkeypatch.chdir(tmp_path)
    named = ipucnn.load("resnet8-cifar", weights="random", backend="torch", num_classes=3)
    assert len(named.predict(photo)) == 3


@pytest.mark.parametrize(("place", "message"), [
    ("nothing.pt", "there is no file or folder 'nothing.pt', and no model of that name"),
    ("resnet5o", "did you mean 'resnet50'"),
    ("modle", "unknown model 'modle', and no file or folder of that name"),
    (".", "there are no checkpoints in")])
def test_what_cannot_be_loaded_is_named(place, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ipucnn.IpucnnError, match=message):
        ipucnn.load(Path(place))


@pytest.mark.parametrize(("images", "message"), [
    (3, "'int' is neither an image nor a collection of images"),
    ("nothing.jpg", "there is no image and no folder 'nothing.jpg'"),
    ([object()], "image 0 is of type 'object'"),
    (numpy.zeros((8, 8, 3)), "image 0 has numbers of type float64, expected uint8"),
    (torch.zeros(4, 8, 8, dtype=torch.uint8), "image 0 has shape 4x8x8, expected 3 x height"),
    ([(Image.new("RGB", (8, 8)),) * 2], "image 0 is of type 'tuple', and no image"),
    (torch.zeros(3, 8, 8, dtype=torch.uint8, device="meta"), "image 0 cannot be read: .*meta"),
    (torch.zeros(3, 8, 8, dtype=torch.uint8).to_sparse(), "image 0 cannot be read: .*Sparse"),
    (Image.new("RGB", (0, 4)), "image 0 has 0 x 4 pixels"),
    (["a\0.jpg"], "cannot read image .*null")])
def test_what_is_no_image_is_named(model, images, message):
    with pytest.raises(ipucnn.IpucnnError, match=message):
        model.predict(images)


@pytest.mark.parametrize(("labelled", "message"), [
    ([(numpy.zeros((8, 8, 3), "uint8"), "a"), 1], "image 1 has no label"),
    ([(numpy.zeros((8, 8, 3), "uint8"), numpy.zeros(2, int))], "the label of image 0 is array")])
def test_what_is_no_label_is_named(labelled, message, trained):
    with pytest.raises(ipucnn.IpucnnError, match=message):
        ipucnn.run(images=labelled, weights=trained)


@pytest.mark.parametrize(("images", "hint"), [
    (b"content of a file", "io.BytesIO"), (io.BytesIO(b"x"), "io.BytesIO"),
    ([b"content of a file"], "io.BytesIO"), ("https://localhost/a.jpg", "download"),
    (numpy.zeros((0, 3, 3), "uint8"), "at least one pixel"),
    ({"a": "b.jpg"}, "values of a dictionary"),
    ([numpy.zeros((2, 8, 8, 3), "uint8")], "one by one")])
def test_hints_on_what_is_no_image(model, images, hint):
    with pytest.raises(ipucnn.IpucnnError) as raised:
        model.predict(images)
    assert hint in raised.value.hint


def test_an_open_temporary_file_is_no_collection_of_images(model):
    with tempfile.NamedTemporaryFile() as file, pytest.raises(ipucnn.IpucnnError) as raised:
        model.predict(file)
    assert "PIL.Image.open" in raised.value.hint


@pytest.mark.parametrize("top_k", [0, "3", 2.5, None])
def test_top_k_is_at_least_one_class(model, photo, top_k):
    with pytest.raises(ipucnn.IpucnnError, match=f"option 'top_k' is {top_k!r}"):
        model.predict(photo, top_k=top_k)


def test_damaged_photographs_are_named_or_left_out(model, photo, trained, tmp_path):
    shutil.copy(photo, tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ipucnn.IpucnnError, match=r"cannot decode image '.*bad\.jpg'"):
        model.predict(tmp_path)
    with pytest.raises(ipucnn.IpucnnError) as caught:
        model.predict([photo, photo, tmp_path / "bad.jpg", photo])
    assert caught.value.partial == model.predict([photo, photo])
    patient = ipucnn.load(trained, backend="torch", skip_bad_samples=True)
    assert [Path(one.path).name for one in patient.predict(tmp_path)] == ["good.jpg"]


def test_a_pickled_model_is_loaded_again(model, photo):
    expected = model.predict(photo)
    content = pickle.dumps(model)
    assert len(content) < 10_000  # its weights stay in their file
    with pickle.loads(content) as again:
        assert again.predict(photo) == expected
        assert (again.backend, again.classes) == (model.backend, model.classes)
    moved = pickle.dumps(ipucnn.load("resnet8-cifar", weights="random", num_classes=2))
    assert pickle.loads(moved).classes == ("class 0", "class 1")


@pytest.mark.parametrize(("source", "backend"), [
    ("copied", "torch"), ("copied", "onnxruntime"), ("copied/net.onnx", "onnxruntime")])
def test_a_model_needs_neither_the_working_folder_nor_files_read_before(
        source, backend, trained, photo, tmp_path, monkeypatch):
    expected = ipucnn.load(trained, backend=backend).predict(photo)
    shutil.copytree(trained, "copied")
    if source.endswith(".onnx"):
        ipucnn.export(weights="copied", output=source, dynamic_batch=True)
    (tmp_path / "elsewhere").mkdir()
    with ipucnn.load(source, backend=backend) as loaded:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert loaded.predict(photo).names == expected.names
        loaded.close()
        assert loaded.predict(photo).names == expected.names
        assert pickle.loads(pickle.dumps(loaded)).predict(photo).names == expected.names
        assert source != "copied" or not loaded.module.training
    with ipucnn.load(tmp_path / source, backend=backend) as loaded:
        shutil.rmtree(tmp_path / "copied")
        if source == "copied":
            assert loaded.predict(photo).names == expected.names
        else:
            with pytest.raises(ipucnn.IpucnnError, match=r"there is no ONNX file .*net\.onnx"):
                loaded.predict(photo)


def test_an_image_of_pillow_may_be_in_a_list_several_times(trained, tmp_path):
    noise = numpy.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    with ipucnn.load(trained, backend="torch", dataloader_worker=4) as loaded:
        expected = loaded.predict(tmp_path / "noise.jpg").classes
        for _ in range(3):
            image = Image.open(tmp_path / "noise.jpg")  # decoded when its pixels are needed
            found = loaded.predict([image] * 16)
            assert [one.classes for one in found] == [expected] * 16


def test_a_model_is_not_used_after_a_fork(trained, photo, monkeypatch):
    with ipucnn.load(trained, backend="torch") as loaded:
        loaded.predict(photo)
        parent = os.getpid()
        monkeypatch.setattr("ipucnn.inference.answering.os.getpid", lambda: parent + 1)
        with pytest.raises(ipucnn.IpucnnError, match="was forked from one in which the model is"):
            loaded.predict(photo)  # its threads are not in this process
        loaded.close()  # the session of the other process stays open
        monkeypatch.undo()
        assert loaded.predict(photo)


def test_threads_take_turns(model, photos):
    expected = model.predict(photos / "validation")
    found = []
    threads = [threading.Thread(target=lambda: found.append(model.predict(photos / "validation")))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


def test_the_session_is_for_any_thread_and_closed_if_it_does_not_compile(trained, photo,
                                                                         monkeypatch):
    seen = []

    def fails(session):
        seen.append(session.any_thread)
        raise ipucnn.IpucnnError("no compiler")

    monkeypatch.setattr(TorchInferenceSession, "compile", fails)
    monkeypatch.setattr(TorchInferenceSession, "close", lambda _: seen.append("closed"))
    with ipucnn.load(trained, backend="torch") as loaded, \
            pytest.raises(ipucnn.IpucnnError, match="no compiler"):
        loaded.predict(photo)
    assert seen == [True, "closed"]


def test_a_thread_count_that_was_set_meanwhile_is_kept(trained, photo):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with ipucnn.load(trained, backend="torch") as loaded:
            loaded.predict(photo)
            assert torch.get_num_threads() != 3
        assert torch.get_num_threads() == 3
        with ipucnn.load(trained, backend="torch") as loaded:
            loaded.predict(photo)
            torch.set_num_threads(7)
        assert torch.get_num_threads() == 7
    finally:
        torch.set_num_threads(before)


def test_runs_take_images_of_this_process_and_score_their_labels(photos, trained, photo):
    options = {"weights": trained, "backend": "torch", "progress": False}
    dataset = ipucnn.load_dataset("image_folder", photos, split="validation")
    expected = ipucnn.run(**options, images=dataset)
    assert expected.accuracy["images"] == expected.images == 16
    others = torchvision.datasets.ImageFolder(str(photos / "validation"))
    for images in (others, torch.utils.data.Subset(others, range(16)),
                   [(sample.image, sample.label_name) for sample in dataset]):
        result = ipucnn.run(**options, images=images)
        assert result.accuracy["top5"] == pytest.approx(expected.accuracy["top5"], abs=13)
        assert result.classes
        assert result.accuracy["images"] == 16
    assert ipucnn.run(**options, images=others).answers[0]["path"] == others.samples[0][0]
    # numbers without names are those of the model's classes
    numbered = ipucnn.run(**options, images=[(photo, 4), (photo, 0)])
    assert [row["label_name"] for row in numbered.answers] == ["4", "0"]
    assert ipucnn.run(**options, images=Image.open(photo)).accuracy is None
    with pytest.raises(ipucnn.IpucnnError, match="none of the classes of dataset 'images'"):
        ipucnn.run(**options, images=[(photo, "unheard of")])
    with pytest.raises(ipucnn.IpucnnError, match="'--instances 2' starts processes"):
        ipucnn.run(**options, images=photo, instances=2)


def test_labels_of_joined_datasets_are_those_of_their_classes(photos, trained):
    class Few(torchvision.datasets.ImageFolder):
        def find_classes(self, directory):
            names = sorted(os.listdir(directory))[3:]
            return names, {name: number for number, name in enumerate(names)}

    options = {"weights": trained, "backend": "torch", "progress": False}
    few = Few(str(photos / "validation"))
    alone = ipucnn.run(**options, images=few)
    joined = ipucnn.run(**options, images=torch.utils.data.ConcatDataset([few, few]))
    assert [row["label_name"] for row in joined.answers[:10]] == [
        row["label_name"] for row in alone.answers[:10]]
    assert joined.accuracy["top1"] == alone.accuracy["top1"]
    whole = torchvision.datasets.ImageFolder(str(photos / "validation"))
    with pytest.raises(ipucnn.IpucnnError, match="have different classes"):
        ipucnn.run(**options, images=torch.utils.data.ConcatDataset([few, whole]))


class _OneFile:
    """Images in one open file, as a dataset for a single thread reads them."""

    def __init__(self, file):
        self._file = file

    def __len__(self):
        return 32

    def __getitem__(self, index):
        self._file.seek(index * 3072)
        time.sleep(0.001)  # lets another thread seek
        return numpy.frombuffer(self._file.read(3072), numpy.uint8).reshape(32, 32, 3)


def test_the_items_of_a_dataset_are_read_one_at_a_time(model, tmp_path):
    pixels = numpy.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), numpy.uint8)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    sent = pickle.loads(pickle.dumps(GivenImages(list(pixels))))  # to a worker process
    assert torch.equal(sent.image(3), torch.from_numpy(pixels[3]).permute(2, 0, 1))
    with (tmp_path / "pixels").open("rb") as file:
        dataset = GivenImages(_OneFile(file))
        dataset.ready = True
        with HostLoader(dataset, model.card.preprocessing, 4, range(32), workers=4) as loader:
            found = torch.cat([batch.images for batch in loader])
    assert torch.equal(found, torch.from_numpy(pixels).permute(0, 3, 1, 2))


class _Asking:
    """Images that ask a model about themselves."""

    def __init__(self, other):
        self.other = other

    def __len__(self):
        return 2

    def __getitem__(self, index):
        pixels = numpy.full((32, 32, 3), 40 * index, numpy.uint8)
        self.other.predict(pixels)
        return pixels


class _Counted(torch.utils.data.Dataset):
    """Images with labels that have no class, which counts how often an item is loaded."""

    def __init__(self, photo):
        self.photo, self.loaded = photo, 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.loaded += 1
        return self.photo, {"boxes": index}


def test_labels_are_not_read_for_predictions(model, photo, photos):
    dataset, expected = _Counted(photo), model.predict(photo).classes
    assert [one.classes for one in model.predict(dataset)] == [expected] * 3
    assert dataset.loaded == 4  # and the first one, to see what the items are
    for pairs in ([(photo, None)], [(photo, 3), (photo, "ring")], [(photo, None), photo]):
        assert {one.classes for one in model.predict(pairs)} == {expected}
    item = ipucnn.load_dataset("real", photos / "validation")[0]
    assert model.predict(item).classes == model.predict(item.name).classes


@pytest.mark.parametrize("workers", [0, 2])
def test_images_cannot_ask_the_model_that_classifies_them(trained, workers):
    how = {"backend": "torch", "precision": "full", "dataloader_worker": workers}
    with ipucnn.load(trained, **how) as loaded, ipucnn.load(trained, **how) as other:
        found = []

        def ask(asked):
            try:
                found.append(loaded.predict(_Asking(asked)))
            except ipucnn.IpucnnError as error:
                found.append(error.message)

        for asked in (loaded, other, loaded):
            thread = threading.Thread(target=ask, args=(asked,), daemon=True)
            thread.start()
            thread.join(60)
        assert [str(found[0]), len(found[1]), str(found[2])] == [
            "an image calls 'predict' of the model that classifies it", 2,
            "an image calls 'predict' of the model that classifies it"]


def test_random_numbers_of_the_caller_continue(trained, photo, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    random = {"weights": "random", "num_classes": 3, "seed": 1}
    networks = []
    for backend in ("torch", "onnxruntime"):
        torch.manual_seed(5)
        with ipucnn.load("resnet8-cifar", backend=backend, precision="full", **random) as loaded:
            networks.append(loaded.predict(photo).probabilities)
            loaded.module  # noqa: B018 - builds it
        ipucnn.run(model="resnet8-cifar", data="synthetic", iterations=1, backend=backend, **random)
        ipucnn.export(model="resnet8-cifar", output=tmp_path / "net.onnx", **random)
        assert torch.equal(torch.rand(3), expected)
    assert networks[0] == pytest.approx(networks[1], abs=1e-4)


def test_trainings_and_their_checkpoints_leave_random_numbers_of_the_caller(
        training, photos, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    folder = tmp_path / "checkpoints"
    for call in (
            lambda: ipucnn.train(**training, data_dir=photos, epoch=1, checkpoint_path=folder),
            lambda: ipucnn.validate(checkpoint_path=folder, progress=False),
            lambda: ipucnn.average(checkpoint_path=folder, reestimate_batch_norm=8)):
        torch.manual_seed(5)
        call()
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("given", [{"weights": "random"}, {"random_weights": True}])
def test_other_weights_than_those_of_a_file_are_refused(given, trained):
    (name,) = given
    with pytest.raises(ipucnn.IpucnnError,
                       match=f"option '{name}' contradicts the weights in '.*trained"):
        ipucnn.load(trained, **given)


def test_the_module_of_random_weights_is_the_one_that_predicts():
    with ipucnn.load("resnet8-cifar", backend="torch", weights="random", num_classes=3, seed=2,
                     precision="full") as loaded:
        torch.manual_seed(2)
        built = ipucnn.create_model("resnet8-cifar", weights="random", num_classes=3)
        for name, value in loaded.module.state_dict().items():
            assert torch.equal(value, built.state_dict()[name])


@pytest.mark.parametrize("name", [item.name for item in declared(RunResults)])
def test_options_of_results_are_refused(name, trained):
    with pytest.raises(ipucnn.IpucnnError, match=f"option '{name}' applies to runs"):
        ipucnn.load(trained, **{name: "x"})


def test_drawn_images_are_brought_to_the_input_of_the_model(model, trained):
    drawn = ipucnn.load_dataset("shapes", input_size=64, length=4)
    assert drawn.ready
    assert len(model.predict(drawn)) == 4
    assert ipucnn.run(weights=trained, backend="torch", images=drawn).accuracy["images"] == 4


def test_datasets_are_indexed_and_iterated(photos):
    dataset = ipucnn.load_dataset("image_folder", photos, split="validation")
    image, label = dataset[0]
    assert (image.dtype, tuple(image.shape), label) == (torch.uint8, (3, 40, 40), 0)
    assert (dataset[0].label_name, Path(dataset[0].name).parent.name) == ("bar", "bar")
    assert dataset[-1].label_name == dataset[numpy.int64(15)].label_name == "triangle"
    part = dataset[2:6:2]
    assert [sample.label_name for sample in part] == ["circle", "crescent"]
    assert (len(part), part[-1].name, part.class_names) == (2, dataset[4].name,
                                                            dataset.class_names)
    assert len(list(dataset)) == len(dataset) == 16
    with pytest.raises(IndexError):
        dataset[16]
    assert "40x40, label 0 (bar)" in repr(dataset[0])
