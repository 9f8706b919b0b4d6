"""A restored training and its images: classes that came, went or were renamed."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

import ipucnn
from ipucnn.core.errors import DataError
from ipucnn.runs.found import best_validation
from ipucnn.training.checkpoints import keeper

SMALL = {"model": "resnet8-cifar", "input_size": 16, "batch_size": 2, "precision": "full",
         "backend": "torch", "no_validation": True, "lr": 0.05}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of pictures of three classes, and a training of one epoch on them."""
    folder = tmp_path_factory.mktemp("trained")
    ipucnn.shapes(str(folder / "all"), per_class=4, size=20)
    for name in ("bar", "circle", "ring"):
        shutil.copytree(str(folder / "all" / name), str(folder / "photos" / name))
    ipucnn.train(data_dir=str(folder / "photos"), checkpoint_path=str(folder / "model"), epoch=1,
                 momentum=0.9, **SMALL)
    return folder


@pytest.fixture
def work(trained, tmp_path):
    for name in ("photos", "model"):
        shutil.copytree(str(trained / name), str(tmp_path / name))
    return tmp_path


def restored(work, **options):
    return ipucnn.restore(str(work / "model"), data_dir=str(work / "photos"), epoch=2, **options)


def test_the_same_images_are_recognised(work):
    assert any("is the same as before: 12 images" in note for note in restored(work).notes)


def test_more_images_are_noted(work):
    shutil.copy(str(next((work / "photos" / "bar").iterdir())), str(work / "photos/bar/more.jpg"))
    assert any("has more images than before: 13, not 12" in note for note in restored(work).notes)


def test_validation_images_that_were_trained_on_are_counted(tmp_path):
    photos = tmp_path / "photos"
    ipucnn.shapes(str(photos), per_class=14, size=20)
    for folder in sorted(photos.glob("[!.]*"))[2:]:
        shutil.rmtree(str(folder))
    ipucnn.train(data_dir=photos, checkpoint_path=tmp_path / "model", epoch=1,
                 **{**SMALL, "no_validation": False})

    def names(split):
        found = ipucnn.load_dataset("image_folder", photos, split=split, hold_out=True)
        return {found.name(index) for index in range(len(found))}

    def notes():
        return [note for note in restored(tmp_path).notes if "trained on before" in note]

    before = names("train")
    assert len(before) == 26
    for folder in photos.glob("[!.]*"):
        shutil.copy(str(next(folder.iterdir())), str(folder / "more.jpg"))
    moved = names("validation") & before
    assert len(names("validation")) == 4
    assert len(moved) == 2  # 'more.jpg' is not among them
    (note,) = notes()
    assert note.startswith("2 of the 4 validation images were trained on before")
    assert not notes()  # they are no longer trained on


def test_images_of_a_class_without_an_output_are_not_trained_on(trained, tmp_path):
    for name, source in (("bar", "bar"), ("apple", "star")):
        shutil.copytree(str(trained / "all" / source), str(tmp_path / "photos" / name))
    with pytest.raises(DataError, match="no output for 'apple'") as caught:
        ipucnn.train(data_dir=tmp_path / "photos", weights=trained / "model", num_classes=3,
                     no_checkpoints=True, epoch=1, **SMALL)
    assert "--num-classes" in caught.value.hint


def test_bad_images_of_another_listing_are_dropped(work):
    path = next((work / "model").glob("*_1.pt"))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["progress"]["bad"] = [5]
    torch.save(checkpoint, path)
    damaged = sorted((work / "photos").glob("*/*.*"))[5]
    image = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    shutil.copytree(str(work / "model"), str(work / "again"))
    assert restored(work, skip_bad_samples=True).skipped["images"] == 1
    damaged.write_bytes(image)
    (work / "photos" / "bar" / "0.jpg").write_bytes(
        next((work / "photos" / "bar").iterdir()).read_bytes())
    result = ipucnn.restore(work / "again", data_dir=work / "photos", epoch=2,
                            skip_bad_samples=True)
    assert result.skipped["images"] == 0


