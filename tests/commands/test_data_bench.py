"""`ipucnn data bench` as a user meets it; how long things take is not asserted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from PIL import Image

from ipucnn.__main__ import invoke
from ipucnn.benchmarking import compute
from ipucnn.benchmarking.bench_result import Loading, waiting
from ipucnn.benchmarking.compute import Compute
from ipucnn.benchmarking.host import STEPS, step_by_step
from ipucnn.benchmarking.job import bench
from ipucnn.benchmarking.options import BenchOptions
from ipucnn.core.options.building import build
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.registry import use
from ipucnn.data import DatasetRequest
from ipucnn.data.augment import TrainTransform
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.prepare import PIXELS, Preparation
from ipucnn.plugins.datasets._folder_images import make as make_folder
from ipucnn.plugins.datasets.generated import make as make_generated

TESTS = Path(__file__).resolve().parents[1]
TINY = ["--plugin", str(TESTS / "tiny_plugin.py"), "--model", "tiny", "--precision", "full",
        "--backend", "torch", "--compute-batch-size", "2"]
COUNT = 16

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """JPEG files in class folders."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "2", "--size",
                   "40"]) == 0
    return folder


@pytest.fixture
def cli(capfd, pictures):
    def run(*argv, code=0, data="image_folder", folder=pictures):
        where = ["--data", data, *(["--data-dir", str(folder)] if folder else [])]
        found = invoke(["data", "bench", *where, "--input-size", "24", *map(str, argv)])
        out, err = capfd.readouterr()
        assert found == code, err
        assert "Traceback" not in err
        return out, err

    return run


def measured(cli, *argv, **how):
    return json.loads(cli(*argv, "--json", **how)[0])


@pytest.mark.parametrize("job", ["train", "inference"])
def test_every_step_and_the_loader_are_measured_against_bare_decoding(cli, job):
    result = measured(cli, "--job", job, "--batch-size", "5", "--dataloader-worker", "1", "3",
                      "--result", "kept.json")
    assert result["format"] == "ipucnn.data-bench/1"
    assert (result["images"], result["samples"], result["batch_size"]) == (COUNT, COUNT, 5)
    assert (result["job"], result["pixels"], result["mode"]) == (job, "uint8", "threads")
    assert list(result["steps"]) == list(STEPS)
    assert all(rate > 0 for rate in result["steps"].values())
    assert [row["workers"] for row in result["loading"]] == [1, 3]
    for row in result["loading"]:
        assert row["images_per_second"] > 0
        assert row["limit"] > 0
        assert row["ratio"] > 0
    assert (result["compute"], result["waiting"], result["notes"]) == (None, None, [])
    assert json.loads(Path("kept.json").read_text()) == result


def test_a_table_for_people(cli):
    out, err = cli("--dataloader-worker", "1", *TINY)
    for word in ("image_folder", "16 of 16 per pass, for training", "24 pixels, uint8",
                 "libjpeg-turbo", *STEPS, "workers", "ratio", "tiny on torch", "of its time"):
        assert word in out
    assert "error" not in err


def test_the_format_of_a_folder_is_recognised(pictures, tmp_path):
    from ipucnn.benchmarking.options import BenchOptions

    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    for folder, data in ((pictures, "image_folder"), (tmp_path, "imagenet")):
        assert build(BenchOptions, {"data_dir": str(folder)}).dataset.data == data


@pytest.mark.parametrize(("samples", "expected"), [(1, 1), (7, 7), (100, COUNT)])
def test_every_pass_goes_through_the_same_number_of_images(pictures, samples, expected):
    reported = []
    result = bench(build(BenchOptions, {
        "data": "image_folder", "data_dir": str(pictures), "input_size": 24, "samples": samples,
        "iterations": 3, "dataloader_worker": [1, 2]}), progress=lambda *now: reported.append(now))
    assert result.samples == expected
    total = expected * (1 + 3 * 2 * 2)  # the steps; loader and decoding, 3 times, for 2 counts
    assert reported[-1] == ("measure", total, total)
    assert [done for _, done, _ in reported] == sorted(done for _, done, _ in reported)


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("files", [True, False])
def test_what_is_timed_is_what_the_loader_does(pictures, pixels, train, files):
    request = DatasetRequest(data_dir=str(pictures) if files else None, input_size=24, length=4)
    dataset = (make_folder if files else make_generated)(request)
    prepare = Preparation(dataset, Preprocessing(24),
                          TrainTransform(24, 3, dataset) if train else None, pixels)
    with HostLoader(dataset, Preprocessing(24), 4, range(4), workers=1, transform=prepare.transform,
                    pixels=pixels) as loader:
        (batch,) = loader
    for index in range(4):
        out = numpy.empty(prepare.shape, prepare.type)
        had_file, seconds = step_by_step(prepare, index, out)
        assert had_file == files
        assert len(seconds) == len(STEPS)
        assert numpy.array_equal(out, batch.images[index].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("rates", "computes", "workers", "share"), [
    ({1: 100.0, 2: 150.0}, 600.0, 2, 0.75), ({1: 100.0, 2: 90.0}, 125.0, 1, 0.2),
    ({1: 100.0}, 100.0, 1, 0.0), ({1: 100.0}, 20.0, 1, 0.0), ({1: 100.0}, 0.0, 1, 0.0)])
