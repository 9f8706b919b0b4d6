"""The popart backend's inference on the strict double."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from sample_norms import use_sample_norms
from torch import nn

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.data.normalisation import normalise
from ipucnn.inference import job as inference
from ipucnn.inference.options import RunOptions
from ipucnn.models.build import create_model
from ipucnn.onnx.job import export
from ipucnn.onnx.network import read_network
from ipucnn.onnx.options import ExportOptions
from ipucnn.plugins.backends.popart import ipucnn_backends
from ipucnn.plugins.backends.popart.engine import PopArtBackend
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.placing import module_of, stages_of
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.testing import check_plugin

DOUBLES = Path(__file__).parents[2] / "doubles"
SIZE = 32
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def machine(popart_double):
    """The device that the double simulates."""
    return popart_double._machine.MACHINE


@pytest.fixture
def made(popart_double, monkeypatch):
    """The sessions that were created with PopART."""
    sessions = []

    class Recorded(popart_double.InferenceSession):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            sessions.append(self)

    monkeypatch.setattr(popart_double, "InferenceSession", Recorded)
    return sessions


class _Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


def _model(seed=3):
    """Return a small network whose modules are called as in a ResNet."""
    torch.manual_seed(seed)
    module = nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(3, 8, 3, stride=2, bias=False), bn1=nn.BatchNorm2d(8), relu=nn.ReLU(),
        **{f"layer{i}": nn.Sequential(_Block(8), _Block(8)) for i in range(1, 5)},
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(8, 10))).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.8, 1.2)
    return module


def _images(count, size=SIZE):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(1))


PLAIN = ExecutionPlan(precision="32.32")
COMPILED = ExecutionPlan(precision="32.32", compile_only=True)


def _session(plan=PLAIN, model=None, backend=None, size=SIZE):
    return (backend or PopArtBackend()).inference(
        _model() if model is None else copy.deepcopy(model), plan, size)


def _logits(plan, images, backend=None, model=None):
    with _session(plan, model, backend, images.shape[-1]) as session:
        session.compile()
        return torch.cat([session(part) for part in images.split(session.samples_per_call)])


def _with(**options):
    return PopArtBackend(PopArtOptions(**options))


# -- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize(("plan", "count"), [
    (ExecutionPlan(precision="32.32"), 1),
    (ExecutionPlan(precision="32.32", micro_batch=2, device_iterations=2, replicas=2), 16),
    (ExecutionPlan(precision="32.32", micro_batch=2, device_iterations=2, replicas=2), 11),
    (ExecutionPlan(precision="32.32", device_iterations=3, replicas=2,
                   pipeline_splits=("layer2/0/conv2",)), 7),
    (ExecutionPlan(precision="32.32", device_iterations=4,
                   pipeline_splits=("layer1", "layer2/1", "layer4/0/bn1")), 4),
    (ExecutionPlan(precision="32.32", micro_batch=2, eight_bit_io=False), 3),
    (ExecutionPlan(precision="32.32", normalisation="none"), 2),
], ids=["one", "batches", "short last batch", "split leaf", "split containers", "float input",
        "no normalisation"])
def test_logits_are_those_of_the_torch_backend(popart_double, plan, count):
    images = _images(count) if plan.eight_bit_io else _images(count).float()
    logits = _logits(plan, images)
    assert logits.dtype == torch.float32
    assert logits.shape == (count, 10)
    expected = _logits(plan, images, TorchBackend())
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("name", "size", "split", "precisions"), [
    ("resnet18", 64, "layer3/0/bn1", ("32.32", "16.16")),
    ("mobilenet", 64, "features/9/conv/0", ("32.32", "16.16")),
    ("efficientnet-b0", 64, "_blocks/6", ("32.32", "16.16")),
    ("resnext101_32x4d", 224, "features/5", ("32.32",))])  # large, and takes no smaller images
def test_networks_of_ipucnn(popart_double, name, size, split, precisions):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, weights="random").module
    images = _images(2, size)
    for layer in model.modules():  # statistics as of a trained network, or nothing is left at all
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(normalise(_images(2 if size > 64 else 16, size)))
        expected = model.eval()(normalise(images))
    for precision in precisions:
        error = {"32.32": 2e-5, "16.16": 3e-2}[precision]
        plan = ExecutionPlan(precision=precision, device_iterations=2, pipeline_splits=(split,))
        logits = _logits(plan, images, model=model)
        assert (logits - expected).abs().max() <= error * expected.abs().max(), precision


@pytest.mark.parametrize("place", ["device", "host"])
def test_half_precision_is_float16_on_the_device(popart_double, made, place):
    plan = ExecutionPlan(micro_batch=2, normalisation=place, eight_bit_io=place == "device")
    images = _images(2)
    given = images if place == "device" else normalise(images)
    logits = _logits(plan, given)
    infos = made[-1]._infos
    assert infos["images"].data_type() == ("UINT8" if place == "device" else "FLOAT16")
    assert {info.data_type() for name, info in infos.items() if name != "images"} == {"FLOAT16"}
    with torch.no_grad():
        expected = _model()(normalise(images))
    assert 0 < (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert logits.dtype == torch.float32


def test_session_takes_the_combined_batch_and_keeps_no_hold_on_its_logits(popart_double):
    plan = ExecutionPlan(precision="32.32", micro_batch=2, device_iterations=2, replicas=2)
    images = _images(8).contiguous(memory_format=torch.channels_last)
    with _session(plan) as session:
        assert session.samples_per_call == 8
        assert session.compile() > 0
        logits = session(images)
        before = logits.clone()
        session(255 - images)
        assert torch.equal(logits, before)
        with pytest.raises(ValueError, match="9 images"):
            session(_images(9))


def test_synthetic_data_never_crosses(popart_double, made):
    plan = ExecutionPlan(synthetic=True, micro_batch=2, replicas=2)
    with _session(plan) as session:
        session.compile()
        assert session(None).shape == (4, 10)
    assert made[-1]._options.syntheticDataMode is popart_double.SyntheticDataMode.RandomNormal
    with _session(ExecutionPlan()) as session:
        session.compile()
        with pytest.raises(ValueError, match="needs images"):
            session(None)
    assert made[-1]._options.syntheticDataMode is popart_double.SyntheticDataMode.Off


# -- weights, and leaving the device -----------------------------------------------------------


@pytest.mark.parametrize("precision", ["32.32", "16.16"])
def test_other_weights_need_no_compilation(machine, precision):
    plan = ExecutionPlan(precision=precision, device_iterations=2, pipeline_splits=("layer3",))
    images = _images(2)
    with _session(plan) as session:
        session.compile()
        assert session.reloadable
        for seed in (5, 3):
            session.load(_model(seed).state_dict())
            assert torch.equal(session(images), _logits(plan, images, model=_model(seed)))
    first = [event["event"] for event in machine.events].index("compiled")
    assert [event["event"] for event in machine.events[first + 1:]].count("compiled") == 2


def test_weights_that_are_equal_are_still_weights_of_their_own(popart_double):
    model = _model()
    for block in model.layer1:
        nn.init.zeros_(block.conv2.weight)
    plan = ExecutionPlan(precision="32.32")
    with _session(plan, model) as session:
        session.compile()
        session.load(_model(5).state_dict())
        torch.testing.assert_close(session(_images(1)), _logits(plan, _images(1),
                                                                model=_model(5)), **CLOSE)


def test_pause_leaves_the_ipus_and_the_next_call_takes_them_again(machine):
    machine.ipus = 1
    images = _images(1)
    with _session() as session, _session(model=_model(5)) as other:
        session.compile()
        before = session(images)
        session.pause()
        other.compile()
        other(images)
        with pytest.raises(UnavailableError, match="no IPU is free"):
            session(images)
        other.pause()
        session.load(_model(5).state_dict())
        assert not machine.taken
        assert not torch.equal(session(images), before)
        assert torch.equal(session(images), _logits_of(other, session, images))
    assert not machine.taken


def _logits_of(session, busy, images):
    busy.pause()
    logits = session(images)
    session.pause()
    return logits


# -- stages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("node", "module"), [
    ("/conv1/Conv", "conv1"), ("/layer1/layer1.0/conv1/Conv", "layer1/0/conv1"),
    ("/layer1/layer1.0/Add", "layer1/0"), ("/_blocks.3/_bn0/Mul", "_blocks/3/_bn0"),
    ("/features/features.1/conv/conv.0/conv.0.0/Conv", "features/1/conv/0/0"),
    ("/Flatten", ""), ("Cast_19", ""), ("", "")])
def test_nodes_have_the_name_of_their_module(node, module):
    assert module_of(node) == module


class _Node:
    def __init__(self, name):
        self.name = name


def test_stages_begin_at_their_module_or_at_what_is_left_of_it():
    nodes = [_Node(name) for name in (
        "Cast_1", "/a/Conv", "/b/b.0/Conv", "/b/Add", "/Flatten", "/d/Gemm", "/a_1/Relu")]
    modules = ["a", "b", "b/0", "c", "d"]
    assert stages_of(nodes, ["b"], modules) == [0, 0, 1, 1, 1, 1, 1]
    assert stages_of(nodes, ["b", "c"], modules) == [0, 0, 1, 1, 1, 2, 2]  # c was folded into b
    with pytest.raises(UsageError, match="'c' leaves a stage empty"):
        stages_of(nodes, ["b", "c", "d"], modules)


def test_stages_are_virtual_graphs_and_pipeline_stages(popart_double, made):
    plan = ExecutionPlan(precision="32.32", device_iterations=3, replicas=2,
                         pipeline_splits=("layer2/0", "layer4"))
    with _session(plan, backend=_with(ipu_model=True)) as session:
        session.compile()
        assert session.facts["stages_begin_at"] == ["input", "layer2/0", "layer4"]
        assert session.facts["ipus"] == 6
    assert made[-1]._options.enablePipelining
    assert made[-1]._options.virtualGraphMode is popart_double.VirtualGraphMode.Manual
    stages = {}
    for node in made[-1]._model.graph.node:
        marks = {one.name: one.i for one in node.attribute}
        if node.op_type != "Constant":
            assert marks["__ipu_number"] == marks["__pipeline_stage"]
            stages.setdefault(marks["__ipu_number"], []).append(node.name)
    assert any(name.startswith("/layer1/layer1.1/") for name in stages[0])
    assert stages[1][0].startswith("/layer2/layer2.0/")
    assert stages[2][0].startswith("/layer4/layer4.0/")


@pytest.mark.parametrize(("splits", "message"), [
    (("layer9",), "unknown pipeline split 'layer9'"), (("layer3", "layer2"), "runs before")])
def test_splits_that_cannot_be_are_refused(popart_double, splits, message):
    with pytest.raises(UsageError, match=message):
        _session(ExecutionPlan(device_iterations=3, pipeline_splits=splits),
                 backend=_with(ipu_model=True))


# -- every option has its call -----------------------------------------------------------------


def _options(made, plan=PLAIN, backend=None):
    with _session(plan, backend=backend) as session:
        session.compile()
    return made[-1]._options


@pytest.mark.parametrize(("option", "value", "field", "meaning"), [
    ("half_partial", True, "partialsTypeMatMuls", "half"),
    ("half_partial", True, "convolutionOptions", {"partialsType": "half"}),
    ("enable_fast_groupnorm", True, "groupNormStridedChannelGrouping", True),
    ("prefetch_depth", 5, "defaultBufferingDepth", 5),
    ("num_io_tiles", 64, "defaultBufferingDepth", 3),
    ("num_io_tiles", 64, "useHostCopyOps", True),
    ("num_io_tiles", 64, "enableExplicitMainLoops", True),
    ("report_hw_cycle_count", True, "instrumentWithHardwareCycleCounter", True),
    ("exchange_memory_target", "balanced", "engineOptions",
     {"opt.internalExchangeOptimisationTarget": "balanced"}),
    ("profile", True, "engineOptions",
     {"autoReport.all": "true", "autoReport.directory": "poplar-profile"}),
])
def test_option_reaches_popart(popart_double, made, option, value, field, meaning):
    plan = ExecutionPlan(precision="16.16")
    assert getattr(_options(made, plan, _with(**{option: value})), field) == meaning
    assert getattr(_options(made), field) == getattr(
        popart_double.SessionOptions(), field)


def test_profile_keeps_the_other_engine_options(made):
    options = _options(made, backend=_with(profile=True, exchange_memory_target="memory"))
    assert set(options.engineOptions) == {
        "opt.internalExchangeOptimisationTarget", "autoReport.all", "autoReport.directory"}


def test_plan_values_become_options(made):
    plan = ExecutionPlan(device_iterations=2, replicas=4)
    options = _options(made, plan)
    assert made[-1].dataFlow.batchesPerStep() == 2
    assert made[-1].dataFlow.anchors() == ["logits"]
    assert (options.enableReplicatedGraphs, options.replicatedGraphCount) == (True, 4)
    assert made[-1]._info.numIpus == 4
    assert not _options(made, ExecutionPlan()).enableReplicatedGraphs


@pytest.mark.parametrize(("shares", "meaning"), [
    ((0.3,), {0: 0.3, 1: 0.3}), ((0.2, 0.4), {0: 0.2, 1: 0.4}), ((), {0: None, 1: None})])
def test_available_memory_is_per_stage(made, shares, meaning):
    plan = ExecutionPlan(device_iterations=2, pipeline_splits=("layer3",))
    _options(made, plan, _with(available_memory_proportion=shares))
    found = set()
    for node in made[-1]._model.graph.node:
        marks = {one.name: one for one in node.attribute}
        if node.op_type in ("Conv", "Gemm"):
            share = marks.get("__available_memory")
            found.add((marks["__ipu_number"].i, share and round(share.f, 6)))
    assert dict(found) == meaning
    assert len(found) == 2


def test_available_memory_without_stages(made):
    _options(made, backend=_with(available_memory_proportion=(0.25,)))
    assert {one.f for node in made[-1]._model.graph.node for one in node.attribute
            if one.name == "__available_memory"} == {0.25}


@pytest.mark.parametrize(("given", "name"), [
    (None, "Always"), ("always", "Always"), ("ondemand", "OnDemand")])
def test_when_ipus_are_taken(popart_double, made, given, name):
    _options(made, backend=_with(**({"connection_type": given} if given else {})))
    assert made[-1]._info.connectionType == getattr(popart_double.DeviceConnectionType, name)
    assert made[-1]._info.type == popart_double.DeviceType.Ipu


def test_a_cached_program_takes_the_weights_of_its_run(machine, tmp_path):
    folder = tmp_path / "a" / "cache"
    cached = _with(model_cache_path=str(folder))
    images = _images(1)
    first = _logits(PLAIN, images, cached)
    assert len(list(folder.iterdir())) == 1
    assert torch.equal(_logits(PLAIN, images, cached), first)
    assert [event["event"] for event in machine.events if "path" in event] == ["loaded"]
    torch.testing.assert_close(_logits(PLAIN, images, cached, model=_model(5)),
                               _logits(PLAIN, images, model=_model(5)), **CLOSE)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        _session(backend=_with(model_cache_path=str(tmp_path / "file" / "cache")))


def test_compile_only_fills_the_cache_and_loads_nothing(machine, made, tmp_path):
    with _session(COMPILED, backend=_with(model_cache_path=str(tmp_path))) as session:
        session.compile()
    assert not made[-1]._loaded
    assert len(list(tmp_path.iterdir())) == 1
    _logits(PLAIN, _images(1), _with(model_cache_path=str(tmp_path)))
    assert machine.events[-1]["event"] == "loaded"


@pytest.mark.parametrize(("number", "version"), [(1, "ipu1"), (2, "ipu2"), (21, "ipu21")])
def test_offline_target_compiles_without_hardware(machine, made, popart_double, number, version):
    machine.ipus = 0
    offline = _with(offline_target_ipu_version=number)
    _options(made, COMPILED, offline)
    assert made[-1]._info.type == popart_double.DeviceType.OfflineIpu
    assert made[-1]._info.ipuVersion == version
    assert offline.probe_for(COMPILED).device == f"offline target, IPU version {number}"
    assert not PopArtBackend().probe().usable


def test_ipu_model_needs_no_hardware(machine, made, popart_double):
    machine.ipus = 0
    plan = ExecutionPlan(precision="32.32", replicas=3)
    emulated = _with(ipu_model=True)
    assert "IPU model" in emulated.probe_for(plan).device
    assert _logits(plan, _images(3), emulated).shape == (3, 10)
    assert made[-1]._info.type == popart_double.DeviceType.IpuModel
    assert (made[-1]._info.numIpus, made[-1]._info.tilesPerIPU) == (3, 1472)


def test_cycles_are_reported(popart_double, cli):
    with _session(backend=_with(report_hw_cycle_count=True)) as session:
        session.compile()
        session(_images(1))
        assert session.facts["cycles"] > 0
    run = cli("run", "--backend", "popart", "--model", "resnet8-cifar", "--random-weights",
              "--data", "generated", "--iterations", "1", "--report-hw-cycle-count")
    assert re.search(r"^cycles +[1-9][0-9,]* in the last host call$", run.out, re.M), run.err


def test_every_option_of_inference_is_tried_here():
    tried = {"half_partial", "enable_fast_groupnorm", "exchange_memory_target", "prefetch_depth",
             "available_memory_proportion", "num_io_tiles", "profile", "model_cache_path",
             "offline_target_ipu_version", "connection_type", "ipu_model",
             "report_hw_cycle_count"}
    assert {item.name for item in declared(PopArtOptions)
            if item.option.only != "training"} == tried
    assert set(ipucnn_backends()[0].features) == {
        "accumulation-sum", "compile-only", "recompute", "sharding"}


# -- ONNX files --------------------------------------------------------------------------------


@pytest.fixture
def registry():
    return Registry(PluginSettings(disable_all=True))


@pytest.mark.parametrize(("dynamic", "precision"), [
    (False, "32.32"), (True, "32.32"), (False, "16.16"), (True, "16.16")])
def test_exported_files_run(popart_double, registry, tmp_path, monkeypatch, dynamic, precision):
    monkeypatch.chdir(tmp_path)
    export(build(ExportOptions, {
        "model": "resnet8-cifar", "weights": "random", "target": "popart",
        **({"dynamic_batch": True} if dynamic else {"batch_size": 2})}), registry)
    common = {"data": "generated", "iterations": 2, "batch_size": 2, "device_iterations": 3,
              "precision": precision, "model": "resnet8-cifar"}
    rows = {}
    for backend, more in (("popart", {"onnx": "models", "replicas": 2}),
                          ("torch", {"weights": "random", "replicas": 2})):
        path = tmp_path / f"{backend}.csv"
        result = inference.run(build(RunOptions, {
            "backend": backend, "predictions": str(path), **common, **more}), registry)
        assert result.images == 24
        rows[backend] = [line.split(",") for line in path.read_text().splitlines()]
    for found, wanted in zip(rows["popart"], rows["torch"]):
        # of two classes that are equal in bfloat16, either may be the better one in float16
        either = [wanted[1], wanted[4]] if wanted[3] == wanted[6] else [wanted[1]]
        assert found[0] == wanted[0]
        assert found[1] in either


def test_shapes_among_the_weights_of_a_file_become_constants(popart_double, made, tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
             helper.make_node("Reshape", ["pooled", "shape"], ["logits"])]
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(torch.tensor([1, 3]).numpy(), "shape")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    save(model, str(tmp_path / "pool.onnx"))
    plan = ExecutionPlan(precision="32.32", normalisation="none", eight_bit_io=False)
    images = _images(1, 8).float()
    with PopArtBackend().inference(read_network(tmp_path / "pool.onnx"), plan, 8) as session:
        session.compile()
        assert not session.reloadable
        torch.testing.assert_close(session(images), images.mean((2, 3)), **CLOSE)
    assert list(made[-1]._model.graph.initializer) == []


def test_another_batch_than_the_file_s_is_refused(popart_double, registry, tmp_path):
    file = str(tmp_path / "small.onnx")
    export(build(ExportOptions, {"model": "resnet8-cifar", "weights": "random", "batch_size": 2,
                                 "target": "popart", "output": file}), registry)
    with pytest.raises(UsageError, match="takes 2 images per call, not 3"):
        inference.run(build(RunOptions, {
            "backend": "popart", "batch_size": 3, "data": "generated", "iterations": 1,
            "onnx": file}), registry)


# -- the whole command -------------------------------------------------------------------------

_ALONE = """
import sys
sys.path.insert(0, {doubles!r})
from ipucnn.__main__ import invoke
code = invoke(["run", "--backend", {backend!r}, "--model", "resnet8-cifar", "--weights", "random",
               "--data", "generated", "--iterations", "1", "--progress", "off", "--json"])
assert "popart" in sys.modules and "onnx" in sys.modules
sys.exit(code)
"""


@pytest.mark.parametrize("backend", ["auto", "popart"])
def test_popart_is_imported_before_onnx(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("POPART_DOUBLE_IMPORT_ORDER", "strict")
    done = subprocess.run([sys.executable, "-c", _ALONE.format(
        doubles=str(_popart_only(tmp_path)), backend=backend)],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"backend": "popart"' in done.stdout


def _popart_only(folder):
    """Return a folder with PopART's double and no PopTorch, which would be taken before it."""
    for name in ("popart", "contracts", "rules"):
        (folder / name).symlink_to(DOUBLES / name)
    return folder


def test_conformance(popart_double, registry, monkeypatch):
    use_sample_norms(popart_double, monkeypatch)
    results = check_plugin("backend", "popart", registry)
    assert {value for value in results.values() if "skipped" not in value} == {"passed"}