def test_a_class_of_which_no_image_can_be_read_is_named(work):
    for path in (work / "photos" / "bar").iterdir():
        path.write_bytes(b"damaged")
    notes = train(work, epoch=4).notes
    assert [note for note in notes if "could be read" in note] == [
        "no training image of 'bar' could be read; the model has not learnt it"]


def test_a_repaired_image_is_used_by_a_restored_training(work):
    damaged = sorted((work / "photos").glob("*/*.*"))[5]
    image = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    train(work, epoch=1)
    assert again(work).skipped["images"] == 1
    damaged.write_bytes(image)
    assert again(work).skipped["images"] == 0


def test_a_training_with_unreadable_images_resumes_exactly(work, monkeypatch):
    for image in sorted((work / "photos").glob("*/*.*"))[::4]:
        image.write_bytes(b"damaged")
    written = {}

    def kept(checkpoint, folder, name=""):
        path = save(checkpoint, folder, name)
        files = [path, *folder.glob("metrics.jsonl"), *folder.glob("training.json")]
        written.setdefault(path.name, {file.name: file.read_bytes() for file in files})
        assert path.read_bytes() == written[path.name][path.name], path.name
        return path

    save = keeper.save
    monkeypatch.setattr(keeper, "save", kept)
    train(work, epoch=2, checkpoint_save_steps=1)
    rows = recorded(work)
    assert [row["epoch"] for row in rows] == [4 / 6, 1 + 4 / 6]  # 9 of 12 images are 4 calls
    assert all(row["images_per_second"] for row in rows)
    assert 0 < rows[1]["learning_rate"] < rows[0]["learning_rate"] < SMALL["lr"]
    assert len(written) == 10
    for name, files in list(written.items()):
        shutil.rmtree(str(work / "model"))
        (work / "model").mkdir()
        for file, content in files.items():
            (work / "model" / file).write_bytes(content)
        ipucnn.restore(work / "model" / name)
        assert [timeless(row) for row in recorded(work)] == [timeless(row) for row in rows], name


def test_a_rest_of_an_epoch_that_is_too_small_for_a_larger_batch_is_left_out(work):
    shutil.rmtree(str(work / "model"))
    begun = ipucnn.train(data_dir=work / "photos", checkpoint_path=work / "model", epoch=2,
                         logs_per_epoch=6, callbacks=[lambda row: row["update"] == 2], **SMALL)
    assert begun.stopped_by == "callback"
    result = ipucnn.restore(work / "model", batch_size=12)
    assert (result.epochs, result.updates) == (2, 3)
    epochs = [row for row in result.history if row["kind"] == "epoch"]
    assert [row["update"] for row in epochs] == [2, 3]
    assert epochs[0]["loss"] == begun.loss  # of the four images before


def train(work, **options):
    shutil.rmtree(str(work / "model"))
    return ipucnn.train(data_dir=work / "photos", checkpoint_path=work / "model", momentum=0.9,
                        skip_bad_samples=True, logs_per_epoch=1,
                        **{**SMALL, **options})


def again(work):
    shutil.rmtree(str(work / "again"), ignore_errors=True)
    return ipucnn.restore(work / "model", checkpoint_output_dir=work / "again", epoch=2)


def recorded(work):
    return [json.loads(line) for line in (work / "model/metrics.jsonl").read_text().splitlines()]


def timeless(row):
    return {name: value for name, value in row.items()
            if name not in ("images_per_second", "data_wait_share")}


def test_a_restored_training_sets_the_record_of_another_one_aside(work):
    log = work / "log"
    for number in range(2):
        ipucnn.train(data_dir=work / "photos", checkpoint_path=work / str(number), epoch=2,
                     log_dir=log, seed=number, **SMALL)
    other = (log / "metrics.csv").read_bytes()
    first = next((work / "0").glob("*_1.pt"))
    for epoch in (3, 4):  # the second one continues the record of the first one
        ipucnn.restore(first if epoch == 3 else work / "0", epoch=epoch)
    assert (log / "metrics.csv.2.superseded").read_bytes() == other
    assert (log / "options.yaml.2.superseded").exists()
    assert not (log / "metrics.csv.3.superseded").exists()
    rows = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["epoch"] == int(row["epoch"])] == [2, 3, 4]
    shutil.move(str(work / "0"), str(work / "moved"))
    ipucnn.restore(work / "moved", epoch=5)
    assert not (log / "metrics.csv.3.superseded").exists()
    shutil.copytree(str(work / "moved"), str(work / "copy"))
    before = (log / "metrics.csv").read_bytes()
    ipucnn.restore(work / "copy", epoch=6)
    assert (log / "metrics.csv.3.superseded").read_bytes() == before


