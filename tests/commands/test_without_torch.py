"""Runs of ONNX files, and of stored graphs of models, which import no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest
from PIL import Image

from ipucnn.__main__ import invoke
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.registry.registry import registry
from ipucnn.data.resize import native_resize
from ipucnn.inference.measured import Measured, Rate, Record, source_of
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.graph_cache import graph_of_run
from ipucnn.plugins.backends._gpus import may_have_gpu

pytest.importorskip("onnxruntime")
from ipucnn.plugins.backends.onnxruntime.engine import OnnxRuntimeBackend

pytestmark = pytest.mark.skipif(not native_resize(), reason="this torch resizes in float")

PROGRAM = ("import sys\nfrom ipucnn.__main__ import invoke\ncode = invoke(sys.argv[1:])\n"
           "print([name for name in ('torch', 'onnx') if name in sys.modules], file=sys.stderr)\n"
           "sys.exit(code)")
NETWORK = ["--model", "resnet8-cifar", "--weights", "random", "--num-classes", "7"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = numpy.random.default_rng(3)
    for number, size in enumerate([(40, 60), (61, 47), (32, 32)]):
        pixels = random.integers(0, 256, (*size, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(str(folder / f"{number}.jpg"), "JPEG")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


def alone(*argv, absent="torch"):
    """Run a command line in a process of its own; return whether it imported a package."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, argv)], timeout=120,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          universal_newlines=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return repr(absent) in done.stderr.splitlines()[-1]


def run(photos, target, *argv):
    return ["run", "--data-dir", photos, "--predictions", target, "--progress", "off", *argv]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "ncnn"])
def test_a_file_is_run_without_torch_and_its_answers_are_the_same(engine, photos, tmp_path):
    pytest.importorskip(engine)
    file = tmp_path / "net.onnx"
    assert invoke(["export", *NETWORK, "--output", str(file)]) == 0
    argv = ["--onnx", file, "--backend", engine]
    assert not alone(*run(photos, tmp_path / "light.csv", *argv))
    assert invoke(list(map(str, run(photos, tmp_path / "torch.csv", *argv)))) == 0
    assert (tmp_path / "light.csv").read_text() == (tmp_path / "torch.csv").read_text()


@pytest.mark.skipif(may_have_gpu(), reason="torch may find a GPU here")
def test_auto_does_not_query_torch_without_a_gpu(photos, tmp_path):
    pytest.importorskip("openvino")
    argv = [*NETWORK, "--precision", "full"]
    assert invoke(list(map(str, run(photos, tmp_path / "a.csv", *argv)))) == 0
    assert not alone(*run(photos, tmp_path / "b.csv", *argv))


def test_each_damaged_graph_of_openvino_is_stored_again(photos, tmp_path):
    pytest.importorskip("openvino")
    file = tmp_path / "net.onnx"
    assert invoke(["export", *NETWORK, "--output", str(file)]) == 0
    argv = run(photos, tmp_path / "a.csv", "--onnx", file, "--backend", "openvino")
    assert invoke(list(map(str, argv))) == 0
    answers = (tmp_path / "a.csv").read_text()
    (graph,) = (tmp_path / "cache").rglob("model.xml")
    text, weights = graph.read_bytes(), graph.with_name("model.bin")
    for path, content in [(graph, text[:-9]), (weights, None),
                          # OpenVINO's message repeats the type, which is not UTF-8
                          (graph, text.replace(b'type="Convolution"', b'type="\xff"'))]:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert invoke(list(map(str, argv))) == 0
        assert (tmp_path / "a.csv").read_text() == answers
        assert path.read_bytes() != content


def test_later_runs_find_what_openvino_has_compiled(photos, tmp_path):
    pytest.importorskip("openvino")
    file, compiled = tmp_path / "net.onnx", tmp_path / "compiled"
    assert invoke(["export", *NETWORK, "--output", str(file)]) == 0
    argv = run(photos, tmp_path / "a.csv", "--onnx", file, "--backend", "openvino",
               "--model-cache-path", compiled)
    for _ in range(2):
        assert invoke(list(map(str, argv))) == 0
        assert len(list(compiled.iterdir())) == 1


@pytest.mark.parametrize(("engine", "name"), [("onnxruntime", "weights.bin"),
                                              ("openvino", "model.bin"), ("ncnn", "network.bin")])
def test_later_runs_do_not_parse_a_graph(engine, name, photos, tmp_path):
    """With warm caches neither the engine nor the onnx package reads the ONNX file."""
    pytest.importorskip(engine)
    file = tmp_path / "net.onnx"
    assert invoke(["export", *NETWORK, "--output", str(file)]) == 0
    how = ["--onnx", file, "--backend", engine]
    assert not alone(*run(photos, tmp_path / "a.csv", *how))  # this process would use the graph
    kept = {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("*")}
    assert {path.parent.name for path in kept} >= {"networks", engine}
    assert not alone(*run(photos, tmp_path / "b.csv", *how), absent="onnx")
    assert {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("*")} == kept
    (weights,) = (tmp_path / "cache").rglob(name)
    weights.write_bytes(b"")  # a damaged graph is stored again
    assert not alone(*run(photos, tmp_path / "b.csv", *how))
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    assert weights.stat().st_size


