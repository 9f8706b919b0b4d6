"""`ipucnn bench` as a user meets it; how fast anything is is not asserted."""

from __future__ import annotations

import json
import mmap
import sys
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from ipucnn.benchmarking import contender_process, limits, networks, own, peer_training, peers
from ipucnn.benchmarking.case import FILES, TRAIN, Case, Contender, RefusedError
from ipucnn.benchmarking.contenders import Process
from ipucnn.benchmarking.network_options import PEERS, NetworkBenchOptions
from ipucnn.benchmarking.network_result import CaseResult, Entry, Limit, NetworkBench, Rates
from ipucnn.benchmarking.process_memory import forget_peak, peak_memory
from ipucnn.core.options.building import build
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import registry
from ipucnn.inference.measured import Record
from ipucnn.terminal import layout

SMALL = Preprocessing(input_size=32)
TINY = Case("resnet8-cifar", 2, preprocessing=SMALL)
WHOLE = Case("resnet18", 2, preprocessing=SMALL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from ipucnn.__main__ import invoke

    folder = tmp_path_factory.mktemp("data") / "photos"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "1", "--size", "40"]) == 0
    return folder / "train" if (folder / "train").is_dir() else folder


def test_help_explains_options_for_speed(cli):
    text = cli("bench", "--help").out
    assert [name for name in PEERS if name not in text] == []
    assert "  --tune  " in cli("run", "--help").out


class Turns:
    """A link that requests some turns and keeps the answers."""

    def __init__(self, wanted=2):
        self.readies, self.wanted, self.rates = 0, wanted, []

    def ready(self):
        self.readies += 1

    def wait(self):
        self.wanted -= 1
        return 0.001 if self.wanted >= 0 else None

    def done(self, images, seconds):
        self.rates.append((images, seconds))


def measured(function, name, case, batches=True):
    link = Turns()
    facts = function(name, case, link)
    assert link.readies == 1
    assert len(link.rates) == 2
    for images, seconds in link.rates:
        assert images >= case.batch_size
        assert seconds > 0
        assert not batches or images % case.batch_size == 0
    return facts


# -- one measurement with processes ----------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One measurement of a tiny network: a backend, a peer, and a peer that lacks the network."""
    from ipucnn.__main__ import invoke

    place = tmp_path_factory.mktemp("bench") / "bench.json"
    assert invoke(["--quiet", "bench", "--model", "resnet8-cifar", "--batch-size", "2", "--rounds",
                   "1", "--seconds", "0.01", "--backend", "onnxruntime", "--against", "torchvision",
                   "onnxruntime", "--progress", "off", "--out", str(place)]) == 0
    return place


def test_a_result_has_rates_ratios_limits_memory_and_reasons(written):
    found = json.loads(written.read_text())
    assert found["format"] == "ipucnn.bench/1"
    assert found["options"]["rounds"] == 1
    assert {"processor", "cores", "packages"} <= found["environment"].keys()
    [case] = found["cases"]
    assert (case["model"], case["batch_size"], case["precision"]) == ("resnet8-cifar", 2, "32.32")
    assert case["left_out"] == {"torchvision": "torchvision has no network 'resnet8-cifar'"}
    ours, peer = case["entries"]
    assert (ours["kind"], ours["name"]) == ("ipucnn", "onnxruntime")
    assert (peer["kind"], peer["name"], peer["to_best_peer"]) == ("peer", "onnxruntime", 1.0)
    assert ours["to_best_peer"] == case["ratio"] == pytest.approx(
        ours["images_per_second"]["median"] / peer["images_per_second"]["median"])
    [limit] = case["limits"]
    assert limit["what"] == "product"
    assert limit["images_per_second"]["median"] == pytest.approx(
        limit["operations_per_second"] / (2 * case["multiply_adds"]))
    for entry in case["entries"]:
        assert 20e6 < entry["peak_memory"] < 8e9
        assert entry["turns"] == [entry["images_per_second"]["median"]]
    assert ours["facts"]["backend"] == "onnxruntime"


