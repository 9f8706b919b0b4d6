"""`--data webdataset` in a folder: what is read, in which order, and the messages about faults."""

import concurrent.futures
import json
import multiprocessing
import os
import pickle
import re
import shutil

import numpy
import pytest
import torch
from shard_folders import CLASSES, jpeg, listed, sample, write, write_old, write_shard, write_split

from ipucnn import load_dataset
from ipucnn.core.errors import DataError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.images import decode
from ipucnn.plugins.datasets._webdataset import counts, dataset
from ipucnn.plugins.datasets._webdataset.shard_metadata import Metadata, Shard
from ipucnn.testing import check_plugin


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path_factory.mktemp("cache")))


def load(folder, **request):
    return load_dataset("webdataset", str(folder), **request)


def seen(data):
    """The number that the pixels of each image represent, by index."""
    return [int(data.image(index)[0, 3, 3]) for index in range(len(data))]


class TestReading:
    def test_samples(self, tmp_path):
        train = load(write(tmp_path), split="train", num_classes=3)
        assert len(train) == 10
        assert train.class_names == CLASSES
        assert [train.label(index) for index in range(10)] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
        assert train.name(5) == f"{tmp_path}/train-000001.tar/5.jpg"
        assert len({train.name(index) for index in range(10)}) == 10
        assert train.encoded(9) == jpeg(9)
        assert torch.equal(train.image(9), decode(jpeg(9), "it"))
        assert train.has_boxes
        assert (train.box(4), train.box(5)) == (None, (0.1, 0.2, 0.5, 0.75))
        assert train.has_image_ids
        assert train.image_id(7) == 1007
        with pytest.raises(IndexError):
            train.label(10)

    @pytest.mark.parametrize(("split", "length"), [("train", 10), ("validation", 6), (None, 6)])
    def test_splits(self, tmp_path, split, length):
        dataset = load(write(tmp_path), split=split)
        assert (len(dataset), dataset.split) == (length, split or "validation")

    def test_a_folder_with_one_split_is_evaluated(self, tmp_path):
        dataset = load(write(tmp_path, validation=0))
        assert (len(dataset), dataset.split) == (10, "train")
        with pytest.raises(DataError, match=r"no validation samples.*--no-validation"):
            load(tmp_path, split="validation")
        with pytest.raises(DataError, match=r"no train samples"):
            load(write(tmp_path / "other", train=0), split="train")

    @pytest.mark.parametrize("kind", ["npy", "pth"])
    def test_pixels(self, tmp_path, kind):
        data = load(write(tmp_path, kind=kind))
        assert seen(data) == list(range(6))
        assert data.encoded(0) is None
        assert data.image(2).dtype == torch.uint8
        assert data.image(2).shape == (3, 32, 32)
        assert data.name(2).endswith(f"/2.{kind}")

    def test_other_encodings_and_no_description(self, tmp_path):
        names = write_split(tmp_path, "train", [
            {"__key__": f"a/{number}", "jpeg": jpeg(number), "cls": b"1"} for number in range(5)])
        save(tmp_path, names, 5)
        data = load(tmp_path, split="train")
        assert data.name(3).endswith("train-000000.tar/a/3.jpeg")
        assert data.encoded(3) == jpeg(3)
        assert (data.box(0), data.image_id(0), data.label(0)) == (None, None, 1)

    def test_a_key_twice_is_two_names(self, tmp_path):
        names = write_split(tmp_path, "train", [sample(1), sample(2), sample(1)])
        save(tmp_path, names, 3)
        data = load(tmp_path, split="train")
        assert len({data.name(index) for index in range(3)}) == 3

    def test_without_labels(self, tmp_path):
        data = load(write(tmp_path, classes=(), make=lambda number, kind: sample(number, cls=None)))
        assert data.class_names == ()
        assert data.label(0) is None

    def test_shards_are_read_into_memory_ahead(self, tmp_path, monkeypatch):
        advised = []
        monkeypatch.setattr(os, "posix_fadvise", lambda file, *given: advised.append(
            os.path.basename(os.readlink(f"/proc/self/fd/{file}"))))
        write(tmp_path)  # 10 samples, 4 in a shard
        for ratio, names in ((0, []), (0.7, ["train-000000.tar", "train-000001.tar"])):
            load_dataset("webdataset", str(tmp_path), split="train",
                         webdataset_memory_cache_ratio=ratio)
            assert advised == names
        monkeypatch.delattr(os, "posix_fadvise")
        dataset = load_dataset("webdataset", str(tmp_path), webdataset_memory_cache_ratio=1)
        assert "'--webdataset-memory-cache-ratio' has no effect" in dataset.notes[0]

    def test_conformance(self, tmp_path):
        results = check_plugin("dataset", "webdataset", data_dir=str(write(tmp_path)))
        assert set(results.values()) == {"passed"}

    def test_conformance_when_ready(self, tmp_path):
        write(tmp_path, kind="npy",
              transforms={"validation": ("Resize(36)", "CenterCrop(32)")})
        assert load(tmp_path, input_size=32).ready
        results = check_plugin("dataset", "webdataset", data_dir=str(tmp_path))
        assert set(results.values()) == {"passed"}