def test_a_model_of_the_registry_is_exported_once(photos, tmp_path, cache):
    argv = [*NETWORK, "--backend", "onnxruntime"]
    assert invoke(list(map(str, run(photos, tmp_path / "first.csv", *argv)))) == 0
    (stored,) = cache.iterdir()
    written = stored.stat().st_ctime_ns
    assert not alone(*run(photos, tmp_path / "second.csv", *argv))
    assert (tmp_path / "first.csv").read_text() == (tmp_path / "second.csv").read_text()
    assert list(cache.iterdir()) == [stored]
    content = stored.read_bytes()
    stored.write_bytes(content[:1000])  # a damaged file is replaced
    assert invoke(list(map(str, run(photos, tmp_path / "third.csv", *argv)))) == 0
    assert len(stored.read_bytes()) == len(content)
    assert stored.stat().st_ctime_ns != written
    assert (tmp_path / "third.csv").read_text() == (tmp_path / "first.csv").read_text()


@pytest.mark.parametrize(("values", "random"), [
    ({"weights": "random"}, True), ({"weights": "pretrained"}, False),
    ({"weights": "pretrained", "num_classes": 10}, True),
    ({"weights": "pretrained", "weights_partial": True}, True),
    ({"weights": "file.pt", "num_classes": 10}, False),
    ({"weights": "file.pt", "num_classes": 10, "weights_partial": True}, True)])
def test_graphs_with_random_weights_are_stored_by_seed(values, random, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pt").write_bytes(b"weights")
    chosen = SimpleNamespace(backend=OnnxRuntimeBackend())
    paths = set()
    for seed in (1, 2):
        options = build(RunOptions, {"seed": seed})
        network = NetworkPart(**values)
        paths.add(graph_of_run(chosen, options, network, ExecutionPlan(), registry()).path)
    assert len(paths) == 1 + random


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "ncnn"])
def test_a_graph_that_an_engine_cannot_read_is_exported_again(engine, photos, tmp_path, cache):
    pytest.importorskip(engine)
    argv = [*NETWORK, "--backend", engine]
    for turn in range(2):
        assert invoke(list(map(str, run(photos, tmp_path / f"{turn}.csv", *argv)))) == 0
        (stored,) = cache.iterdir()
        content = stored.read_bytes()
        assert content[:4000].strip(b"#")
        stored.write_bytes(b"#" * 4000 + content[4000:])  # of the same size
        shutil.rmtree(str(cache.parent / engine))  # which would be read instead
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()


def test_a_measured_choice_imports_no_torch(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    argv = run(photos, tmp_path / "a.csv", *NETWORK, "--precision", "full")
    assert invoke(list(map(str, [*argv, "--backend", "onnxruntime", "--no-spinning"]))) == 0
    options = build(RunOptions, {"model": "resnet8-cifar", "weights": "random",
                                 "precision": "full"})
    source = source_of("torch", registry())
    Record.of(options, registry(), "auto").write(Measured("32.32", (
        Rate("onnxruntime", {"spinning": False}, 90.0, source), Rate("torch", {}, 40.0, source))))
    assert not alone(*argv)


@pytest.mark.parametrize("other", [["--seed", "1"], ["--normlayer", "none"],
                                   ["--input-size", "40"], ["--num-classes", "9"],
                                   ["--normalization-location", "host"]])
def test_another_network_is_another_file(other, photos, tmp_path, cache):
    argv = [*NETWORK, "--backend", "onnxruntime"]
    for further in ([], other):
        assert invoke(list(map(str, run(photos, tmp_path / "a.csv", *argv, *further)))) == 0
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_else(photos, tmp_path, cache):
    cache.parent.mkdir()
    cache.write_text("no folder")
    argv = run(photos, tmp_path / "a.csv", *NETWORK, "--backend", "onnxruntime")
    assert invoke(list(map(str, argv))) == 0
    assert (tmp_path / "a.csv").is_file()


def test_the_files_used_last_are_kept(photos, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("ipucnn.onnx.graph_cache.KEPT_BYTES", 500_000)  # one file has 320 kB
    argv = run(photos, tmp_path / "a.csv", *NETWORK, "--backend", "onnxruntime")
    for seed in ("0", "1"):
        assert invoke([*map(str, argv), "--seed", seed]) == 0
    assert len(list(cache.iterdir())) == 1