def test_a_result_is_a_report(written, cli, tmp_path):
    page = tmp_path / "page.html"
    done = cli("report", written, "--out", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "resnet8-cifar, inference, micro-batch 2" in text
    assert "least ratio to the best other program" in text


def test_a_network_that_cannot_be_exported_is_measured_by_the_others(monkeypatch):
    # with which the file is compared
    monkeypatch.setitem(sys.modules, "ipucnn.onnx.runtime_library", None)
    result = networks.bench(build(NetworkBenchOptions, {
        "model": ["resnet8-cifar"], "batch_size": [2], "rounds": 1, "seconds": 0.01,
        "backend": ["torch"], "against": ["onnxruntime"]}))
    [case] = result.cases
    assert [entry.name for entry in case.entries] == ["torch"]
    assert case.left_out["onnxruntime"].startswith("the network cannot be exported: comparing")


def test_an_interrupt_keeps_what_is_measured():
    state = torch.get_rng_state()
    options = build(NetworkBenchOptions, {
        "model": ["resnet8-cifar"], "batch_size": [2], "rounds": 3, "seconds": 0.01,
        "backend": ["torch"]})

    def progress(_phase, done, _total):
        if done >= 2:
            raise KeyboardInterrupt("SIGTERM")

    result = networks.bench(options, progress=progress)
    assert result.stopped_by == "SIGTERM"
    [case] = result.cases
    assert [len(entry.turns) for entry in case.entries] == [1]
    assert torch.equal(torch.get_rng_state(), state)


def test_each_case_has_processes_of_its_own(cli, tmp_path, monkeypatch):
    started = []
    start = Process._start
    monkeypatch.setattr(Process, "_start", lambda self: started.append(self) or start(self))
    done = cli("bench", "--model", "resnet8-cifar", "--batch-size", "1", "2", "--rounds", "2",
               "--processes", "2", "--seconds", "0.01", "--backend", "onnxruntime", "--out",
               tmp_path / "bench.json")
    assert done.code == 0, done.err
    assert "2 rounds in each of 2 processes" in done.out
    cases = json.loads((tmp_path / "bench.json").read_text())["cases"]
    assert [case["batch_size"] for case in cases] == [1, 2]
    for case in cases:
        [entry], [limit] = case["entries"], case["limits"]
        assert len(entry["turns"]) == 4
        assert limit["operations_per_second"] > 0
    assert len({process._process.pid for process in started}) == 8  # of which half are of the limit


def test_a_contender_that_fails_is_left_out_with_its_last_output(monkeypatch):
    monkeypatch.setattr("ipucnn.benchmarking.contenders.START",
                        "import sys; print('out of luck'); sys.exit(3)")
    process = Process(Contender("peer", "torchvision"), PluginSettings())
    try:
        with pytest.raises(RefusedError, match=r"exit code 3: out of luck"):
            process.prepare(TINY)
    finally:
        process.close()


HANGS_OR_DIES = """
import os, sys, time
from multiprocessing.connection import Connection
sys.path[:] = sys.argv[3:]
parent = Connection(int(sys.argv[1]))
parent.recv()
while True:
    size = parent.recv().batch_size
    if size == 32:
        time.sleep(600)
    if size == 64:
        os._exit(9)
    parent.send(("ready",))
"""


@pytest.mark.parametrize(("size", "reason"), [(32, "no response in"), (64, "exit code 9")])
def test_a_contender_that_hangs_or_fails_is_replaced_for_the_next_case(size, reason, monkeypatch):
    monkeypatch.setattr("ipucnn.benchmarking.contenders.START", HANGS_OR_DIES)
    with closing(Process(Contender("peer", "torchvision"), PluginSettings())) as process:
        process.prepare(TINY)
        monkeypatch.setattr("ipucnn.benchmarking.contenders.PATIENCE", 0.1 if size == 32 else 60)
        with pytest.raises(RefusedError, match=reason):
            process.prepare(replace(TINY, batch_size=size))
        monkeypatch.setattr("ipucnn.benchmarking.contenders.PATIENCE", 60)
        process.prepare(TINY)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino-latency"])
def test_engines_of_contenders_have_no_telemetry(name, tmp_path, monkeypatch):
    pytest.importorskip(name.partition("-")[0])
    case = replace(TINY, onnx=networks._exported("resnet8-cifar", str(tmp_path / "graphs")))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    with closing(Process(Contender("peer", name), PluginSettings())) as process:
        process.prepare(case)
        assert process.turn(0.001) > 0
    assert not [path for path in (tmp_path / "home").rglob("*")
                if path.name.lower() in ("intel", "microsoft")]


def test_each_contender_follows_each_of_the_others():
    contenders = list("abcde")
    rounds = [networks._ordered(contenders, number) for number in range(30)]
    assert all(sorted(one) == contenders for one in rounds)
    assert rounds == [networks._ordered(contenders, number) for number in range(30)]
    followed = {pair for one in rounds for pair in zip(one, one[1:])}
    assert followed == {(a, b) for a in contenders for b in contenders if a != b}


# -- contenders, in this process -------------------------------------------------------------------


def test_a_peer_that_is_not_installed_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(contender_process.FAILURES) as raised:
        peers.inference("onnxruntime", TINY, Turns())
    assert contender_process.reason_of(raised.value).startswith("it is not installed, or cannot")


def test_backends_are_measured_by_the_calls_of_a_run():
    facts = measured(own.inference, "torch", TINY)
    assert (facts["backend"], facts["precision"], facts["in_flight"]) == ("torch", "32.32", 1)


def test_files_are_measured_by_whole_runs(photos):
    case = replace(TINY, data=FILES, folder=str(photos), samples=4)
    assert measured(own.inference, "torch", case)["backend"] == "torch"
    assert measured(limits.measured, "decoding", case) == {}


def test_files_need_no_folders_of_classes(photos, tmp_path):
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))[:3]):
        (tmp_path / f"{number}.jpg").write_bytes(path.read_bytes())
    case = replace(TINY, data=FILES, folder=str(tmp_path), samples=3)
    assert measured(own.inference, "torch", case)["backend"] == "torch"


