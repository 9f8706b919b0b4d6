"""Data, checkpoints, weights and predictions on stores, as a user meets them."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import time

import pytest
import torch
from PIL import Image
from servers import FaultyProxy

pytest.importorskip("fsspec")

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.errors import DataError
from ipucnn.core.registry.registry import use
from ipucnn.data.remote import shard_cache, store_images, stores
from ipucnn.data.remote.stores import Store
from ipucnn.data.remote.transfer import Patience
from ipucnn.models import store_paths

MODEL = ["--model", "resnet8-cifar", "--input-size", "32", "--precision", "full", "--progress",
         "off", "--backend", "torch"]
TRAINING = [*MODEL, "--batch-size", "4", "--epoch", "2", "--lr", "0.05"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """16 images of two classes, in folders and in shards."""
    folder = tmp_path_factory.mktemp("stored")
    for number in range(16):
        place = folder / "photos" / "train" / f"class{number % 2}"
        if number >= 12:
            place = folder / "photos" / "validation" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.Random(number).getrandbits(8 * 40 * 40 * 3).to_bytes(40 * 40 * 3, "big")
        Image.frombytes("RGB", (40, 40), pixels).save(place / f"{number:02d}.jpg")
    assert invoke(["data", "convert", "--source", str(folder / "photos"), "--target",
                   str(folder / "shards"), "--samples-per-shard", "4"]) == 0
    return folder


@pytest.fixture(scope="module")
def s3(photos):
    """A real S3 server that holds the images, behind a proxy that fails on request."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(variable, raising=False)
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        logging.getLogger("werkzeug").setLevel("ERROR")
        server.start()
        proxy = FaultyProxy(*server.get_host_and_port())
        for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "hidden"),
                            ("DEFAULT_REGION", "us-east-1"), ("ENDPOINT_URL", proxy.url),
                            ("EC2_METADATA_DISABLED", "true"), ("MAX_ATTEMPTS", "1")):
            patch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("bucket")
        system.put(str(photos) + "/", "bucket/", recursive=True)
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.stop()
        server.stop()


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store_images, "_listings", {})
    monkeypatch.setattr(store_paths, "_folders", {})
    for module in (stores, shard_cache):
        monkeypatch.setattr(module, "PATIENCE", Patience(timeout=2, attempts=4, pause=0.01))

    def run(*argv):
        code = invoke([str(word) for word in argv])
        out, err = capsys.readouterr()
        assert "hidden" not in out + err
        return code, out, err

    yield run
    use(None)


@pytest.fixture
def memory():
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def figures(out):
    return re.findall(r"(?:loss|accuracy|Accuracy|top-5).*", out)


def weights(content):
    import io

    return torch.load(io.BytesIO(content), weights_only=True)["model"]


def test_a_training_on_s3_is_that_of_folders(cli, s3, photos, tmp_path):
    code, out, err = cli("train", *TRAINING, "--data-dir", photos / "photos", "--checkpoint-path",
                         "here")
    assert code == 0, err
    expected = figures(out)
    code, out, err = cli("train", *TRAINING, "--data-dir", "s3://bucket/photos",
                         "--checkpoint-path", "s3://bucket/run")
    assert code == 0, err
    assert figures(out) == expected
    assert "s3://bucket/run/resnet8-cifar_image_folder_2.pt" in out
    own = weights((tmp_path / "here" / "resnet8-cifar_image_folder_2.pt").read_bytes())
    there = weights(Store("s3://bucket/run").read("resnet8-cifar_image_folder_2.pt", 10**8))
    assert all(torch.equal(own[name], there[name]) for name in own)
    code, _, err = cli("restore", "--checkpoint-path", "s3://bucket/run", "--epoch", "3",
                       "--progress", "off")
    assert code == 0, err
    assert "restoring 's3://bucket/run/resnet8-cifar_image_folder_2.pt'" in err
    code, out, err = cli("validate", "--checkpoint-path", "s3://bucket/run", "--progress", "off")
    assert code == 0, err
    assert [f"image_folder_{epoch}.pt, epoch" in out for epoch in (1, 2, 3)] == [True] * 3
    code, out, err = cli("average", "--checkpoint-path", "s3://bucket/run")
    assert code == 0, err
    assert "s3://bucket/run/resnet8-cifar_image_folder_3_averaged.pt" in out
    code, out, err = cli("run", "--weights", "s3://bucket/run", "--data-dir", "s3://bucket/photos",
                         "--predictions", "s3://bucket/p/found.csv", "--progress", "off",
                         "--backend", "torch", "--precision", "full")
    assert code == 0, err
    assert "accuracy" in out, "the classes of the folder are those of the weights"
    rows = Store("s3://bucket/p").read("found.csv", 10**6).decode().splitlines()
    assert len(rows) == 5
    assert rows[1].startswith("s3://bucket/photos/validation/class0/12.jpg,")
    assert not list((tmp_path / "cache" / "predictions").rglob("*.csv"))
    code, out, err = cli("watch", "s3://bucket/run", "--once")
    assert code == 0, err
    assert "s3://bucket/run   completed" in out
    code, out, err = cli("runs", "s3://bucket", "--json", "--filter", "epoch=3")
    (found,) = json.loads(out)["runs"]
    assert (found["folder"], found["state"]) == ("s3://bucket/run", "completed")
    assert abs(time.time() - found["changed"]) < 300
    assert Store("s3://bucket/run").read("report.html", 10**7).startswith(b"<!doctype html>")
    code, out, err = cli("report", "s3://bucket/run", "--text")
    assert code == 0, err
    assert "s3://bucket/run" in out
    code, out, err = cli("show", "s3://bucket/run/resnet8-cifar_image_folder_1.pt")
    assert (code, err) == (0, "")