def test_what_a_model_waits(rates, computes, workers, share):
    found = waiting([Loading(count, rate) for count, rate in rates.items()], computes)
    assert (found.workers, found.images_per_second) == (workers, rates[workers])
    assert found.share == pytest.approx(share)


@pytest.mark.parametrize("job", ["train", "inference"])
def test_a_model_is_measured_without_data(cli, job):
    result = measured(cli, "--job", job, *TINY)
    model, wait = result["compute"], result["waiting"]
    assert (model["model"], model["backend"], model["precision"], model["batch_size"]) == (
        "tiny", "torch", "32.32", 2)
    assert model["images_per_second"] > 0
    best = max(row["images_per_second"] for row in result["loading"])
    assert wait["images_per_second"] == best
    assert wait["share"] == pytest.approx(max(0, 1 - best / model["images_per_second"]))


@pytest.mark.parametrize(("computes", "argv", "message"), [
    (1e9, [], ["wait for images 100 % of its time", "ipucnn data convert"]),
    (1e9, ["--normalization-location", "host"], ["'--normalization-location device'"]),
    (1e-6, [], [])])
def test_waiting_for_images_has_a_hint(cli, monkeypatch, computes, argv, message):
    monkeypatch.setattr(compute, "training", lambda given, registry: lambda: Compute(
        "tiny", "torch", "CPU", "32.32", 2, computes))
    _, err = cli(*TINY, *argv)
    assert all(words in err for words in message)
    assert ("note: " in err) == bool(message)


@pytest.mark.parametrize("data", ["generated", "shapes"])
def test_a_dataset_without_files_has_no_limit(cli, data):
    result = measured(cli, "--samples", "6", data=data, folder=None)
    assert result["samples"] == 6
    assert result["steps"]["read"] is None
    assert all(row["limit"] is None and row["ratio"] is None for row in result["loading"])
    assert any("no limit by bare decoding: the dataset gives pixels" in note
               for note in result["notes"])


@pytest.mark.parametrize("data", ["webdataset", "imagenet"])
def test_shards_are_measured_as_what_they_are(cli, pictures, tmp_path, capfd, data):
    shards = tmp_path / "shards"
    assert invoke(["data", "convert", "--data", "image_folder", "--source", str(pictures),
                   "--target", str(shards), "--samples-per-shard", "5"]) == 0
    capfd.readouterr()
    result = measured(cli, "--iterations", "1", data=data, folder=shards)
    assert (result["images"], result["samples"]) == (COUNT, COUNT)
    assert all(row["ratio"] > 0 for row in result["loading"])


def test_files_that_are_no_jpeg_have_no_limit(cli, tmp_path):
    (tmp_path / "pngs" / "a").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "pngs" / "a" / "1.png")
    result = measured(cli, folder=tmp_path / "pngs")
    assert [row["limit"] for row in result["loading"]] == [None] * len(result["loading"])
    assert [note for note in result["notes"] if "1.png' is not a JPEG" in note]