def test_trainings_pause_between_turns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = measured(own.training, "torch", replace(TINY, job=TRAIN))
    assert facts["backend"] == "torch"
    assert list(tmp_path.iterdir()) == []


def test_torchvision_and_timm_are_called_directly(photos):
    files = replace(WHOLE, data=FILES, folder=str(photos), samples=4)
    names = ["torchvision"]
    try:
        import timm  # noqa: F401
    except ImportError:
        pass
    else:
        names.append("timm")
    for name in names:
        assert measured(peers.inference, name, WHOLE)["type"] == "float32"
        measured(peers.inference, name, files)
        measured(peer_training.training, name, replace(WHOLE, job=TRAIN))


def test_a_pass_over_files_is_made_before_the_first_one_that_is_timed(photos, monkeypatch):
    passes = []
    case = replace(WHOLE, data=FILES, folder=str(photos), samples=4)
    read = list(peers.batches(case))
    monkeypatch.setattr(peers, "batches", lambda case: passes.append(case) or read)
    link = Turns()
    monkeypatch.setattr(link, "ready", lambda: passes.append("ready"))
    peers.inference("torchvision", case, link)
    assert passes == [case, "ready", case, case]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino-latency", "openvino-throughput"])
def test_engines_are_called_directly(name, tmp_path):
    pytest.importorskip(name.partition("-")[0])
    path = networks._exported("resnet8-cifar", str(tmp_path))
    facts = measured(peers.inference, name, replace(TINY, onnx=path))
    assert facts.get("hint", "") == name.partition("-")[2]


@pytest.mark.parametrize(("name", "case", "reason"), [
    ("onnxruntime", replace(TINY, precision="int8"), "quantises no network"),
    ("timm", replace(TINY, data="generated"), "no images of '--data generated'"),
    ("openvino-latency", replace(TINY, job=TRAIN), "trains no network"),
    ("torchvision", TINY, "no network 'resnet8-cifar'")])
def test_what_a_peer_does_not_do_is_refused(name, case, reason):
    function = peer_training.training if case.job == TRAIN else peers.inference
    with pytest.raises(RefusedError, match=reason):
        function(name, case, Turns())


@pytest.mark.parametrize("function", [peers.inference, peer_training.training])
def test_fewer_files_than_a_micro_batch_are_refused(function, photos):
    case = replace(WHOLE, data=FILES, folder=str(photos), samples=1)
    with pytest.raises(RefusedError, match="a micro-batch has 2 images, and a pass 1"):
        function("torchvision", case, Turns())