def save(folder, names, total, per_shard=4, split="train", **stated):
    """Write the metadata of shards that are there."""
    shards = {"train": (), "validation": ()}
    shards[split] = listed(folder, names, per_shard, total)
    fields = {"classes": CLASSES, "boxes": True, **stated}
    lengths = {"train": 0, "validation": 0}
    lengths[split] = total
    (folder / "metadata.json").write_text(
        Metadata(lengths, shards=shards, **fields).as_json())


class TestReady:
    STEPS = ("Resize(256)", "CenterCrop(224)")

    def ready(self, folder, steps, **request):
        data = load(write(folder, transforms={"train": steps, "validation": steps}), **request)
        return data.ready, data.notes

    def test_what_evaluation_does(self, tmp_path):
        assert self.ready(tmp_path, self.STEPS, input_size=224) == (True, ())

    def test_an_image_of_another_size(self, tmp_path):
        write(tmp_path, kind="npy", transforms={"validation": ("Resize(73)", "CenterCrop(64)")})
        with pytest.raises(DataError, match=r"000000.tar/1.npy': it has 32x32 pixels and .* 64x64"):
            load(tmp_path, input_size=64).image(1)

    def test_training_crops_at_random(self, tmp_path):
        assert self.ready(tmp_path, self.STEPS, split="train") == (False, ())

    def test_a_resize_alone(self, tmp_path):
        assert self.ready(tmp_path, ("Resize(256)",), input_size=224) == (False, ())

    @pytest.mark.parametrize("steps", [STEPS, ("Resize(300)", "CenterCrop(260)"),
                                       ("CenterCrop(260)",)])
    def test_for_another_size(self, tmp_path, steps):
        ready, notes = self.ready(tmp_path, steps, input_size=260)
        assert not ready
        assert "CenterCrop" in notes[0]


class TestClasses:
    def test_numbered_as_the_model_counts(self, tmp_path):
        wanted = ("bee", "cow", "cat", "ant")
        data = load(write(tmp_path), class_names=wanted)
        assert data.class_names == wanted
        assert [wanted[data.label(index)] for index in range(4)] == ["ant", "bee", "cat", "ant"]

    def test_one_that_the_model_does_not_know(self, tmp_path):
        with pytest.raises(DataError, match=r"class 'cat' .* none of the 2 classes"):
            load(write(tmp_path), class_names=("ant", "bee"))

    def test_more_than_outputs(self, tmp_path):
        with pytest.raises(DataError, match="3 classes and the model 2 outputs"):
            load(write(tmp_path), num_classes=2)

    @pytest.mark.parametrize(("label", "reason"), [
        (b"3", "its label 3 is none of 3 classes"), (b"-1", "its label -1 is none"),
        (b"ant", "'ant' is no number"), (None, "it has no label")])
    def test_a_bad_label_makes_a_bad_sample(self, tmp_path, label, reason):
        write(tmp_path, make=lambda number, kind: sample(
            number, **({"cls": label} if number == 4 else {})))
        data = load(tmp_path)
        for ask in (data.image, data.encoded, data.label):
            with pytest.raises(DataError, match=reason) as caught:
                ask(4)
            assert f"{tmp_path}/validation-000001.tar/4.jpg" in caught.value.message
        assert data.label(5) == 2


