"""PopTorch's own data loader as a source of images: the same batches, from real processes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ipucnn.__main__ import invoke
from ipucnn.core.errors import DataError, IpucnnError, PluginError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.registry import use
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.augment import TrainTransform
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.session_loader import feed
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.datasets._folder_images import make
from ipucnn.training.checkpoints.stored import load_stored

ROOT = Path(__file__).parents[3]
DOUBLES = ROOT / "tests" / "doubles"
SIZE = 24
MODES = ["sync", "async", "rebatched"]


@pytest.fixture(autouse=True)
def machine(poptorch_double, monkeypatch):
    """The device that the double simulates."""
    monkeypatch.setenv("POPTORCH_DOUBLE_WORKERS", "fork")  # one test below does without
    return poptorch_double._machine.MACHINE


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """32 training and 24 validation images, as JPEG files."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "4", "--size", "40",
                   "--validation-per-class", "3"]) == 0
    return folder


def files(folder):
    return make(DatasetRequest(data_dir=str(folder), input_size=SIZE, split="train"))


class Feeder:
    """Loaders of one session that runs nothing."""

    def __init__(self, mode, rebatch_size=None):
        from ipucnn.plugins.backends.poptorch.worker_processes import FedByProcesses

        self.session = FedByProcesses()
        self.session._options = PopTorchOptions(dataloader_mode=mode,
                                                dataloader_rebatch_size=rebatch_size)

    def __enter__(self):
        return lambda dataset, size, *how, **more: feed(
            self.session, dataset, ExecutionPlan(preprocessing=Preprocessing(size)), *how, **more)

    def __exit__(self, *_):
        self.session.stop_loading()
        assert not children()


def children(of=None):
    """Ids of the processes below one, those that only help multiprocessing aside."""
    parents, commands = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
            commands[int(status.parent.name)] = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        rest = text.rsplit(")", 1)[1]
        if rest.split()[0] != "Z":
            parents[int(status.parent.name)] = int(rest.split()[1])
    found, below = [], [of or os.getpid()]
    while below:
        parent = below.pop()
        for child in [c for c, p in parents.items() if p == parent]:
            below.append(child)
            found.append(child)
    helpers = ("resource_tracker", "forkserver")
    return [c for c in found if not any(f"multiprocessing.{h}" in commands[c] for h in helpers)
            or ("forkserver" in commands[c] and parents[c] != (of or os.getpid()))]