@pytest.mark.skipif(peak_memory() is None, reason="no /proc")
def test_the_peak_of_memory_is_reset():
    # not from the allocator, which a command of an earlier test may have set to keep memory
    with mmap.mmap(-1, 120_000_000) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        high = peak_memory()
    forget_peak()
    assert peak_memory() < high - 60_000_000


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "error"), [
    (["--model", "resnet81"], "'resnet81'"),
    (["--backend", "openvina"], "'openvina'"),
    (["--against", "caffe"], "'caffe' is not one of its values"),
    (["--batch-size", "0"], "'0' is too small"),
    (["--train", "--backend", "auto"], "'--backend auto' is for inference"),
    (["--train", "--backend", "openvino"], "backend 'openvino' does not train"),
    (["--precision", "int8"], "needs images to calibrate with"),
    (["--precision", "16.32"], "'--precision 16.32' is for training"),
    (["--train", "--data", "generated"], "'--data generated' is for inference"),
    (["--data-dir", "missing"], "there is no folder 'missing'"),
    (["--data-dir", ".", "--data", "generated"], "contradict each other"),
    (["--samples", "3"], "'--samples' is for image files"),
    (["--quick", "--against", "timm"], "'--quick' and '--against' exclude each other")])
def test_options_that_do_not_fit_are_refused(cli, tmp_path, monkeypatch, argv, error):
    monkeypatch.chdir(tmp_path)
    done = cli("bench", *argv)
    assert done.code == 2
    assert error in done.err.splitlines()[0]


# -- output ----------------------------------------------------------------------------------------


def made_result():
    """A result with the longest names and large numbers."""
    rates = Rates(1234.5, 1200.0, 1299.9)
    case = CaseResult("efficientnet-b0", 64, "32.32", "inference", "files", 224, 10 ** 9,
                      [Limit("product", rates, "bfloat16", 1e12), Limit(
                          "decoding", Rates(999.9, 900.0, 1000.0))],
                      [Entry("ipucnn", "onnxruntime", rates, [1234.5] * 2, 0.98, 0.634, 10 ** 9),
                       Entry("peer", "openvino-throughput", rates, [1234.5] * 2, 1.0, 0.65, 10)],
                      {"timm": "ModuleNotFoundError: No module named 'timm'"})
    return NetworkBench({"rounds": 3}, {"processor": "a processor", "cores": 2, "threads": 2},
                        "2026-01-01 00:00 UTC", [case], 12.0)


def test_tables_fit_80_columns():
    result = made_result()
    for table in result.tables():
        rows = [list(map(str, row)) for row in table.rows]
        for line in layout.columns(table.headings, rows, 80).splitlines():
            assert layout.cells(line) <= 80
            assert "..." not in line
    assert "limit 999.9 images/s (decoding alone)" in result.tables()[0].title
    assert result.all_notes() == [
        "not measured: timm: ModuleNotFoundError: No module named 'timm' (efficientnet-b0)"]
    assert "openvino throughput" in repr(result)
    assert [row["contender"] for row in result.records()] == [
        "ipucnn onnxruntime", "openvino throughput"]


def test_quick_stores_what_auto_uses(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    made = own.run_options("auto", Case("resnet8-cifar", 2, precision=""))
    facts = []

    def tuned(case, registry):  # in this process
        link = Turns(0)
        facts.append(own.tuning("auto", replace(case, limit=1.0), link))
        assert link.readies == 1
        return facts[-1]

    monkeypatch.setattr(networks, "tuned", tuned)
    done = cli("bench", "--quick", "--model", "resnet8-cifar", "--batch-size", "2", "--json",
               "--progress", "off")
    assert done.code == 0, done.err
    assert "from now on, '--backend auto' uses the fastest backend" in done.err
    result = json.loads(done.out)
    assert ("measured", f"in {result['seconds']:.0f} s") in NetworkBench(**{
        name: result[name] for name in ("options", "environment", "date", "seconds")}).facts()
    [case] = result["cases"]
    assert [entry["name"] for entry in case["entries"]] == [name for name, _ in facts[0]["rates"]]
    assert case["precision"] == facts[0]["precision"]
    assert case["limits"][0]["arithmetic"] in ("float32", "bfloat16", "float16")
    kept = Record.of(made, registry(), "auto").read(registry())
    assert kept is not None
    assert [one.images_per_second for one in kept.rates] == [rate for _, rate in facts[0]["rates"]]


def test_quick_promises_nothing_that_is_not_stored(cli, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(networks, "tuned", lambda case, _: own.tuning(
        "auto", replace(case, limit=1.0), Turns(0)))
    done = cli("bench", "--quick", "--model", "resnet8-cifar", "--batch-size", "2", "--progress",
               "off")
    assert done.code == 0, done.err
    assert "note: the measurement is not stored for later runs: '" in done.err
    assert "from now on" not in done.err