@pytest.mark.parametrize("place", ["", "log"])
def test_a_record_beside_the_checkpoints_is_copied_with_them(work, place):
    ipucnn.train(data_dir=work / "photos", checkpoint_path=work / "one", epoch=1,
                 log_dir=work / "one" / place, **SMALL)
    before = (work / "one" / place / "metrics.csv").read_bytes()
    shutil.copytree(str(work / "one"), str(work / "two"))
    result = ipucnn.restore(work / "two", epoch=2)
    assert result.log_dir == str(work / "two" / place)
    assert (work / "two" / place / "metrics.csv").read_bytes().startswith(before)
    assert (work / "one" / place / "metrics.csv").read_bytes() == before
    assert not list(work.glob("two/**/*.superseded"))


@pytest.mark.parametrize("named", [True, False])
def test_a_relative_log_folder_is_found_from_another_working_folder(work, named, monkeypatch):
    monkeypatch.chdir(work)
    place = {"checkpoint_path": "one"} if named else {}
    ipucnn.train(data_dir=work / "photos", epoch=1, log_dir="records/one", **place, **SMALL)
    before = (work / "records" / "one" / "metrics.csv").read_bytes()
    (model,) = [work / "one"] if named else (work / "logs").iterdir()
    shutil.copytree(str(work), str(work / "copy"))
    elsewhere = work / "elsewhere"
    (elsewhere / "records" / "one").mkdir(parents=True)  # that of another training
    monkeypatch.chdir(elsewhere)
    result = ipucnn.restore(os.path.relpath(str(work / "copy" / model.relative_to(work))), epoch=2)
    assert result.log_dir == str(work / "copy" / "records" / "one")
    assert ipucnn.restore(model, epoch=2).log_dir == str(work / "records" / "one")
    for folder in (work, work / "copy"):
        assert (folder / "records" / "one" / "metrics.csv").read_bytes().startswith(before)
        assert not list(folder.glob("records/one/*.superseded"))
    assert not list((elsewhere / "records" / "one").iterdir())


def test_a_weights_file_is_stronger_than_a_profile(work):
    common = {"data_dir": work / "photos", "weights": work / "model"}
    tuned = ipucnn.train(config="fine-tune", epoch=1, checkpoint_path=work / "tuned", **common,
                         **{name: SMALL[name] for name in ("batch_size", "precision", "backend",
                                                           "no_validation")})
    assert tuned.model == "resnet8-cifar"
    assert any("'fine-tune' is used without what does not fit here: --model" in note
               for note in tuned.notes)
    assert ipucnn.run(config="cpu", backend="torch", progress=False, **common).images == 12


def test_a_lost_class_is_noted_and_the_others_keep_their_outputs(work):
    shutil.rmtree(str(work / "photos" / "bar"))
    result = restored(work)
    assert any("has no images of 'bar' any more" in note for note in result.notes)
    assert ipucnn.load(str(work / "model")).card.class_names == ("bar", "circle", "ring")


def test_an_added_class_is_refused_before_anything_runs(work, trained):
    shutil.copytree(str(trained / "all" / "star"), str(work / "photos" / "apple"))
    with pytest.raises(DataError, match="classes that the training does not have: 'apple'"):
        restored(work)


def test_a_renamed_class_is_named_with_the_one_that_is_gone(work):
    (work / "photos" / "bar").rename(work / "photos" / "bars")
    with pytest.raises(DataError, match="does not have: 'bars', and 'bar' is gone"):
        restored(work)


