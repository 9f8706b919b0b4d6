"""Micro-batches of inference that an engine computes in calls of fewer images."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy
import pytest
import torch

from ipucnn.__main__ import invoke
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.registry import registry
from ipucnn.inference import session_rate, tuning
from ipucnn.plugins.backends import _calls
from tests.plugins.backends.engine_checks import SIZE, images_of

ENGINES = [pytest.param(name, marks=pytest.mark.skipif(
    find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("torch", "onnxruntime", "openvino")]

RUN = ["run", "--model", "resnet8-cifar", "--weights", "random", "--num-classes", "5", "--data",
       "generated", "--iterations", "2", "--batch-size", "12", "--precision", "full", "--no-tune",
       "--json", "--progress", "off"]


@pytest.fixture(autouse=True)
def two_threads(threads):
    threads(2)


@pytest.fixture
def small(monkeypatch):
    """Let images of 32 pixels count as those of 224 pixels."""
    monkeypatch.setattr(_calls, "_SIDE", 32)


def _session(name, plan, module, **values):
    known = registry()
    spec = known.get("backend", name)
    backend = known.make(spec, options=known.options_class(spec)(**values))
    return backend.inference(module, plan, SIZE)


@pytest.mark.parametrize(("batch", "usual", "measured"), [
    (1, 1, [1]), (2, 2, [2]), (3, 3, [3]), (16, 4, [4, 1, 16]), (64, 4, [4, 1, 16, 64]),
    (17, 17, [17]), (10, 2, [2, 10]), (12, 4, [4, 1, 12])])
def test_a_micro_batch_is_divided_evenly(batch, usual, measured):
    assert _calls.usual_images(batch, 224) == usual
    assert _calls.measured_images(batch, 224) == measured


@pytest.mark.parametrize(("size", "usual"), [(32, 64), (112, 16), (224, 4), (300, 2), (600, 2)])
def test_small_images_are_many(size, usual):
    assert _calls.usual_images(64, size) == usual


def test_many_threads_take_more_images(threads):
    threads(16)
    assert _calls.usual_images(64, 224) == 32
    assert _calls.usual_images(16, 224) == 16


def test_a_divided_plan_has_the_same_combined_batch():
    plan = ExecutionPlan(micro_batch=12, device_iterations=2, replicas=4, instances=2,
                         calls_in_flight=3, precision="32.32")
    made = _calls.divided(plan, 224, None, on_cpu=True)
    assert (made.micro_batch, made.combined_batch, made.local_batch) == (4, 96, 48)
    assert made.calls_in_flight == 36
    whole = _calls.divided(plan, 224, None, on_cpu=False)
    assert (whole.micro_batch, whole.combined_batch) == (12, 96)


@pytest.mark.parametrize("engine", ENGINES)
def test_predictions_do_not_depend_on_the_images_of_a_call(engine, capsys, tmp_path, small):
    found = {}
    for words in ((), ("--images-per-call", "1"), ("--images-per-call", "100")):
        path = tmp_path / "answers.csv"
        code = invoke([*RUN, "--backend", engine, "--predictions", str(path), *words])
        out, err = capsys.readouterr()
        assert code == 0, err
        result = json.loads(out)
        assert (result["images"], result["iterations"]) == (24, 2)
        assert result["plan"]["micro_batch"] == 12
        found[result["session"]["images_per_call"]] = [
            line.split(",")[:3] for line in path.read_text().splitlines()]
    assert sorted(found) == [1, 4, 12]
    assert found[1] == found[4] == found[12]


@pytest.mark.parametrize("engine", ENGINES)
def test_another_number_must_divide_the_micro_batch(engine, capsys):
    assert invoke([*RUN, "--backend", engine, "--images-per-call", "5"]) == 2
    error = capsys.readouterr().err
    assert "'--images-per-call 5' does not divide a micro-batch of 12" in error
    assert "1, 2, 3, 4, 6, 12" in error


class Compared(torch.nn.Module):
    """Subtracts the mean of the batch: its outputs depend on all images."""

    batch_dependent = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = images.float().mean((2, 3))
        return features - features.mean(0, keepdim=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_compares_images_is_not_divided(engine, small):
    plan = ExecutionPlan(micro_batch=8, precision="32.32", normalisation="none")
    images = images_of(8)
    expected = Compared()(images)
    with _session(engine, plan, Compared()) as session:
        assert _calls.usual_images(8, SIZE) < 8
        assert session.samples_per_call == 8
        session.compile()
        assert torch.allclose(session(images), expected, atol=1e-3)
    with pytest.raises(UsageError, match="8 images"):
        _session(engine, plan, Compared(), images_per_call=4)


def test_batch_norm_without_running_statistics_is_not_divided(small):
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3, track_running_stats=False),
                                torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model[0].weight.data = torch.tensor([1.0, 2.0, 3.0])
    images = images_of(8)
    expected = model.eval()(images.float())
    plan = ExecutionPlan(micro_batch=8, precision="32.32", normalisation="none")
    with _session("torch", plan, model) as session:
        assert session.samples_per_call == 8
        assert torch.allclose(session(images), expected, atol=1e-3)


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_a_file_of_one_batch_size_is_not_divided(engine, capsys, tmp_path, small):
    path = str(tmp_path / "network.onnx")
    assert invoke(["export", "--model", "resnet8-cifar", "--weights", "random", "--num-classes",
                   "5", "--batch-size", "12", "--output", path, "--target", "onnxruntime"]) == 0
    words = ["run", "--onnx", path, *RUN[7:], "--backend", engine]
    capsys.readouterr()
    assert invoke(words) == 0
    assert json.loads(capsys.readouterr().out)["session"]["images_per_call"] == 12
    assert invoke([*words, "--images-per-call", "4"]) == 2
    assert "have 12 images" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_a_file_of_one_image_within_is_computed_in_calls_of_one(engine, capsys, tmp_path, small):
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.numpy_helper
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
         helper.make_node("Reshape", ["mean", "one"], ["flat"]),
         helper.make_node("Relu", ["flat"], ["logits"])], "graph",
        [info("images", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [info("logits", onnx.TensorProto.FLOAT, ["n", 3])],
        [numbers.from_array(numpy.array([1, 3]), "one")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
              str(tmp_path / "one.onnx"))
    words = ["run", "--onnx", str(tmp_path / "one.onnx"), *RUN[7:], "--backend", engine]
    assert invoke(words) == 1
    assert "try '--images-per-call 1'" in capsys.readouterr().err
    assert invoke([*words, "--images-per-call", "1"]) == 0


def test_stages_in_several_processes_compute_whole_micro_batches():
    from ipucnn.plugins.backends.torch.options import TorchOptions
    from ipucnn.plugins.backends.torch.pipeline_inference import PipelineInferenceSession

    stage = SimpleNamespace(_options=TorchOptions(images_per_call=1))
    with pytest.raises(UsageError, match="pipeline stages"):
        PipelineInferenceSession._in_calls(stage, None, ExecutionPlan(), SIZE, None)
    stage._options = TorchOptions()
    plan = ExecutionPlan(micro_batch=64)
    assert PipelineInferenceSession._in_calls(stage, None, plan, SIZE, None) is plan


def test_a_file_of_one_batch_size_is_measured_with_it(capsys, tmp_path, small, monkeypatch):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, info = onnx.helper, onnx.helper.make_tensor_value_info
    for name, batch in (("any", "n"), ("one", 32)):
        graph = helper.make_graph(
            [helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
             helper.make_node("Flatten", ["mean"], ["logits"])], "graph",
            [info("images", onnx.TensorProto.FLOAT, [batch, 3, 32, 32])],
            [info("logits", onnx.TensorProto.FLOAT, [batch, 3])])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)],
                                    ir_version=8), str(tmp_path / f"{name}.onnx"))
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(session_rate, "SECONDS", 0.01)
    monkeypatch.setattr(tuning, "ROUNDS", 1)

    def session(name, *words):
        code = invoke(["run", "--onnx", str(tmp_path / f"{name}.onnx"), "--batch-size", "32",
                       "--backend", "onnxruntime", "--data", "generated", "--iterations", "1",
                       "--precision", "full", "--json", "--progress", "off", *words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)["session"]

    assert session("any", "--tune")["images_per_call"] < 32
    assert session("one")["images_per_call"] == 32  # the measurement is for the other file
    tuned = session("one", "--tune")
    assert list(tuned["measured"]) == ["--backend onnxruntime"]
    assert tuned["images_per_call"] == 32


@pytest.mark.parametrize("engine", ENGINES[1:])
@pytest.mark.parametrize(("batch", "size", "images"), [
    (128, 32, 128), (128, 224, 4), (17, 224, 17)])
def test_the_usual_images_per_call_are_measured(engine, batch, size, images, threads):
    plan = ExecutionPlan(micro_batch=batch, preprocessing=Preprocessing(input_size=size))
    backend = registry().make(registry().get("backend", engine))
    first = backend.variants(plan)[0]
    assert first["images_per_call"] == images
    assert first["requests"] == (1 if batch == 17 else 4)
    threads(2, 4)  # two logical CPUs per core
    assert backend.variants(plan)[-1]["threads"] == 4