def test_shards_on_s3_are_those_of_a_folder_whatever_passes(cli, s3, photos, tmp_path):
    code, out, err = cli("train", *TRAINING, "--data-dir", photos / "shards", "--no-checkpoints")
    assert code == 0, err
    expected = figures(out)
    s3.faults["train-000000.tar"].extend(["well", ("cut", 3000)])
    s3.faults["train-000001.tar"].extend([503, ("stall", 100)])
    s3.faults["metadata.json"].extend([503])
    code, out, err = cli("train", *TRAINING, "--data-dir", "s3://bucket/shards",
                         "--no-checkpoints")
    assert code == 0, err
    assert figures(out) == expected
    assert not any(s3.faults.values())
    assert len(list((tmp_path / "cache" / "streams").rglob("*.tar"))) == 4


def test_an_s3_server_that_fails_for_good_is_one_line(cli, s3):
    for fault in (403, 503):
        s3.faults["metadata.json"].extend([fault] * 99)
        code, _, err = cli("train", *TRAINING, "--data", "webdataset", "--data-dir",
                           "s3://bucket/shards", "--no-checkpoints")
        s3.faults.clear()
        assert code == 1
        assert re.search("^error: cannot fetch 's3://bucket/shards/metadata.json': .+", err, re.M)
        assert "Traceback" not in err
    code, _, err = cli("train", *TRAINING, "--data-dir", "s3://none/photos", "--no-checkpoints")
    assert code == 1
    assert "there is nothing in folder 's3://none/photos'" in err


def test_a_training_whose_store_fails_continues(cli, s3):
    s3.faults["resnet8-cifar_image_folder_1.pt"].extend([503] * 4)
    code, _, err = cli("train", *TRAINING, "--data-dir", "s3://bucket/photos",
                       "--checkpoint-path", "s3://bucket/failing", "--no-validation")
    assert code == 0, err
    assert "cannot write 's3://bucket/failing/resnet8-cifar_image_folder_1.pt'" in err
    names = [entry.name for entry in Store("s3://bucket/failing").listing()]
    assert [name for name in names if name.endswith(".pt")] == [
        "resnet8-cifar_image_folder_1.pt", "resnet8-cifar_image_folder_2.pt"]


# -- without a server --------------------------------------------------------------------------


def test_all_of_it_in_memory(cli, memory, photos):
    memory.put(str(photos) + "/", "/", recursive=True)
    code, out, err = cli("train", *TRAINING, "--data-dir", "memory://photos",
                         "--checkpoint-path", "memory://run", "--keep-last", "1")
    assert code == 0, err
    assert "memory://run/resnet8-cifar_image_folder_2.pt" in out
    code, _, err = cli("run", "--weights", "memory://run", "--data-dir", "memory://shards",
                       "--predictions", "memory://p/found.json", "--progress", "off",
                       "--instances", "1", "--backend", "torch")
    assert code == 0, err
    assert memory.cat("/p/found.json").count(b'"path"') == 4
    model = ipucnn.load("memory://run")
    photo = photos / "photos" / "validation" / "class0" / "12.jpg"
    assert model.predict(str(photo)).names[0] in ("class0", "class1")
    assert memory.cat("/run/metrics.csv").startswith(b"kind,")