def test_added_classes_get_outputs_of_their_own_on_request(work, trained):
    shutil.copytree(str(trained / "all" / "star"), str(work / "photos" / "apple"))
    before = torch.load(next((work / "model").glob("*_1.pt")), weights_only=True)
    restored(work, add_classes=True, lr=0.0)
    after = torch.load(next((work / "model").glob("*_2.pt")), weights_only=True)
    assert after["class_names"] == ["bar", "circle", "ring", "apple"]
    head = [name for name, value in after["model"].items()
            if value.shape != before["model"][name].shape]
    assert {len(after["model"][name]) for name in head} == {4}
    for name in head:  # at a rate of 0 the known classes keep their weights
        assert torch.equal(after["model"][name][:3], before["model"][name])
    assert ipucnn.load(str(work / "model")).classes == ("bar", "circle", "ring", "apple")


def test_the_best_of_before_does_not_know_added_classes(trained, tmp_path):
    photos, model = tmp_path / "photos", tmp_path / "model"
    shutil.copytree(str(trained / "photos"), str(photos))
    ipucnn.train(data_dir=photos, checkpoint_path=model, epoch=1,
                 **{**SMALL, "no_validation": False})
    before = (model / "metrics.jsonl").read_text()
    assert '"kind": "validation"' in before
    best = json.loads((model / "best.json").read_text())
    best["value"] = 100.0
    (model / "best.json").write_text(json.dumps(best))
    checkpoint = torch.load(next(model.glob("*_1.pt")), weights_only=True)
    checkpoint["progress"]["standing"] = {**checkpoint["progress"]["standing"], "metric": "top1",
                                          "value": 100.0, "epoch": 1, "weights": "raw"}
    torch.save(checkpoint, next(model.glob("*_1.pt")))
    shutil.copytree(str(trained / "all" / "star"), str(photos / "star"))
    result = ipucnn.restore(model, data_dir=photos, epoch=2, add_classes=True)
    assert result.best["epoch"] == 2
    assert [one["epoch"] for one in result.validations] == [2]
    assert ipucnn.load(model).classes == ("bar", "circle", "ring", "star")
    assert (model / "best.json.superseded").exists()
    after = (model / "metrics.jsonl").read_text()
    assert after.startswith(before)  # with the validation of the model without the class
    ipucnn.restore(model, data_dir=photos, epoch=3)
    assert (model / "metrics.jsonl").read_text().startswith(after)
    rows = [json.loads(line) for line in after.splitlines()]
    rows[1]["top1"] = 100.0
    assert (rows[1]["classes"], rows[-1]["classes"]) == (3, 4)
    assert best_validation(rows) == rows[-1]


# -- weights of other classes ---------------------------------------------------------------------


@pytest.mark.parametrize(("folders", "outputs", "note"), [
    ({"bar": "bar", "apple": "star", "ring": "ring"}, [None, 0, 2],
     "start from random weights: 'apple'"),
    ({"bar": "bar", "ring": "ring"}, [0, 2], "classes that the weights have are kept"),
    ({"Bar": "bar", "circle": "circle", "ring": "ring"}, [0, 1, 2], ""),
    ({"cat": "bar", "dog": "circle", "emu": "ring"}, [None] * 3, "have none of the classes"),
], ids=["one is new", "one is missing", "all are known", "all are new"])
def test_outputs_of_known_classes_are_taken_over(trained, tmp_path, folders, outputs, note):
    for name, source in folders.items():
        shutil.copytree(str(trained / "all" / source), str(tmp_path / "photos" / name))
    result = ipucnn.train(data_dir=tmp_path / "photos", weights=trained / "model",
                          checkpoint_path=tmp_path / "more", epoch=1, **{**SMALL, "lr": 0.0})
    notes = [text for text in result.notes if "the weights have" in text]
    assert (note in notes[0]) if note else not notes
    before, after = (torch.load(next(place.glob("*_1.pt")), weights_only=True)
                     for place in (trained / "model", tmp_path / "more"))
    assert after["class_names"] == (sorted(folders) if note else before["class_names"])
    rows = before["model"]["fc.weight"]
    for row, output in zip(after["model"]["fc.weight"], outputs):
        assert [torch.equal(row, other) for other in rows] == [n == output for n in range(3)]