def test_bad_images_stop_it_or_are_counted(cli, pictures, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(str(pictures), str(folder))
    path = sorted(folder.rglob("*.jpg"))[3]
    path.write_bytes(path.read_bytes()[:200])
    bad = str(path)
    _, err = cli(folder=folder, code=1)
    assert bad in err
    assert "--skip-bad-samples" in err
    result = measured(cli, "--skip-bad-samples", folder=folder)
    assert result["samples"] == COUNT - 1
    assert result["skipped"]["count"] == 1
    assert result["skipped"]["first"][0][0] == bad


@pytest.mark.parametrize(("argv", "how", "code", "message"), [
    ([], {"folder": "nowhere"}, 1, "'nowhere' does not exist"),
    ([], {"folder": "."}, 1, "layout: --data-dir/<class>/"),
    ([], {"data": "imagenet", "folder": None}, 2, "name it with '--data-dir'"),
    ([], {"data": "synthetic", "folder": None}, 2, "nothing to measure on the host"),
    ([], {"data": "nope", "folder": None}, 2, "unknown dataset 'nope'"),
    ([], {"data": "shapes"}, 2, "'--data-dir' cannot be used"),
    (["--model", "nope"], {}, 2, "unknown model 'nope'"),
    (["--precision", "half"], {}, 2, "'--precision' is for the computing of a model"),
    (["--backend", "torch"], {}, 2, "'--backend' is for the computing of a model"),
    (["--compute-batch-size", "4"], {}, 2, "add '--model NAME'"),
    (["--dataloader-worker", "1", "0"], {}, 2, "'0' is too small"),
    (["--samples", "0"], {}, 2, "'0' is too small"),
    (["--dataloader-mode", "sync", "--backend", "torch"], {}, 2,
     "is an option of backend poptorch; this run uses torch"),
    (["--dataloader-rebatch-size", "4"], {}, 2, "or '--dataloader-mode'"),
    (["--disable-async-loading", "--dataloader-mode", "async", "--backend", "poptorch"], {}, 2,
     "leave one of them out"),
    (["--eight-bit-io", "--normalization-location", "host"], {}, 2, "exclude each other"),
    (["--job", "inference", "--precision", "16.32", "--model", "resnet18"], {}, 2, "'16.32'"),
])
def test_what_cannot_be_measured(cli, argv, how, code, message):
    assert message in cli(*argv, code=code, **how)[1]


def test_instances_of_poprun_are_refused(cli, monkeypatch):
    monkeypatch.setenv("POPDIST_NUM_TOTAL_REPLICAS", "2")
    assert "poprun started 2" in cli(code=2)[1]


def test_spellings_of_the_old_tool(cli, pictures):
    result = measured(
        cli, "--imagenet-data-path", str(pictures), "--normalization-location", "ipu",
        "--eight-bit-io", "--num-workers", "2", "--iterations", "1", folder=None)
    assert (result["pixels"], [row["workers"] for row in result["loading"]]) == ("uint8", [2])


def test_several_numbers_of_workers_are_for_this_command_only(pictures, capfd):
    assert invoke(["run", "--model", "tiny", "--data", "real", "--data-dir", str(pictures),
                   "--dataloader-worker", "1", "2"]) == 2
    assert "unexpected" in capfd.readouterr().err


@pytest.mark.parametrize(("argv", "mode"), [
    (["--disable-async-loading"], "disable-async-loading"),
    (["--dataloader-mode", "rebatched", "--dataloader-rebatch-size", "3"], "rebatched")])
def test_the_processes_of_poptorch_are_measured(cli, poptorch_double, argv, mode):
    use(None)
    result = measured(cli, "--backend", "poptorch", "--batch-size", "5", "--iterations", "1",
                      "--dataloader-worker", "1", *argv)
    assert result["mode"] == mode
    assert result["loading"][0]["images_per_second"] > 0
    assert result["loading"][0]["limit"] > 0


ENDLESS = '''
from ipucnn.data import ImageDataset
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec


class Endless(ImageDataset):
    def __len__(self):
        return 10**6

    def image(self, index):
        import time, torch
        if index == 70:
            open("begun", "w").close()
        time.sleep(0.01)
        return torch.zeros(3, 24, 24, dtype=torch.uint8)

    def name(self, index):
        return str(index)


@hookimpl
def ipucnn_datasets():
    return [DatasetSpec(name="endless", summary="slow", target=lambda request: Endless())]
'''


@pytest.mark.parametrize("samples", ["1000000", "71"])  # within the steps, and within the loader
def test_ctrl_c_ends_it(tmp_path, samples):
    (tmp_path / "endless.py").write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, "-m", "ipucnn", "--plugin", "endless.py", "data", "bench", "--data",
         "endless", "--samples", samples, "--job", "inference", "--iterations", "100000"],
        cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        limit = time.monotonic() + 120
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