def test_a_record_of_a_training_on_a_store_with_a_user_is_continued(cli, memory, photos, tmp_path):
    words = [*TRAINING, "--data-dir", photos / "photos", "--checkpoint-path",
             "memory://me:s3cr@run", "--log-dir", tmp_path / "log"]
    assert cli("train", *words, "--epoch", "1")[0] == 0
    code, _, err = cli("restore", "--checkpoint-path", "memory://me:s3cr@run", "--log-dir",
                       tmp_path / "log", "--epoch", "2", "--progress", "off")
    assert code == 0, err
    assert not list((tmp_path / "log").glob("*.superseded"))


def test_rows_that_cannot_be_sent_are_kept(cli, memory, photos, monkeypatch, tmp_path):
    sent = Store.upload

    def upload(self, path, name):
        if not name.startswith(".writable"):
            raise DataError(f"cannot write {self.shown(name)!r}: SlowDown", "try again")
        sent(self, path, name)

    monkeypatch.setattr(Store, "upload", upload)
    code, _, err = cli("run", *MODEL, "--weights", "random", "--data-dir", photos / "photos",
                       "--predictions", "memory://p/found.csv")
    kept, = (tmp_path / "cache" / "predictions").rglob("found.csv")
    assert code == 1
    assert f"cannot write 'memory://p/found.csv': SlowDown; the rows are in '{kept}'" in err
    assert len(kept.read_text().splitlines()) == 17


@pytest.mark.parametrize(("words", "code", "message"), [
    (["train", *TRAINING, "--data-dir", "nonsense://x/y"], 2,
     "scheme 'nonsense' of 'nonsense://x/y' is unknown"),
    (["train", *TRAINING, "--data", "cifar10", "--data-dir", "memory://x"], 2,
     "dataset 'cifar10' is not read from a store ('memory://x')"),
    (["train", *TRAINING, "--data", "image_folder", "--data-dir", "http://x/y"], 2,
     "dataset 'image_folder' is not read from a URL ('http://x/y')"),
    (["restore", "--checkpoint-path", "memory://none"], 1,
     "there is no complete checkpoint in 'memory://none'"),
    (["validate", "--checkpoint-path", "memory://none/m_d_1.pt"], 1,
     "there is no checkpoint 'memory://none/m_d_1.pt'"),
    (["run", *MODEL, "--weights", "memory://none/w.pt", "--data-dir", "x"], 1,
     "there is no weights file 'memory://none/w.pt'"),
    (["train", *TRAINING, "--data-dir", "PHOTOS", "--log-dir", "memory://x"], 2,
     "'--log-dir' is a folder of this machine, and a URL is given")])
def test_wrong_places_are_one_line(cli, memory, photos, words, code, message):
    found, _, err = cli(*(str(photos / "photos") if word == "PHOTOS" else word for word in words))
    assert (found, message in err) == (code, True), err
    assert "Traceback" not in err


def test_the_format_of_a_source_on_a_store_is_recognised(cli, memory, photos, tmp_path):
    folders = [path.parent for path in sorted(photos.glob("**/metadata.json"))]
    for name, folder in (("photos", photos / "photos"), ("shards", folders[0])):
        memory.put(f"{folder}/", f"/{name}", recursive=True)
        code, _, err = cli("data", "convert", "--source", f"memory://{name}", "--target",
                           tmp_path / name)
        assert code == 0, err


@pytest.mark.parametrize(("words", "code", "message"), [
    (["data", "partition", "--data-dir", "PHOTOS", "--partitions", "2", "--output", "memory://x"],
     2, "'--output' is a folder of this machine"),
    (["data", "shapes", "--per-class", "1", "--out", "memory://x"], 2,
     "'--out' is a folder of this machine"),
    (["data", "fetch", "sample-images", "--out", "memory://x"], 2,
     "'--out' is a folder of this machine"),
    (["run", *MODEL, "--data-dir", "PHOTOS", "--result", "memory://u:p@x/r.json"], 1,
     "cannot write 'memory://x/r.json': it is a URL")])
def test_what_is_written_here_only_is_not_written_to_a_folder_named_as_a_url(
        cli, memory, photos, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    before = list(tmp_path.iterdir())
    found, _, err = cli(*(str(photos / "photos") if word == "PHOTOS" else word for word in words))
    assert (found, message in err) == (code, True), err
    assert list(tmp_path.iterdir()) == before


def test_a_missing_package_is_one_command(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    code, _, err = cli("train", *TRAINING, "--data-dir", "gs://bucket/photos")
    assert code == 2
    assert "hint: pip install 'ipucnn[gs]'" in err
