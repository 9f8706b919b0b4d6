"""Shards on a server as a user meets them: training, validation, inference, errors."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image
from servers import FaultyServer

from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry, use
from ipucnn.data import DatasetRequest
from ipucnn.data.remote import shard_cache
from ipucnn.data.remote.transfer import Patience

PER_SHARD = 4
MODEL = ["--model", "resnet8-cifar", "--input-size", "32", "--precision", "full",
         "--batch-size", "4", "--progress", "off"]
TRAINING = [*MODEL, "--data", "webdataset", "--epoch", "1", "--lr", "0.05"]


def shard(numbers):
    """Return an archive of images of two classes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in numbers:
            image = io.BytesIO()
            pixels = random.Random(number).getrandbits(8 * 40 * 40 * 3).to_bytes(40 * 40 * 3, "big")
            Image.frombytes("RGB", (40, 40), pixels).save(image, "JPEG")
            for name, content in (("jpg", image.getvalue()), ("cls", b"%d" % (number % 2))):
                member = tarfile.TarInfo(f"{number:03d}.{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 images to train on in 6 shards, 8 to validate in 2."""
    folder = tmp_path_factory.mktemp("served")
    shards = {}
    for split, count in (("train", 24), ("validation", 8)):
        rows = shards[split] = []
        for first in range(0, count, PER_SHARD):
            content = shard(range(first, first + PER_SHARD))
            rows.append([f"{split}-{len(rows):06d}.tar", PER_SHARD, len(content),
                         hashlib.md5(content).hexdigest()])
            (folder / rows[-1][0]).write_bytes(content)
    (folder / "metadata.json").write_text(json.dumps({
        "train_length": 24, "validation_length": 8, "format": "img", "version": 1,
        "classes": ["even", "odd"], "boxes": False, "shards": shards}))
    return folder


@pytest.fixture
def server(folder, monkeypatch, tmp_path):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_cache, "PATIENCE", Patience(timeout=0.3, attempts=4, pause=0.01))
    monkeypatch.chdir(tmp_path)
    with FaultyServer(folder) as running:
        yield running
    use(None)


def made(server, **request):
    spec = registry().get_typed(DatasetSpec, "webdataset")
    return registry().make(spec, DatasetRequest(data_dir=server.url, **request))


def test_a_training_and_validation_are_those_of_the_folder(cli, server, folder, tmp_path):
    cache = ["--data-cache-dir", "mine", "--data-cache-size", "20M"]
    found = []
    for number, place in enumerate(([folder], [server.url, *cache])):
        code, out, err = cli("train", *TRAINING, "--data-dir", *place,
                             "--checkpoint-path", f"trained-{number}")
        assert code == 0, err
        found.append(re.findall(r"(?:loss|accuracy|Accuracy|top-5).*", out))
    assert found[0] == found[1]
    assert any("on test set" in line for line in found[0])
    assert sorted(server.requests)[2:] == sorted(path.name for path in folder.glob("*.tar"))
    # what one place was trained on, the other validates
    assert cli("validate", "--checkpoint-path", "trained-1", "--data-dir", folder)[0] == 0
    code, out, err = cli("validate", "--checkpoint-path", "trained-0", "--data-dir", server.url,
                         *cache)
    assert code == 0, err
    assert re.findall("Accuracy on test set.*", out)[0] in found[0]
    assert server.count("validation-000000.tar") == 1, "it was in the cache"


def test_only_checkpoints_contain_credentials(cli, server):
    url = server.url.replace("//", "//me:s3cr@") + "/?sig=s3cr"
    code, out, err = cli("train", *TRAINING, "--data-dir", url, "--checkpoint-path", "trained",
                         "--json")
    assert code == 0, err
    assert "s3cr" not in out + err
    found = [path for path in Path("trained").iterdir() if b"s3cr" in path.read_bytes()]
    assert {path.suffix for path in found} == {".pt"}
    code, out, err = cli("restore", "--checkpoint-path", "trained", "--epoch", "2")
    assert code == 0, err
    assert "s3cr" not in out + err


def test_whatever_passes_changes_nothing(cli, server, tmp_path):
    faults = [500, ("stall", 2000), ("cut", 3000), "wrong", 503]
    for number in range(6):
        server.faults[f"train-{number:06d}.tar"].extend(
            [faults[number % 5], faults[(number + 2) % 5]])
    server.faults["metadata.json"].extend([503, ("stall", 10)])
    server.faults["validation-000001.tar"].extend([("stall", 0), ("cut", 1)])
    code, _, err = cli("train", *TRAINING, "--data-dir", server.url, "--data-cache-dir",
                       tmp_path / "mine")
    assert code == 0, err
    assert sum(path.suffix == ".tar" for path in (tmp_path / "mine").rglob("*")) == 8
    assert not (tmp_path / "cache" / "streams").exists()


