import io
import os
import socket
import tarfile

import pytest
from PIL import Image

from ipucnn.core.errors import DataError, UnknownNameError, UsageError
from ipucnn.data.formats.sample_data import (
    URL_VARIABLE,
    GeneratedFiles,
    fetch_named,
    fetch_sample_images,
    write_made,
)


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def archive(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def names(paths):
    return [path.name for path in paths]


class TestFetch:
    def test_images_are_unpacked_once(self, file_server, tmp_path, monkeypatch):
        file_server.files["/images.tar.gz"] = archive(
            [("images/zebra.jpg", jpeg()), ("images/jay.JPG", jpeg())])
        monkeypatch.setenv(URL_VARIABLE, file_server.url + "/images.tar.gz")
        out = tmp_path / "data" / "images"
        fetched = fetch_named("Sample_Images", str(out))
        assert names(fetched) == ["jay.JPG", "zebra.jpg"]
        assert sorted(os.listdir(out)) == ["jay.JPG", "zebra.jpg"]
        with Image.open(fetched[0]) as image:
            assert image.size == (8, 8)
        assert fetch_named("sample-images", str(out)) == fetched
        assert file_server.requests == ["/images.tar.gz"]

    def test_hostile_members_stay_inside(self, file_server, tmp_path):
        file_server.files["/x.tar"] = archive([
            ("../../evil.jpg", jpeg()), ("/abs/evil2.jpg", jpeg()), ("link.jpg", "/etc/passwd"),
            ("run.sh", b"#!/bin/sh"), (".hidden.jpg", jpeg()), ("a/same.jpg", jpeg()),
            ("b/same.jpg", jpeg())], mode="w")
        out = tmp_path / "deep" / "er" / "out"
        fetched = fetch_sample_images(out, file_server.url + "/x.tar")
        assert names(fetched) == ["6-same.jpg", "evil.jpg", "evil2.jpg", "same.jpg"]
        assert all(path.parent == out and not path.is_symlink() for path in fetched)
        assert sorted(path.name for path in tmp_path.rglob("evil*")) == ["evil.jpg", "evil2.jpg"]

    def test_unknown_name(self):
        with pytest.raises(UsageError, match=r"'imagenet'.*sample-images"):
            fetch_named("imagenet")

    def assert_helpful(self, caught, out):
        assert "--data-dir" in caught.value.hint
        assert "ipucnn data shapes" in caught.value.hint
        assert not out.exists()

    def test_no_network(self, tmp_path):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/images.tar.gz"
            with pytest.raises(DataError, match="cannot fetch the sample images") as caught:
                fetch_sample_images(tmp_path / "out", url)
        self.assert_helpful(caught, tmp_path / "out")

    def test_missing_on_the_server(self, file_server, tmp_path):
        with pytest.raises(DataError, match="404") as caught:
            fetch_sample_images(tmp_path / "out", file_server.url + "/none.tar.gz")
        self.assert_helpful(caught, tmp_path / "out")

    @pytest.mark.parametrize("damage", ["html", "truncated", "flipped"])
    def test_not_an_archive(self, file_server, tmp_path, damage):
        data = bytearray(archive([("a.jpg", os.urandom(9000)), ("b.jpg", os.urandom(9000))]))
        if damage == "html":
            data = b"<html>log in first</html>"
        elif damage == "truncated":
            data = data[:len(data) // 2]
        else:
            data[12:40] = b"\xff" * 28
        file_server.files["/x.tar.gz"] = bytes(data)
        with pytest.raises(DataError, match="not a tar archive, or a damaged one") as caught:
            fetch_sample_images(tmp_path / "out", file_server.url + "/x.tar.gz")
        self.assert_helpful(caught, tmp_path / "out")

    def test_a_negative_size_is_damage(self, file_server, tmp_path):
        data = bytearray(archive([("a.jpg", jpeg())], mode="w"))
        data[124:136] = b"\xff" * 10 + (-512 % 65536).to_bytes(2, "big")
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        file_server.files["/x.tar"] = bytes(data)
        with pytest.raises(DataError, match="not a tar archive, or a damaged one") as caught:
            fetch_sample_images(tmp_path / "out", file_server.url + "/x.tar")
        self.assert_helpful(caught, tmp_path / "out")

    def test_archive_without_images(self, file_server, tmp_path):
        file_server.files["/x.tar.gz"] = archive([("readme.txt", b"hello")])
        with pytest.raises(DataError, match="no images in") as caught:
            fetch_sample_images(tmp_path / "out", file_server.url + "/x.tar.gz")
        self.assert_helpful(caught, tmp_path / "out")

    def test_folder_that_is_a_file(self, file_server, tmp_path):
        file_server.files["/x.tar.gz"] = archive([("a.jpg", jpeg())])
        (tmp_path / "out").write_text("")
        with pytest.raises(DataError, match=r"cannot write '.*out'"):
            fetch_sample_images(tmp_path / "out", file_server.url + "/x.tar.gz")


class TestWriteMade:
    def test_folders_of_real_jpegs(self, tmp_path):
        out = tmp_path / "shapes"
        assert write_made("shapes", str(out), GeneratedFiles(per_class=2, size=24)) == 16
        files = sorted(out.glob("*/*.jpg"))
        assert len(files) == 16
        assert {path.parent.name for path in files} >= {"circle", "star"}
        for path in files:
            with Image.open(path) as image:
                assert (image.format, image.size, image.mode) == ("JPEG", (24, 24), "RGB")

    def test_training_and_validation_images(self, tmp_path):
        def write(**more):
            return write_made("shapes", str(tmp_path), GeneratedFiles(
                per_class=2, size=24, **{"validation_per_class": 1, **more}))

        assert write() == 24
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".ipucnn.json", "train", "validation"]
        files = {split: sorted((tmp_path / split).glob("*/*.jpg")) for split in
                 ("train", "validation")}
        assert {split: len(paths) for split, paths in files.items()} == {
            "train": 16, "validation": 8}
        contents = [path.read_bytes() for paths in files.values() for path in paths]
        assert len(set(contents)) == 24
        assert write() == 24
        assert [path.read_bytes() for paths in files.values() for path in paths] == contents
        with pytest.raises(DataError, match="is not empty"):
            write(validation_per_class=2)
        with pytest.raises(DataError, match="is not empty"):
            write(validation_per_class=0)

    def test_the_same_call_again_does_nothing(self, tmp_path):
        out = str(tmp_path)
        write_made("shapes", out, GeneratedFiles(per_class=1, size=16, seed=3))
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
        assert write_made("shapes", out, GeneratedFiles(per_class=1, size=16, seed=3)) == 8
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")} == before

    def test_an_incomplete_folder_is_completed(self, tmp_path):
        write_made("shapes", str(tmp_path), GeneratedFiles(per_class=1, size=16))
        victim = next(tmp_path.rglob("*.jpg"))
        content = victim.read_bytes()
        victim.unlink()
        assert write_made("shapes", str(tmp_path), GeneratedFiles(per_class=1, size=16)) == 8
        assert victim.read_bytes() == content

    @pytest.mark.parametrize("parameters", [{"seed": 1}, {"size": 17}, {"per_class": 2}])
    def test_other_parameters_do_not_mix(self, tmp_path, parameters):
        write_made("shapes", str(tmp_path), GeneratedFiles(per_class=1, size=16))
        with pytest.raises(DataError, match=r"is not empty.*--out"):
            write_made("shapes", str(tmp_path), GeneratedFiles(
                **{"per_class": 1, "size": 16, **parameters}))
        assert len(list(tmp_path.rglob("*.jpg"))) == 8

    def test_a_folder_with_other_things_is_refused(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(DataError, match="is not empty"):
            write_made("shapes", str(tmp_path), GeneratedFiles(per_class=1, size=16))
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        for out in ("file", "file/below"):
            with pytest.raises(DataError, match="cannot write"):
                write_made("shapes", str(tmp_path / out), GeneratedFiles(per_class=1, size=16))

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
    def test_full_disk(self, tmp_path):
        out = tmp_path / "out"
        for name in ("bar", "circle"):
            (out / name).mkdir(parents=True)
        # as an interrupted call leaves it, but with a device that is always full
        (out / ".ipucnn.json").write_text(
            '{"parameters": {"dataset": "shapes", "per_class": 1, "size": 16, "seed": 0, '
            '"quality": 90}, "complete": false}')
        (out / "bar" / "0.jpg").symlink_to("/dev/full")
        with pytest.raises(DataError, match=r"cannot write.*no space left"):
            write_made("shapes", str(out), GeneratedFiles(per_class=1, size=16))

    def test_datasets_that_cannot_be_written(self, tmp_path):
        with pytest.raises(DataError, match="'generated' has no classes"):
            write_made("generated", str(tmp_path / "x"), GeneratedFiles(per_class=1, size=16))
        with pytest.raises(UnknownNameError, match="'shape'"):
            write_made("shape", str(tmp_path / "x"), GeneratedFiles(per_class=1, size=16))
        assert not (tmp_path / "x").exists()