class TestOldFolders:
    def test_read_as_they_are(self, tmp_path):
        data = load(write_old(tmp_path), split="train")
        assert len(data) == 10
        assert data.class_names == tuple(map(str, range(1000)))
        assert data.label(4) == 1
        assert data.has_boxes
        assert data.box(5) == (0.1, 0.2, 0.5, 0.75)
        assert not data.has_image_ids

    def test_of_the_first_version(self, tmp_path):
        write_old(tmp_path, boxes=False)
        path = tmp_path / "metadata.json"
        content = json.loads(path.read_text())
        del content["train_transform_pipeline"], content["validation_transform_pipeline"]
        content["transform_pipeline"] = ["Resize(256)"]
        path.write_text(json.dumps(content))
        data = load(tmp_path)
        assert len(data) == 6
        assert not data.has_boxes
        assert not data.ready

    @pytest.mark.parametrize("kind", ["jpg", "pth"])
    def test_pixels(self, tmp_path, kind):
        assert load(write_old(tmp_path, kind=kind)).image(1).shape[0] == 3

    def test_classes_of_the_model(self, tmp_path):
        write_old(tmp_path)
        assert load(tmp_path, num_classes=3).class_names == ("0", "1", "2")
        assert load(tmp_path, class_names=CLASSES).class_names == CLASSES

    def test_copies_for_instances_are_not_read(self, tmp_path):
        data = load(write_old(tmp_path, instances=2), split="train")
        assert len(data) == len({data.name(index) for index in range(10)}) == 10
        assert "distributed" in data.notes[0]

    def test_shards_of_differing_sizes(self, tmp_path):
        write_old(tmp_path, train=9, per_shard=3)
        write_shard(tmp_path / "train-000001.tar", [sample(number) for number in range(4)])
        write_shard(tmp_path / "train-000002.tar", [sample(8), sample(9)])
        data = load(tmp_path, split="train")
        assert [data.name(index)[-len("000000.tar/0.jpg"):] for index in (2, 3, 6, 7)] == [
            "000000.tar/2.jpg", "000001.tar/0.jpg", "000001.tar/3.jpg", "000002.tar/8.jpg"]

    def test_a_number_of_samples_that_is_wrong(self, tmp_path):
        write_old(tmp_path)
        (tmp_path / "train-000001.tar").unlink()
        with pytest.raises(DataError, match=r"hold 6 samples, and metadata.json states 10"):
            load(tmp_path, split="train")

    def test_a_truncated_shard(self, tmp_path):
        write_old(tmp_path)
        os.truncate(str(tmp_path / "train-000001.tar"), 3000)
        with pytest.raises(DataError, match=r"train-000001.tar' cannot be read: it is truncated"):
            load(tmp_path, split="train")

    def test_counts_are_kept_outside_of_the_folder(self, tmp_path, monkeypatch):
        write_old(tmp_path)
        before = sorted(path.name for path in tmp_path.iterdir())
        load(tmp_path, split="train")
        load(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        read = []
        samples = counts.samples
        monkeypatch.setattr(counts, "samples",
                            lambda file: read.append(file.path) or samples(file))
        load(tmp_path, split="train")
        assert read == []
        write_shard(tmp_path / "train-000001.tar", [sample(number) for number in range(5)])
        with pytest.raises(DataError, match="hold 11 samples"):
            load(tmp_path, split="train")
        assert [os.path.basename(path) for path in read] == ["train-000001.tar"]

    @pytest.mark.parametrize("content", ["", "[]", "{\"train-000000.tar\": 4}", "\0"])
    def test_damaged_counts_are_replaced(self, tmp_path, content):
        load(write_old(tmp_path))
        cache = os.path.join(os.environ["IPUCNN_CACHE"], "webdataset")
        for name in os.listdir(cache):
            with open(os.path.join(cache, name), "w") as file:
                file.write(content)
        assert len(load(tmp_path)) == 6

    def test_counts_that_cannot_be_kept(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "file"))
        assert len(load(write_old(tmp_path / "data"))) == 6

    def test_slow_counting_is_noted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dataset, "SLOW_SECONDS", -1)
        assert "counting the samples of 2 shards" in load(write_old(tmp_path)).notes[0]