@pytest.mark.parametrize("how", ["refused", "stall", 500])
def test_a_server_that_ends(cli, server, how):
    server.faults["validation-000001.tar"].clear()
    if how == "refused":
        server.faults["metadata.json"].append("dies")
    else:
        server.always = ("stall", 100) if how == "stall" else how
        server.faults["metadata.json"].append("well")
    begin = time.monotonic()
    code, _, err = cli("run", *MODEL, "--data", "webdataset", "--weights", "random", "--data-dir",
                       server.url)
    assert code == 1, err
    assert f"{server.url}/validation-00000" in err
    assert "(attempt 4 of 4)" in err
    assert time.monotonic() - begin < 30


def test_skipped_samples_of_a_shard_that_cannot_be_had_are_counted(cli, server):
    server.faults["validation-000001.tar"].extend([404] * 20)
    code, out, err = cli("run", *MODEL, "--data", "webdataset", "--weights", "random",
                         "--data-dir", server.url, "--skip-bad-samples", "--json")
    assert code == 0, err
    assert json.loads(out)["skipped"]["count"] == PER_SHARD


def fetched(server, count):
    """Return the requests after the metadata, once there are this many."""
    until = time.monotonic() + 10
    while len(server.requests) <= count and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)  # one too many would follow
    return server.requests[1:]


def test_the_next_shard_of_the_epoch_is_downloaded_ahead(server, monkeypatch):
    monkeypatch.setattr("ipucnn.plugins.datasets._webdataset.dataset.BUFFER", 1)
    dataset = made(server, split="train")
    order = dataset.order(3, 0)
    shards = list(dict.fromkeys(int(index) // PER_SHARD for index in order))
    dataset.image(int(order[0]))
    assert fetched(server, 2) == [f"train-{number:06d}.tar" for number in shards[:2]]


def test_or_in_an_evaluation_the_next_one_of_all(server):
    dataset = made(server, split="train")
    for number in (4, 1, 2):
        dataset.image(number * PER_SHARD)
    assert fetched(server, 4) == [f"train-{number:06d}.tar" for number in (4, 1, 2, 3)]


def test_a_cache_that_holds_one_shard_is_enough(cli, server, folder, tmp_path):
    largest = max(path.stat().st_size for path in folder.glob("*.tar"))
    code, _, err = cli("train", *TRAINING, "--data-dir", server.url, "--data-cache-size", largest)
    assert code == 0, err
    code, _, err = cli("train", *TRAINING, "--data-dir", server.url, "--data-cache-size", "1K")
    assert code == 1
    assert "more than the cache" in err


def test_old_shards_are_not_listed(cli, server, folder, tmp_path):
    old = json.loads((folder / "metadata.json").read_text())
    del old["shards"]
    (tmp_path / "metadata.json").write_text(json.dumps(old))
    server.folder = tmp_path
    code, _, err = cli("train", *TRAINING, "--data-dir", server.url)
    assert code == 1
    assert f"'{server.url}/metadata.json' does not list the shards" in err
    assert "ipucnn data convert" in err


@pytest.mark.parametrize(("words", "what"), [
    (["--data", "image_folder", "--data-dir", "{url}"], "not read from a URL"),
    (["--data", "webdataset", "--data-dir", "{folder}", "--data-cache-size", "20G"],
     "'--data-cache-size'"),
    (["--data", "webdataset", "--data-dir", "{folder}", "--data-cache-dir", "here"],
     "'--data-cache-dir'"),
    (["--data", "webdataset", "--data-dir", "nowhere://me:secret@localhost/x"],
     "scheme 'nowhere' of 'nowhere://localhost/x' is unknown"),
    (["--data", "webdataset", "--data-dir", "https:///x"],
     "'https:///x' is not an http or https address"),
])
def test_what_has_no_meaning_is_refused(cli, server, folder, words, what):
    words = [word.format(url=server.url, folder=folder) for word in words]
    code, _, err = cli("run", *MODEL, "--weights", "random", *words)
    assert code == 2, err
    assert what in err
    assert "secret" not in err
    assert server.requests == []


def test_an_interrupt_is_not_kept_waiting_by_a_silent_server(server, tmp_path):
    server.faults["validation-000000.tar"].append(("stall", 100))
    server.reached.clear()
    process = subprocess.Popen(
        [sys.executable, "-m", "ipucnn", "run", *MODEL, "--data", "webdataset", "--weights",
         "random", "--data-dir", server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while not server.count("validation-000000.tar") and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1)  # now it waits for the rest
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert time.monotonic() - begin < 25, "the server may be silent for 30 seconds"
        assert b"Traceback" not in err
    finally:
        process.kill()
        process.wait()