@pytest.mark.parametrize("mode", MODES)
def test_without_workers_images_are_made_in_the_calling_thread(pictures, mode):
    with Feeder(mode) as feeder, feeder(files(pictures), SIZE, 4, range(8), workers=0) as loader:
        assert type(loader) is HostLoader
        assert [batch.indices for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert not children()


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert (ours.indices, ours.labels, ours.consumed) == (
            theirs.indices, theirs.labels, theirs.consumed)
        assert torch.equal(ours.images, theirs.images)
        assert ours.images.is_contiguous(memory_format=torch.channels_last)


# -- the batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_batches_are_those_of_the_threads(pictures, mode, workers):
    """Of several epochs, in any order, with short last batches, kept until all have come."""
    dataset = files(pictures)
    transform = TrainTransform(SIZE, 7, dataset, rand_augment=1)
    passes = [(list(range(31, 0, -1)), 0), ([3, 1, 2], 1), ([5, 5, *range(14), 9, 30], 4)]
    with Feeder(mode, 3 if mode == "rebatched" else None) as loader:
        for indices, epoch in passes:
            how = {"transform": transform, "epoch": epoch}
            expected = list(HostLoader(dataset, Preprocessing(SIZE), 8, iter(indices), workers=2,
                                       **how))
            with loader(dataset, SIZE, 8, iter(indices), workers=workers, **how) as ours:
                assert_same(list(ours), expected)


@pytest.mark.parametrize("mode", MODES)
def test_processes_are_kept_from_epoch_to_epoch(pictures, mode):
    dataset = files(pictures)
    with Feeder(mode) as loader:
        seen = []
        for epoch in range(3):
            with loader(dataset, SIZE, 8, range(16), workers=1, epoch=epoch) as ours:
                list(ours)
                seen.append(sorted(children()))
        assert seen[0] == seen[1] == seen[2]
        assert len(seen[0]) >= (1 if mode == "sync" else 2)
        # what an iteration left under way does not come with the next one
        for batch in loader(dataset, SIZE, 8, range(16), workers=1):
            assert batch.indices == list(range(8))
            break
        with loader(dataset, SIZE, 8, [9, 8], workers=1) as ours:
            assert [batch.indices for batch in ours] == [[9, 8]]


@pytest.mark.parametrize("mode", MODES)
def test_one_at_a_time_and_nothing_to_do(pictures, mode):
    dataset = files(pictures)
    with Feeder(mode) as loader:
        assert list(loader(dataset, SIZE, 1, [], workers=1)) == []
        assert_same(list(loader(dataset, SIZE, 1, [4, 2], workers=1)),
                    list(HostLoader(dataset, Preprocessing(SIZE), 1, [4, 2])))


def test_a_run_longer_than_a_pass(pictures, monkeypatch):
    from ipucnn.plugins.backends.poptorch import worker_processes as module

    monkeypatch.setattr(module, "LONGEST_PASS", 8)
    dataset = files(pictures)
    wanted = [place % 32 for place in range(45)]
    with Feeder("sync") as loader:
        assert_same(list(loader(dataset, SIZE, 4, wanted, workers=2)),
                    list(HostLoader(dataset, Preprocessing(SIZE), 4, wanted)))


def test_instances_receive_all_images(pictures, monkeypatch):
    """What an instance trains on is ipucnn's business: PopTorch must not divide it once more."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    with Feeder("sync") as loader:
        batches = list(loader(files(pictures), SIZE, 4, range(12), workers=1))
    assert [i for batch in batches for i in batch.indices] == list(range(12))


# -- what cannot be read -----------------------------------------------------------------------


@pytest.fixture
def damaged(pictures, tmp_path):
    """The training images, of which 0, 6 and 7 are damaged."""
    dataset = files(pictures)
    for number in range(len(dataset)):
        source = Path(dataset.name(number))
        target = tmp_path / "damaged" / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes()[:30 if number in (0, 6, 7) else None])
    return files(tmp_path / "damaged")


@pytest.mark.parametrize("mode", MODES)
def test_bad_samples_are_skipped_as_by_the_threads(damaged, mode):
    with Feeder(mode) as loader:
        for indices, bad in ((range(32), ()), ([6, 1, 2, 6, 0, 3, 4, 5], (7,))):
            expected = HostLoader(damaged, Preprocessing(SIZE), 5, indices, skip_bad=True, bad=bad)
            ours = loader(damaged, SIZE, 5, indices, workers=1, skip_bad=True, bad=bad)
            assert_same(list(ours), list(expected))
            assert (ours.bad, ours.skipped, ours.skipped_count) == (
                expected.bad, expected.skipped, expected.skipped_count)
            assert ours.bad == (0, 6, 7)
        with pytest.raises(DataError, match="none of the images"):
            list(loader(damaged, SIZE, 5, [0, 6], workers=1, skip_bad=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_bad_sample_is_named(damaged, mode):
    with Feeder(mode) as loader, loader(damaged, SIZE, 3, range(1, 32), workers=1) as ours:
        batches = iter(ours)
        assert next(batches).indices == [1, 2, 3]
        with pytest.raises(DataError, match=Path(damaged.name(6)).name):
            next(batches)


class Odd(ImageDataset):
    """Not what a dataset should be."""

    def __init__(self, what=None):
        self.what = what

    def __len__(self):
        return 4

    def image(self, index):
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros((3, 5, 6), dtype=torch.float32)

    def name(self, index):
        return f"odd/{index}"


def test_a_fault_of_the_dataset_keeps_its_kind():
    with Feeder("sync") as loader, pytest.raises(PluginError, match="odd/0"):
        list(loader(Odd(), SIZE, 2, range(4), workers=1))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_worker_that_ends_is_an_error(mode):
    with Feeder(mode) as loader, pytest.raises(IpucnnError, match=f"{mode}' failed") as caught:
        list(loader(Odd("kill"), SIZE, 2, range(4), workers=1))
    assert "--dataloader-mode threads" in caught.value.hint


def test_a_dataset_that_cannot_be_sent_is_an_error():
    with Feeder("async") as loader, pytest.raises(UsageError, match="Odd") as caught:
        list(loader(Odd(lambda: 0), SIZE, 2, range(4), workers=1))
    assert "sync" in caught.value.hint


@pytest.mark.parametrize("name", ["generated", "shapes", "image_folder", "real", "cifar10",
                                  "imagenet"])
def test_built_in_datasets_can_be_sent(name, pictures, tmp_path):
    import numpy

    from ipucnn.core.registry.records import DatasetSpec
    from ipucnn.core.registry.registry import Registry
    from ipucnn.data.prepare import Preparation

    folder = {"image_folder": pictures, "real": pictures}.get(name, tmp_path)
    if name == "cifar10":
        for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            (tmp_path / f"{batch}.bin").write_bytes(bytes(range(1, 2)) * 3073 * 2)
        (tmp_path / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    if name == "imagenet":
        for split in ("train", "validation"):
            for number, source in enumerate((pictures / "train").iterdir()):
                target = tmp_path / split / f"n{number:08d}"
                target.parent.mkdir(exist_ok=True)
                target.symlink_to(source)
    registry = Registry()
    dataset = registry.resolve(registry.get_typed(DatasetSpec, name))(DatasetRequest(
        data_dir=None if name in ("generated", "shapes") else str(folder), input_size=SIZE,
        length=5 if name in ("generated", "shapes") else None, split="train"))
    prepare = Preparation(dataset, Preprocessing(SIZE),
                          TrainTransform(SIZE, 1, dataset, rand_augment=2))
    sent = pickle.loads(pickle.dumps(prepare))
    for index in (0, len(dataset) - 1):
        made = numpy.zeros((2, *prepare.shape), dtype=prepare.type)
        sent(index, 3, made[0])
        prepare(index, 3, made[1])
        assert numpy.array_equal(*made)
        assert sent.dataset.name(index) == dataset.name(index)
        assert sent.dataset.label(index) == dataset.label(index)


# -- the commands ------------------------------------------------------------------------------

TINY = ["--model", "resnet8-cifar", "--data", "image_folder", "--data-dir", "pictures",
        "--input-size", "32", "--precision", "full", "--batch-size", "4",
        "--gradient-accumulation", "2", "--epoch", "2", "--lr", "0.05", "--progress", "off",
        "--dataloader-worker", "1"]
ON_IPU = ["--backend", "poptorch"]


@pytest.fixture
def cli(pictures, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    use(None)

    def run(*argv, code=0):
        returned = invoke([str(word) for word in argv])
        out, err = capsys.readouterr()
        assert returned == code, err
        return out if not code else err

    yield run
    use(None)


def weights(folder, name):
    return load_stored(Path(folder) / f"resnet8-cifar_image_folder_{name}.pt").weights


def test_training_is_the_same_in_every_mode(cli):
    """Validation counts each image once."""
    figures = {}
    for how in ("threads", *MODES):
        figures[how] = json.loads(cli(
            "train", *TINY, *ON_IPU, "--validation-mode", "during", "--validation-frequency", "1",
            "--json", "--dataloader-mode", how, "--checkpoint-path", how))
        assert not children()
    expected, whole = figures["threads"]["validations"], weights("threads", 2)
    for mode in MODES:
        found = figures[mode]["validations"]
        assert [v["images"] for v in found] == [24, 24]
        assert [v["loss"] for v in found] == [v["loss"] for v in expected]
        for name, value in weights(mode, 2).items():
            assert torch.equal(value, whole[name]), (mode, name)


def test_training_continues_from_the_middle_of_an_epoch(cli, monkeypatch):
    common = [*TINY, *ON_IPU, "--no-validation", "--dataloader-mode"]
    cli("train", *common, "threads", "--checkpoint-path", "whole")
    calls = iter(range(100))
    with monkeypatch.context() as patch:  # a signal within the second of two epochs of four calls
        patch.setattr("ipucnn.terminal.signals.pending",
                      lambda: "SIGINT" if next(calls) > 4 else "")
        cli("train", *common, "rebatched", "--checkpoint-path", "part", code=130)
    (within,) = Path("part").glob("*.step*.pt")
    cli("restore", "--checkpoint-path", within, "--no-validation", "--progress", "off")
    whole = weights("whole", 2)
    for name, value in weights("part", 2).items():
        assert torch.equal(value, whole[name]), name


def test_inference_and_stored_checkpoints(cli, poptorch_double, monkeypatch):
    common = ["--model", "resnet8-cifar", "--weights", "random", "--data", "real",
              "--data-dir", "pictures/train", "--input-size", "32", "--batch-size", "5",
              "--precision", "full", *ON_IPU, "--dataloader-worker", "1", "--progress", "off"]
    for mode in ("threads", "sync"):
        cli("run", *common, "--dataloader-mode", mode, "--predictions", f"{mode}.csv")
    assert Path("threads.csv").read_text() == Path("sync.csv").read_text()
    assert len(Path("sync.csv").read_text().splitlines()) == 33
    cli("train", *TINY, *ON_IPU, "--no-validation", "--checkpoint-path", "c",
        "--dataloader-mode", "sync")
    stored = ["validate", "--checkpoint-path", "c/resnet8-cifar_image_folder_2.pt",
              "--progress", "off", "--json"]
    found = [json.loads(cli(*stored, "--dataloader-mode", "sync"))]
    monkeypatch.setattr(poptorch_double, "DataLoader", None)
    found.append(json.loads(cli(*stored)))  # how a training decoded images is not of the model
    assert [result["validations"][0]["images"] for result in found] == [24, 24]
    assert not children()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--backend", "torch", "--dataloader-mode", "async"],
     "'--dataloader-mode' is an option of backend poptorch; this run uses torch"),
    (["--backend", "torch", "--dataloader-rebatch-size", "8"], "--dataloader-rebatch-size"),
    ([*ON_IPU, "--dataloader-rebatch-size", "8"], "--dataloader-mode rebatched"),
    ([*ON_IPU, "--dataloader-mode", "fast"], "rebatched"),
])
def test_what_has_no_meaning_is_refused(cli, arguments, message):
    assert message in cli("train", *TINY, "--no-validation", *arguments, code=2)


@pytest.mark.parametrize(("mode", "number"), [
    ("async", signal.SIGINT), ("sync", signal.SIGINT), ("async", signal.SIGKILL)])
def test_no_process_is_left_behind(pictures, tmp_path, mode, number):
    """A terminal sends Ctrl-C to every process; the host finishes its step and saves."""
    folder = tmp_path / "c"
    path = os.pathsep.join([str(DOUBLES), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "ipucnn", "train", *TINY, *ON_IPU, "--data-dir", str(pictures),
         "--dataloader-mode", mode, "--epoch", "500", "--no-validation",
         "--checkpoint-save-steps", "1", "--keep-last", "2", "--checkpoint-path", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1",
                                     "POPTORCH_DOUBLE_TORCH": "any",
                                     "POPTORCH_DOUBLE_WORKERS": ""})
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    started = children(process.pid)
    assert started
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    _out, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "Warning" not in err
    deadline = time.monotonic() + 30
    while any(map(alive, started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in started if alive(pid)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# -- the double --------------------------------------------------------------------------------


class Places(torch.utils.data.Dataset):
    """Sample i is i."""

    def __len__(self):
        return 10

    def __getitem__(self, place):
        return torch.tensor([place])


def test_double_has_the_rules_of_the_real_loader(machine, poptorch_double, monkeypatch):
    loader = poptorch_double.DataLoader
    options = poptorch_double.Options().deviceIterations(2)
    whole = loader(options, Places(), 2)
    assert (whole.combinedBatchSize, len(whole)) == (4, 2)
    assert [batch.flatten().tolist() for batch in whole] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(AttributeError, match="frozen"):
        options.deviceIterations(3)
    with pytest.warns(UserWarning, match="not divisible"):
        assert len(loader(options, Places(), 2, drop_last=False)) == 3
    with pytest.raises(AssertionError):
        loader(options, Places(), 2, mode=poptorch_double.DataLoaderMode.AsyncRebatched,
               rebatched_worker_size=5)
    with pytest.raises(TypeError):
        loader(options, Places(), 2, rebatched_size=4)
    assert loader(options, Places(), None, drop_last=False).combinedBatchSize is None
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    options = poptorch_double.Options().deviceIterations(2)  # which read the variables
    assert torch.cat(list(loader(options, Places(), 1))).flatten().tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("mode", ["Async", "AsyncRebatched"])
def test_double_takes_its_memory_back(poptorch_double, mode):
    """With `drop_last=False`, both modes rebuild the batches; the last one is short."""
    with pytest.warns(UserWarning, match="not divisible"):
        loader = poptorch_double.DataLoader(
            poptorch_double.Options(), Places(), 4, drop_last=False, rebatched_worker_size=3,
            mode=poptorch_double.DataLoaderMode[mode],
            async_options={"load_indefinitely": False})  # else the next pass fills the ring again
    kept, cloned = [], []
    for batch in loader:
        kept.append(batch)
        cloned.append(batch.flatten().tolist())
    assert len(loader) == 3
    assert cloned == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all((batch == 0xAA).all() for batch in kept)
    loader.terminate()
    assert not children()