class TestOrder:
    def make(self, shards=60, each=500):
        sizes = [each + number % 7 for number in range(shards)]
        return dataset.ShardedImages(None, [Shard(str(n), size, 0, "")
                                            for n, size in enumerate(sizes)])

    def test_a_permutation_of_its_own_for_each_epoch(self):
        data = self.make()
        orders = [data.order(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
        for order in orders:
            assert numpy.array_equal(numpy.sort(order), numpy.arange(len(data)))
        assert not any(numpy.array_equal(orders[a], orders[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
        assert numpy.array_equal(orders[1], self.make().order(0, 1))

    def test_few_shards_are_in_use_at_once(self):
        data = self.make()
        shards = numpy.searchsorted(data._ends, data.order(3, 4), side="right")
        assert list(dict.fromkeys(shards)) != sorted(set(shards))
        times = [numpy.flatnonzero(shards == shard) for shard in set(shards)]
        longest = max(at[-1] - at[0] for at in times)
        assert longest < 2 * dataset.BUFFER + 507

    def test_neighbours_are_parted(self):
        data = self.make()
        order = data.order(0, 0)
        assert (numpy.abs(numpy.diff(order)) == 1).mean() < 0.01

    def test_one_shard(self):
        data = self.make(1, 3)
        assert sorted(data.order(0, 0)) == [0, 1, 2]


class TestFaults:
    def test_no_folder(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            load(tmp_path / "none")
        with pytest.raises(DataError, match="needs a folder"):
            load_dataset("webdataset")
        with pytest.raises(DataError, match=r"metadata.json': no such file"):
            load(tmp_path)

    @pytest.mark.parametrize(("damage", "problem"), [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: os.truncate(str(path), 3000), "is truncated: it has 3,000 bytes"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "has changed")])
    def test_shards_are_checked_at_the_start(self, tmp_path, damage, problem):
        damage(write(tmp_path) / "train-000001.tar")
        with pytest.raises(DataError, match=rf"train-000001.tar' {problem}") as caught:
            load(tmp_path, split="train")
        assert "ipucnn data verify" in caught.value.hint
        assert len(load(tmp_path, split="validation")) == 6

    def test_another_number_of_samples_than_was_written(self, tmp_path):
        names = write_split(tmp_path, "train", [sample(number) for number in range(8)])
        save(tmp_path, names, 7)
        data = load(tmp_path, split="train")
        assert data.label(3) == 0
        with pytest.raises(DataError, match=r"train-000001.tar'.*its sample 1: it holds 4 samples"
                                            r" and was written with 3"):
            data.image(5)

    def test_a_shard_deleted_during_the_epoch(self, tmp_path):
        data = load(write(tmp_path), split="train")
        assert data.image(0) is not None
        for name in ("train-000000.tar", "train-000001.tar"):
            (tmp_path / name).unlink()
        assert data.image(3) is not None  # it is open
        with pytest.raises(DataError, match=r"train-000001.tar'.*sample 2: no such file"):
            data.encoded(6)
        assert data.name(6) == f"{tmp_path}/train-000001.tar/#2"

    def test_bad_samples_are_skipped_and_named(self, tmp_path):
        def damaged(number, kind):
            if number == 2:
                return sample(number, jpg=jpeg(2)[:300])
            if number == 3:
                return sample(number, jpg=None)
            return sample(number, **({"json": b"{"} if number == 5 else {}))

        data = load(write(tmp_path, make=damaged), split="train")
        with HostLoader(data, Preprocessing(32), 4, range(10), workers=2, skip_bad=True) as loader:
            found = [index for batch in loader for index in batch.indices]
        assert found == [0, 1, 4, 6, 7, 8, 9]
        assert [name for name, _ in loader.skipped] == [
            f"{tmp_path}/train-{place}" for place in
            ("000000.tar/2.jpg", "000000.tar/3.*", "000001.tar/5.jpg")]
        for (name, reason), expected in zip(loader.skipped, (
                "cannot decode", "it has no image (it has: cls, json)", "'json' is damaged")):
            assert name in reason
            assert expected in reason

    @pytest.mark.parametrize("text", [b'{"bbox": [0, 0, 2, 1]}', b'{"bbox": "x"}',
                                      b'{"image_id": "7"}', b'{"image_id": 9223372036854775808}'])
    def test_bad_descriptions(self, tmp_path, text):
        data = load(write(tmp_path, make=lambda number, kind: sample(number, json=text)))
        with pytest.raises(DataError, match=r"is (not a bounding box|no number of an image)"):
            data.encoded(0)

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"no pickle", jpeg(1)])
    @pytest.mark.parametrize("kind", ["npy", "pth"])
    def test_bad_pixels(self, tmp_path, kind, content):
        data = load(write(tmp_path, kind=kind,
                          make=lambda number, kind: sample(number, kind, **{kind: content})))
        with pytest.raises(DataError, match=rf"pixels of .*validation-000000.tar/0.{kind}"):
            data.image(0)

    def test_objects_in_pixels_are_not_made(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        data = load(write(tmp_path / "data", kind="pth",
                          make=lambda number, kind: sample(number, kind,
                                                           pth=pickle.dumps(Evil()))))
        with pytest.raises(DataError):
            data.image(0)
        assert not (tmp_path / "made").exists()


def _in_child(data, queue):
    queue.put(seen(data))


class TestConcurrency:
    def test_many_threads(self, tmp_path):
        data = load(write(tmp_path, train=60, per_shard=7, kind="npy"), split="train")
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda _: seen(data), range(8)))
        assert results == [list(range(60))] * 8

    def test_open_files_are_bounded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dataset, "_MOST_SHARDS", 3)
        data = load(write(tmp_path, train=40, per_shard=1, kind="npy"), split="train")
        before = len(os.listdir("/proc/self/fd"))
        assert seen(data) == list(range(40))
        assert len(os.listdir("/proc/self/fd")) <= before + 3
        del data
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_more_shards_than_the_old_example_had(self, tmp_path):
        folder = write_old(tmp_path, train=1251, validation=1, per_shard=1, kind="npy", boxes=False)
        assert len(load(folder, split="train")) == 1251

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_other_processes(self, tmp_path, method):
        data = load(write(tmp_path, kind="npy"))
        assert seen(data) == list(range(6))
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(data, queue))
        child.start()
        assert queue.get(timeout=60) == list(range(6))
        child.join()

    def test_a_lock_held_at_the_fork_blocks_no_process(self, tmp_path):
        data = load(write(tmp_path, kind="npy"))
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        with data._kept._lock:
            child = context.Process(target=_in_child, args=(data, queue))
            child.start()
        assert queue.get(timeout=60) == list(range(6))
        child.join()

    def test_pickled(self, tmp_path):
        data = load(write(tmp_path, kind="npy"), class_names=("cat", "bee", "ant"))
        data.image(0)
        again = pickle.loads(pickle.dumps(data))
        assert seen(again) == list(range(6))
        assert [again.label(i) for i in range(3)] == [2, 1, 0]
        assert again.order(1, 2).tolist() == data.order(1, 2).tolist()


