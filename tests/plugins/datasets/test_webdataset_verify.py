"""`ipucnn data verify` on folders of shards."""

import hashlib
import json
import os

import pytest
from shard_folders import CLASSES, digest, sample, write, write_old, write_shard
from typer.testing import CliRunner

from ipucnn.cli import application
from ipucnn.data.formats.verify import verification, verify


def damage(path):
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


class TestNewFolders:
    @pytest.mark.parametrize("kind", ["jpg", "npy"])
    def test_nothing_wrong(self, tmp_path, kind):
        assert verify(str(write(tmp_path, kind=kind))) == []
        assert verify(str(tmp_path), "imagenet") == []

    def test_each_is_named(self, tmp_path):
        write(tmp_path, train=20)
        os.truncate(str(tmp_path / "train-000000.tar"), 1000)
        (tmp_path / "train-000001.tar").unlink()
        damage(tmp_path / "train-000002.tar")
        with (tmp_path / "train-000003.tar").open("ab") as file:
            file.write(b"x")
        write_shard(tmp_path / "train-000005.tar", [sample(1)])
        write_shard(tmp_path / "validation-000007.tar", [sample(1)])
        (tmp_path / "notes.txt").write_text("mine")
        problems = verify(str(tmp_path))
        for problem, (name, text) in zip(problems, [
                ("train-000000.tar", "is truncated: it has 1,000 bytes and was written with"),
                ("train-000001.tar", "is missing"),
                ("train-000002.tar", "has changed: its MD5 was"),
                ("train-000003.tar", "has changed: it has"),
                ("train-000005.tar", "is not in metadata.json"),
                ("validation-000007.tar", "is not in metadata.json")]):
            assert f"{tmp_path}/{name}' {text}" in problem
        assert len(problems) == 6

    @pytest.mark.parametrize(("change", "text"), [
        ({"classes": CLASSES[:2]}, "its label 2 is none of 2 classes"),
        ({"make": lambda number, kind: sample(number, kind, cls=None)}, "it has no label ('cls')")])
    def test_labels_that_no_training_takes(self, tmp_path, change, text):
        problems = verify(str(write(tmp_path, **change)))
        assert problems
        assert all(text in problem for problem in problems)

    def test_unchanged_shards_are_read_too(self, tmp_path):
        write(tmp_path, train=20)
        path = tmp_path / "metadata.json"
        content = json.loads(path.read_text())
        for row, damaged in zip(content["shards"]["train"], (
                lambda data: b"-0000001000\0".join((data[:124], data[136:])),  # a header's size
                lambda data: bytes(len(data)))):
            data = damaged((tmp_path / row[0]).read_bytes())
            (tmp_path / row[0]).write_bytes(data)
            row[3] = hashlib.md5(data).hexdigest()
        content["checksum"] = digest(tmp_path)
        path.write_text(json.dumps(content))
        problems = verify(str(tmp_path))
        assert len(problems) == 2
        assert "train-000000.tar' cannot be read: " in problems[0]
        assert "train-000001.tar' holds 0 samples, and metadata.json states " in problems[1]

    @pytest.mark.parametrize("kind", ["jpg", "npy", "pth"])
    def test_images_are_decoded(self, tmp_path, kind):
        def make(number, kind):
            found = sample(number, kind)
            return {**found, kind: found[kind][:-40]} if number == 5 else found

        write(tmp_path, kind=kind, make=make)
        training, validation = verify(str(tmp_path))
        assert f"{tmp_path}/train-000001.tar/5.{kind}'" in training
        assert f"{tmp_path}/validation-000001.tar/5.{kind}'" in validation

    def test_damaged_metadata(self, tmp_path):
        path = write(tmp_path) / "metadata.json"
        text = path.read_text()
        content = json.loads(text)
        content["checksum"] = "0" * 32
        path.write_text(json.dumps(content))
        (problem,) = verify(str(tmp_path))
        assert "its checksum does not match its shards" in problem
        path.write_text(text[:-30])
        (problem,) = verify(str(tmp_path))
        assert "metadata.json' is damaged" in problem

    def test_the_command(self, tmp_path):
        write(tmp_path)
        good = CliRunner().invoke(application(), ["data", "verify", str(tmp_path)])
        assert good.exit_code == 0
        (tmp_path / "train-000001.tar").unlink()
        bad = CliRunner().invoke(application(), ["data", "verify", str(tmp_path), "--json"],
                                 standalone_mode=False)
        assert bad.return_value == 1
        assert "train-000001.tar' is missing" in json.loads(bad.stdout)["problems"][0]


class TestOldFolders:
    @pytest.mark.parametrize("instances", [0, 2])
    @pytest.mark.parametrize("kind", ["jpg", "pth"])
    def test_nothing_wrong(self, tmp_path, kind, instances):
        assert verify(str(write_old(tmp_path, kind=kind, instances=instances))) == []

    def test_without_a_checksum_what_can_be_is_checked(self, tmp_path):
        """The first converter wrote none."""
        path = write_old(tmp_path) / "metadata.json"
        content = json.loads(path.read_text())
        del content["checksum"]
        path.write_text(json.dumps(content))
        found = verification(str(tmp_path))
        assert (found.ok, found.problems) == (True, [])
        assert "has no checksum" in found.notes[0]
        os.truncate(str(tmp_path / "train-000001.tar"), 700)
        found = verification(str(tmp_path))
        assert "train-000001.tar' cannot be read" in found.problems[0]
        assert not any("has changed" in problem for problem in found.problems)

    def test_samples_that_cannot_be_read(self, tmp_path):
        """A folder of shards of another program, with metadata written by hand."""
        write_shard(tmp_path / "train-000000.tar", [
            sample(0), sample(1, cls=b"dog"), sample(2, jpg=None)])
        (tmp_path / "metadata.json").write_text('{"train_length": 3, "validation_length": 0}')
        label, image = verify(str(tmp_path))
        assert "train-000000.tar/1.jpg': its label b'dog' is no number" in label
        assert "train-000000.tar/2.*': it has no image (it has: cls, json)" in image

    def test_a_checksum_made_after_the_copies(self, tmp_path):
        path = write_old(tmp_path, instances=2) / "metadata.json"
        content = json.loads(path.read_text())
        assert content["checksum"] != digest(tmp_path)
        path.write_text(json.dumps({**content, "checksum": digest(tmp_path)}))
        assert verify(str(tmp_path)) == []

    def test_truncated(self, tmp_path):
        os.truncate(str(write_old(tmp_path) / "train-000001.tar"), 3000)
        shard, total, changed = verify(str(tmp_path))
        assert "train-000001.tar' cannot be read: it is truncated" in shard
        assert "the train shards in" in total
        assert "hold 6 samples, and metadata.json states 10" in total
        assert "has changed" in changed

    def test_missing_and_changed(self, tmp_path):
        (write_old(tmp_path) / "train-000001.tar").unlink()
        problems = verify(str(tmp_path))
        assert "train-000001.tar' is missing" in problems[0]
        assert len(problems) == 3

    def test_changed_pixels(self, tmp_path):
        path = write_old(tmp_path) / "train-000001.tar"
        write_shard(path, [sample(number, cls=str(len(CLASSES)).encode()) for number in range(4)])
        (problem,) = verify(str(tmp_path))
        assert "has changed: its files do not match the checksum" in problem