def test_a_name_that_is_not_text(tmp_path):
    folder = os.fsencode(str(tmp_path)) + b"/\xff"
    os.mkdir(folder)
    shutil.move(str(write(tmp_path / "x")), os.fsdecode(folder + b"/y"))
    data = load(os.path.join(os.fsdecode(folder), "y"))
    assert re.search(r"\\xff/y/validation-000000.tar/0.jpg", data.name(0))


@pytest.mark.parametrize(("text", "message"), [
    ('{"train_length": 1e30, "validation_length": 0}', "1e+30 is no number of samples"),
    (f'{{"train_length": {10 ** 30}, "validation_length": 0}}', "is no number of samples"),
    ('{"train_length": -1, "validation_length": 0}', "-1 is no number of samples"),
    ('{"train_length": 1e400, "validation_length": 0}', "1e400 is not a finite number"),
    ('{"train_length": NaN, "validation_length": 0}', "NaN is not a finite number"),
    ('{"train_length": true, "validation_length": 0}', "True is no number of samples"),
    (f'{{"train_length": {"9" * 5000}}}', "a number of 5,000 digits is too large"),
    ("[" * 100_000, "nested too deeply"),
    ('{"train_length": 1, "validation_length": 0, "classes": "ab"}', "'ab' is no list of texts"),
    ('{"train_length": 1, "validation_length": 0, "shards": {"train": [["../x", 1, 9, ""]]}}',
     "'../x' is no shard's name"),
    ('{"train_length": 1, "validation_length": 0, "shards": {"train": [["train-000000.tar", 1, '
     '9999, "../../../../x"]]}}', "'../../../../x' is no MD5"),
    ('{"train_length": 9, "validation_length": 0, "shards": {"train": [["train-000000.tar", 9, '
     f'4000, "{"0" * 32}"]]}}}}', "'train-000000.tar' of 4000 bytes cannot hold 9 samples"),
    ('{"train_length": 2, "validation_length": 0, "shards": {"train": [' + ", ".join(
        [f'["train-000000.tar", 1, 4000, "{"0" * 32}"]'] * 2) + "]}}",
     "it lists shard 'train-000000.tar' twice"),
    ("{" + " " * (1 << 26) + "}", "it is larger than 67,108,864 bytes"),
], ids=range(14))
def test_numbers_and_names_in_metadata_are_bounded(tmp_path, text, message):
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(DataError) as caught:
        load(tmp_path, split="train")
    assert message in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(("members", "message"), [
    ({"cls": b"9" * 5000}, "its file 'cls' has 5,000 bytes, more than 64"),
    ({"cls": b"9" * 30}, "is no number"),
    ({"cls": b"1_0"}, "is no number"),
    ({"json": b"[" * 100_000}, "nested too deeply"),
    ({"json": b'{"image_id": ' + b"9" * 5000 + b"}"}, "a number of 5,000 digits"),
    ({"json": b'{"bbox": [1e400, 0, 1, 1]}'}, "1e400 is not a finite number"),
    ({"json": b" " * (1 << 20) + b"{}"}, "its file 'json' has 1,048,578 bytes"),
], ids=range(7))
def test_numbers_in_samples_are_bounded(tmp_path, members, message):
    write(tmp_path, train=1, validation=0,
          make=lambda number, kind: sample(number, kind, **members))
    with pytest.raises(DataError) as caught:
        load(tmp_path, split="train", num_classes=3).image(0)
    assert message in caught.value.message


def test_ids_beyond_the_precision_of_floats_stay_exact(tmp_path):
    number = 2 ** 53 + 1
    write(tmp_path, train=1, validation=0, make=lambda at, kind: sample(
        at, kind, json=json.dumps({"image_id": number}).encode()))
    assert load(tmp_path, split="train").image_id(0) == number
