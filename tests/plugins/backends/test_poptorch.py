"""The poptorch backend on the strict double, and the double against the contract file."""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import re
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from ipucnn.core.errors import IpucnnError, UnavailableError, UsageError
from ipucnn.core.execution.launching import environment_of
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import choose_backend
from ipucnn.core.options.building import build
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.data.normalisation import normalise
from ipucnn.inference import job as inference
from ipucnn.inference.options import RunOptions
from ipucnn.models.build import create_model
from ipucnn.plugins.backends.poptorch import ipucnn_backends
from ipucnn.plugins.backends.poptorch.engine import PopTorchBackend
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.testing import check_plugin

DOUBLES = Path(__file__).parents[2] / "doubles"
CONTRACT = json.loads((DOUBLES / "contracts" / "poptorch-3.3.json").read_text())
SIZE = 32
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def poptorch(poptorch_double):
    return poptorch_double


@pytest.fixture
def machine(poptorch):
    """The device that the double simulates."""
    return poptorch._machine.MACHINE


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


def _model():
    """Return a small network whose modules are called as in a ResNet."""
    torch.manual_seed(3)
    module = nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(3, 8, 3, stride=2, bias=False), bn1=nn.BatchNorm2d(8), relu=nn.ReLU(),
        **{f"layer{i}": nn.Sequential(_Block(8), _Block(8)) for i in range(1, 5)},
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(8, 10))).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.8, 1.2)
    return module


def _images(count):
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(1))


PLAIN = ExecutionPlan()
COMPILED = ExecutionPlan(compile_only=True)


def _session(plan=PLAIN, model=None, backend=None):
    return (backend or PopTorchBackend()).inference(model or _model(), plan, SIZE)


def _logits(plan, images, backend=None):
    with _session(plan, backend=backend) as session:
        session.compile()
        return torch.cat([session(part) for part in images.split(session.samples_per_call)])


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
], ids=["one", "batches", "short last batch", "split leaf", "split containers", "float input"])
def test_logits_are_those_of_the_torch_backend(poptorch, plan, count):
    images = _images(count) if plan.eight_bit_io else _images(count).float()
    logits = _logits(plan, images)
    assert logits.dtype == torch.float32
    assert logits.shape == (count, 10)
    torch.testing.assert_close(logits, _logits(plan, images, TorchBackend()), **CLOSE)


def test_images_normalised_on_the_host_or_not_at_all(poptorch):
    host = ExecutionPlan(precision="32.32", normalisation="host", eight_bit_io=False)
    nowhere = ExecutionPlan(precision="32.32", normalisation="none")
    with torch.no_grad():
        torch.testing.assert_close(_logits(host, normalise(_images(1))),
                                   _model()(normalise(_images(1))), **CLOSE)
        torch.testing.assert_close(_logits(nowhere, _images(1)), _model()(_images(1).float()),
                                   rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("full_precision_norm", [False, True])
@pytest.mark.parametrize("place", ["device", "host"])
def test_half_precision_is_float16_on_the_device(machine, full_precision_norm, place):
    plan = ExecutionPlan(precision="16.16", micro_batch=2, normalisation=place,
                         eight_bit_io=place == "device", full_precision_norm=full_precision_norm)
    images = _images(2)
    logits = _logits(plan, images if place == "device" else normalise(images))
    program = machine.programs[-1]
    types = {name: weight.dtype for name, weight in program.model.model.named_parameters()}
    assert types["conv1.weight"] is torch.float16
    assert types["bn1.weight"] is (torch.float32 if full_precision_norm else torch.float16)
    assert program.model.model.bn1.running_var.dtype is torch.float32
    assert program.shapes[0][1] is (torch.uint8 if place == "device" else torch.float16)
    with torch.no_grad():
        expected = _model()(normalise(images))
    error = (logits - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.02
    assert logits.dtype == torch.float32


def test_session_takes_the_combined_batch_and_accepts_any_memory_layout(poptorch):
    plan = ExecutionPlan(precision="32.32", micro_batch=2, device_iterations=2, replicas=2)
    images = _images(8).contiguous(memory_format=torch.channels_last)
    with _session(plan) as session:
        assert session.samples_per_call == 8
        session.compile()
        session(images)  # the double warns of inputs that are not contiguous
        with pytest.raises(ValueError, match="9 images"):
            session(_images(9))


def test_splits_become_blocks_on_their_ipus(machine):
    plan = ExecutionPlan(device_iterations=3, replicas=2, pipeline_splits=("layer2/0", "layer4"),
                         compile_only=True)
    with _session(plan, backend=_with(offline_target_ipu_version=2)) as session:
        session.compile()
        assert session.facts["stages_begin_at"] == ["input", "layer2/0", "layer4"]
        assert session.facts["ipus"] == 6
    program = machine.programs[-1]
    assert program.blocks == {"layer2/0": 1, "layer4": 2}
    assert (program.stages, program.ipus) == (3, 6)


def test_compile_once_then_close_frees_the_device(poptorch):
    with _session(ExecutionPlan()) as session:
        assert session.compile() > 0
        executor = session._executor
        assert executor.isAttachedToDevice()
        session(_images(1))
    assert not executor.isCompiled()


def test_device_latency_comes_from_the_device(poptorch):
    with _session(ExecutionPlan(device_iterations=3)) as session:
        session.compile()
        assert session.device_latency() is None
        session(_images(3))
        shortest, longest, mean = session.device_latency()
        assert 0 < shortest <= mean <= longest


def test_synthetic_data_never_crosses(machine):
    with _session(ExecutionPlan(synthetic=True, micro_batch=2)) as session:
        session.compile()
        assert session(None).shape == (2, 10)
        assert session.device_latency() is None
    assert machine.programs[-1].options._Popart._values["syntheticDataMode"] == 2
    with _session(ExecutionPlan()) as session:
        session.compile()
        with pytest.raises(ValueError, match="needs images"):
            session(None)


# -- every option has its call -----------------------------------------------------------------


def _compiled(machine, plan=PLAIN, backend=None):
    with _session(plan, backend=backend) as session:
        session.compile()
    return machine.programs[-1]


def _with(**options):
    return PopTorchBackend(PopTorchOptions(**options))


def test_plan_values_become_options(machine):
    plan = ExecutionPlan(device_iterations=2, replicas=2, seed=5)
    options = _compiled(machine, plan).options
    assert options.device_iterations == 2
    assert options.replication_factor == 2
    assert options.random_seed == 5
    assert options.broadcast_buffers is False
    assert options.output_mode == 2
    assert options._Popart._values["syntheticDataMode"] == 0
    alone = _compiled(machine, ExecutionPlan()).options
    assert alone.broadcast_buffers is True
    assert "random_seed" not in alone._values


@pytest.fixture
def part(monkeypatch):
    """This process is one of two that `--instances` started."""
    for name, value in environment_of("local", 1, 2).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("part")
def test_a_part_of_a_run_sets_its_own_replicas(machine):
    assert _compiled(machine, ExecutionPlan(replicas=2)).options.replication_factor == 2


@pytest.mark.usefixtures("part", "machine")
def test_only_poprun_starts_instances_that_share_ipus():
    with pytest.raises(UsageError, match="local started 2 instances, and PopTorch shares") as e:
        _session(ExecutionPlan(replicas=2, instances=2))
    assert "'poprun'" in e.value.hint


@pytest.mark.parametrize(("option", "value", "key", "meaning"), [
    ("half_partial", True, "partialsTypeMatMuls", "half"),
    ("half_partial", True, "convolutionOptions", {"partialsType": "half"}),
    ("enable_fast_groupnorm", True, "groupNormStridedChannelGrouping", True),
    ("num_io_tiles", 32, "defaultPrefetchBufferingDepth", 3),
    ("prefetch_depth", 5, "defaultPrefetchBufferingDepth", 5),
    ("exchange_memory_target", "balanced", "engineOptions",
     {"opt.internalExchangeOptimisationTarget": "balanced"}),
])
def test_option_reaches_popart(machine, option, value, key, meaning):
    program = _compiled(machine, ExecutionPlan(precision="16.16"), _with(**{option: value}))
    assert program.options._Popart._values[key] == meaning
    assert key not in _compiled(machine, ExecutionPlan()).options._Popart._values


@pytest.mark.parametrize(("shares", "meaning"), [
    ((0.3,), {0: 0.3, 1: 0.3}), ((0.2, 0.4), {0: 0.2, 1: 0.4}), ((), {})])
def test_available_memory_is_per_stage(machine, shares, meaning):
    plan = ExecutionPlan(device_iterations=2, pipeline_splits=("layer3",))
    program = _compiled(machine, plan, _with(available_memory_proportion=shares))
    assert program.options.available_memory_proportion == meaning


def test_prefetch_depth_wins_over_that_of_io_tiles(machine):
    program = _compiled(machine, backend=_with(num_io_tiles=32, prefetch_depth=2))
    assert program.options._Popart._values["defaultPrefetchBufferingDepth"] == 2


@pytest.mark.parametrize(("given", "name"), [
    (None, "Always"), ("always", "Always"), ("ondemand", "OnDemand")])
def test_when_ipus_are_taken(machine, poptorch, given, name):
    program = _compiled(machine, backend=_with(**({"connection_type": given} if given else {})))
    assert program.options.connection_type == getattr(poptorch.ConnectionType, name)
    assert program.attached


def test_io_tiles_come_with_overlapped_transfers(machine):
    program = _compiled(machine, backend=_with(num_io_tiles=64))
    assert program.options.toDict()["numIOTiles"] == 64
    assert program.options.toDict()["execution_mode"] == 1
    assert program.overlaps
    plain = _compiled(machine, ExecutionPlan())
    assert plain.options.toDict()["execution_mode"] == 0
    assert not plain.overlaps


@pytest.mark.parametrize(("tiles", "splits", "message"), [
    (31, (), "31 is too small"), (33, (), "33 tiles"),
    (194, (), "194 tiles"), (32, ("layer3",), "pipeline")])
def test_io_tiles_that_cannot_be_are_refused(poptorch, tiles, splits, message):
    plan = ExecutionPlan(device_iterations=2, pipeline_splits=splits)
    with pytest.raises(UsageError, match=message):
        _session(plan, backend=_with(num_io_tiles=tiles))


def test_profile_keeps_the_other_engine_options(machine):
    program = _compiled(machine, backend=_with(profile=True, exchange_memory_target="memory"))
    assert program.options._Popart._values["engineOptions"] == {
        "opt.internalExchangeOptimisationTarget": "memory", "autoReport.all": "true",
        "autoReport.directory": "poplar-profile", "debug.allowOutOfMemory": "true"}


def test_model_cache_path_is_made_and_used(machine, tmp_path):
    folder = tmp_path / "a" / "cache"
    options = _compiled(machine, backend=_with(model_cache_path=str(folder))).options
    assert folder.is_dir()
    assert Path(options._Popart._values["cachePath"]).parent == folder
    assert options._Popart._values["enableEngineCaching"] is True
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        _session(backend=_with(model_cache_path=str(tmp_path / "file" / "cache")))


def test_offline_target_compiles_without_hardware(machine):
    machine.ipus = 0
    offline = _with(offline_target_ipu_version=21)
    program = _compiled(machine, COMPILED, offline)
    assert program.options.ipu_version == 21
    assert not program.attached
    assert offline.probe_for(COMPILED).usable
    assert not PopTorchBackend().probe().usable


@pytest.mark.parametrize(("plan", "options", "message"), [
    (COMPILED, {"offline_target_ipu_version": 3}, "no IPU version 3"),
    (PLAIN, {"offline_target_ipu_version": 2}, "cannot be run here"),
    (COMPILED, {"offline_target_ipu_version": 2, "connection_type": "ondemand"},
     "--connection-type")])
def test_offline_target_that_cannot_be_is_refused(poptorch, plan, options, message):
    with pytest.raises(UsageError, match=message):
        _session(plan, backend=_with(**options))


@pytest.mark.parametrize("count", [2, 4])
def test_memory_proportions_that_fit_no_pipeline_are_refused(poptorch, count):
    plan = ExecutionPlan(device_iterations=3, pipeline_splits=("layer2", "layer3"))
    with pytest.raises(UsageError, match=f"{count} available memory proportions for 3 pipeline"):
        _session(plan, backend=_with(available_memory_proportion=(0.3,) * count))


def test_every_option_of_inference_is_tried_here():
    tried = {"half_partial", "enable_fast_groupnorm", "num_io_tiles", "exchange_memory_target",
             "available_memory_proportion", "profile", "model_cache_path",
             "offline_target_ipu_version", "connection_type", "prefetch_depth"}
    elsewhere = {"dataloader_mode", "dataloader_rebatch_size", "disable_async_loading"}
    assert {item.name for item in declared(PopTorchOptions)
            if item.option.only != "training"} == tried | elsewhere
    assert set(ipucnn_backends()[0].features) == {
        "accumulation-sum", "compile-only", "full-precision-norm", "recompute", "sharding"}


# -- what there is, and what is not ------------------------------------------------------------


def test_probe_describes_the_ipus(machine):
    probe = PopTorchBackend().probe()
    assert probe.usable
    assert probe.half == "float16"
    assert probe.versions == {"poptorch": "3.3.0-double", "torch": torch.__version__}
    assert probe.device == "IPU version 2, up to 16 in a program"
    machine.ipus = 6
    assert PopTorchBackend().probe().device == "IPU version 2, up to 4 in a program"
    machine.ipus = 0
    probe = PopTorchBackend().probe()
    assert not probe.usable
    assert "no IPU" in probe.reason
    assert "POPTORCH_IPU_MODEL" in probe.remedy
    assert "--offline-target-ipu-version" in probe.remedy


def test_ipu_model_needs_no_hardware(machine, monkeypatch, tmp_path):
    machine.ipus = 0
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    assert "IPU model" in PopTorchBackend().probe().device
    plan = ExecutionPlan(precision="32.32", replicas=3)  # no power of two is needed there
    assert _logits(plan, _images(3)).shape == (3, 10)
    for given, options in ((PLAIN, {"model_cache_path": str(tmp_path)}),
                           (COMPILED, {"offline_target_ipu_version": 2})):
        with pytest.raises(UsageError, match="IPU model"):
            _session(given, backend=_with(**options))
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "0")
    assert not PopTorchBackend().probe().usable


def test_missing_poptorch_names_the_sdk_and_never_pip(without_poptorch):
    probe = PopTorchBackend().probe()
    assert not probe.usable
    assert "not installed" in probe.reason
    assert "Poplar SDK" in probe.remedy
    for text in (probe.remedy, ipucnn_backends()[0].requires[0].install):
        assert "pip install" not in text
    with pytest.raises(UnavailableError, match="not installed"):
        _session(ExecutionPlan())


@pytest.mark.parametrize(("code", "reason", "remedy"), [
    ("assert False, 'only works with torch==9.9 but'", "torch==9.9", "torch 2.0.1"),
    ("import poptorch.poptorch_core", "poptorch_core", "enable.sh"),
    ("raise OSError('libpopart.so: cannot open')", "libpopart.so", "enable.sh")])
def test_why_poptorch_cannot_be_imported(without_poptorch, monkeypatch, tmp_path, code, reason,
                                         remedy):
    (tmp_path / "poptorch").mkdir()
    (tmp_path / "poptorch" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    probe = PopTorchBackend().probe()
    assert not probe.usable
    assert reason in probe.reason
    assert torch.__version__ in probe.reason
    assert remedy in probe.remedy


@pytest.mark.skipif(torch.__version__.startswith("2.0.1"), reason="the torch that it is made for")
def test_double_refuses_another_torch_as_the_real_one_does(poptorch, monkeypatch):
    monkeypatch.delenv("POPTORCH_DOUBLE_TORCH")
    del sys.modules["poptorch"]
    probe = PopTorchBackend().probe()
    assert not probe.usable
    assert f"not made for torch {torch.__version__}" in probe.reason


def test_driver_that_fails_does_not_make_the_probe_fail(poptorch, monkeypatch):
    def fails(num_ipus=1):
        raise RuntimeError("no driver\nstack")

    monkeypatch.setattr(poptorch, "ipuHardwareIsAvailable", fails)
    probe = PopTorchBackend().probe()
    assert not probe.usable
    assert probe.reason.endswith("no driver")


@pytest.mark.parametrize(("replicas", "splits", "ipus", "error", "message"), [
    (3, (), 16, UsageError, "3 replicas of 1 pipeline stages need 3 IPUs.*powers of two"),
    (2, ("layer2",), 2, UnavailableError, "need 4 IPUs, and this machine has fewer"),
    (64, ("layer2",), 256, UsageError, "need 128 IPUs, and a process can use 64")])
def test_number_of_ipus_is_checked_first(machine, replicas, splits, ipus, error, message):
    machine.ipus = ipus
    plan = ExecutionPlan(replicas=replicas, pipeline_splits=splits, device_iterations=2)
    with pytest.raises(error, match=message):
        _session(plan)


# -- errors of the device ----------------------------------------------------------------------


def _failure(plan, run=False):
    session = _session(plan)
    with session:
        if run:
            session.compile()
        with pytest.raises(IpucnnError) as caught:
            session(_images(1)) if run else session.compile()
    assert not session._executor.isCompiled()
    assert "\n" not in caught.value.message
    return caught.value


def test_out_of_memory_has_a_hint(machine):
    machine.bytes_per_ipu = 1000
    error = _failure(ExecutionPlan(micro_batch=4))
    assert error.exit_code == 1
    assert "Out of memory" in error.message
    assert "'--batch-size' than 4" in error.hint
    assert "--available-memory-proportion" in error.hint


def test_the_error_for_busy_ipus_has_a_hint(machine):
    machine.busy = True
    error = _failure(ExecutionPlan())
    assert "Failed to acquire 1 IPU" in error.message
    assert "POPTORCH_WAIT_FOR_IPU=1" in error.hint


@pytest.mark.parametrize(("name", "message"), [
    ("RecoverableError", "reset"), ("UnrecoverableError", "hardware"), ("Error", "LOG_LEVEL")])
def test_errors_while_running_are_one_line(poptorch, machine, name, message):
    failure = poptorch._errors.failure("link is down\nmore", "poplar_x", getattr(poptorch, name))
    machine.fails = failure
    error = _failure(ExecutionPlan(), run=True)
    assert error.message == "the model cannot run on the IPU: link is down"
    assert message in error.hint


# -- the whole command -------------------------------------------------------------------------

@pytest.fixture
def registry():
    return Registry(PluginSettings(extra=(str(DOUBLES.with_name("tiny_plugin.py")),)))


def _options(registry, **given):
    return build(RunOptions, {"model": "tiny", "weights": "random", "data": "generated",
                              "precision": "32.32", **given}, registry=registry)


def test_run_takes_poptorch_before_torch_and_gives_the_same_predictions(poptorch, registry,
                                                                       tmp_path):
    written = {}
    for backend in ("auto", "torch"):
        path = tmp_path / f"{backend}.csv"
        result = inference.run(_options(
            registry, backend=backend, iterations=3, batch_size=2, device_iterations=2, replicas=2,
            pipeline_splits=("2",), predictions=str(path)), registry)
        assert result.images == 24
        assert result.backend == ("poptorch" if backend == "auto" else "torch")
        rows = [line.split(",") for line in path.read_text().splitlines()]
        written[backend] = [row[:2] for row in rows]
        assert len(rows) == 25
    assert written["auto"] == written["torch"]


def test_run_with_synthetic_data(machine, registry):
    result = inference.run(_options(registry, backend="poptorch", data="synthetic",
                                    iterations=3, batch_size=4, precision="16.16"), registry)
    assert result.images == 12
    assert result.plan["half"] == "float16"
    assert machine.programs[-1].options._Popart._values["syntheticDataMode"] == 2


def test_run_compiles_for_an_ipu_that_is_elsewhere(machine, registry):
    machine.ipus = 0
    result = inference.run(_options(registry, offline_target_ipu_version=2,
                                    compile_only=True), registry)
    assert result.backend == "poptorch"
    assert result.images == 0
    assert result.compile_seconds > 0
    assert len(machine.programs) == 1
    assert inference.run(_options(registry, iterations=1), registry).backend != "poptorch"


def test_named_backend_without_sdk_is_an_error(without_poptorch, registry):
    with pytest.raises(UnavailableError) as caught:
        inference.run(_options(registry, backend="poptorch"), registry)
    assert "Poplar SDK" in caught.value.hint
    assert re.search("here '--backend (openvino|onnxruntime|torch)' runs", caught.value.hint)
    assert choose_backend(_options(registry), PLAIN, registry).spec.name != "poptorch"


def test_networks_of_ipucnn_run_in_half_precision(poptorch):
    torch.manual_seed(0)
    plan = ExecutionPlan(device_iterations=2, pipeline_splits=("_blocks/4",))
    model = create_model("efficientnet-b0", num_classes=5, weights="random").module
    images = _images(2)
    with torch.no_grad():
        expected = model.eval()(normalise(images))
    with _session(plan, model) as session:
        session.compile()
        logits = session(images)
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_conformance(poptorch, registry):
    assert set(check_plugin("backend", "poptorch", registry).values()) == {
        "passed", "skipped: it does not offer fine-tuning"}


# -- the double --------------------------------------------------------------------------------


def _expected_parameters(entry):
    return [(p["name"], p["kind"], p.get("default")) for p in entry["params"]]


def _written(default):
    if default is inspect.Parameter.empty:
        return None
    if isinstance(default, enum.Enum):
        return f"{type(default).__name__}.{default.name}"
    return repr(default)


def _parameters(function, method=False):
    parameters = list(inspect.signature(function).parameters.values())[1 if method else 0:]
    return [(p.name, p.kind.name.lower(), _written(p.default)) for p in parameters]


def _public(names):
    return [name for name in names if not name.startswith("_") or name in (
        "__call__", "_Popart")]


def _differences(value, entry, path):
    """Return where `value` has what the contract's `entry` lacks, or has it differently."""
    if entry["kind"] == "attribute":
        return []
    if entry["kind"] == "function":
        same = _parameters(value) == _expected_parameters(entry)
        return [] if same else [path]
    if entry["kind"] == "enum":
        members = {member.name: member.value for member in value}
        return [] if members == entry["members"] else [path]
    if entry["kind"] == "exception":
        ours = set(_public(vars(value)))
        return [path] if ours - set(entry.get("attributes", [])) else []
    found = []
    if "init" in entry and _parameters(value.__init__, True) != _expected_parameters(entry["init"]):
        found.append(path + "()")
    for name in _public(vars(value)):
        member = vars(value)[name]
        if name == "_Popart":  # listed under "reach"
            continue
        if isinstance(member, property):
            known = name in entry["properties"]
        else:
            listed = entry["methods"].get(name)
            known = listed is not None and _parameters(member, True) == _expected_parameters(listed)
        if not known:
            found.append(f"{path}.{name}")
    return found


def test_double_has_nothing_that_the_contract_lacks(poptorch):
    symbols = CONTRACT["symbols"]
    found = []
    offered = {f"poptorch.{name}": getattr(poptorch, name)
               for name in [*_public(vars(poptorch)), "__version__"]
               if name not in ("options", "optim")}
    offered.update({f"poptorch.optim.{name}": getattr(poptorch.optim, name)
                    for name in _public(vars(poptorch.optim))})
    for path, value in offered.items():
        assert path in symbols, path
        found += _differences(value, symbols[path], path)
    for name in ("_PopartOptions", "_PrecisionOptions", "_TensorLocationOptions",
                 "_TrainingOptions"):
        path = f"poptorch.options.{name}"
        found += _differences(getattr(poptorch.options, name), symbols[path], path)
    assert found == []
    for module in (poptorch.options, poptorch.optim):
        assert set(_public(vars(module))) == set(module.__all__)


def test_comparison_with_the_contract_sees_differences():
    class Other(enum.Enum):
        All = 3

    def other(layer_to_call, ipu_id=None):
        pass

    class Options:
        def deviceIterations(self, iterations):
            pass

        def invented(self):
            pass

    symbols = CONTRACT["symbols"]
    assert _differences(Other, symbols["poptorch.OutputMode"], "x") == ["x"]
    assert _differences(other, symbols["poptorch.BeginBlock"], "x") == ["x"]
    assert set(_differences(Options, {**symbols["poptorch.Options"], "init": {
        "params": _expected(Options)}}, "x")) == {"x.deviceIterations", "x.invented"}


def _expected(cls):
    return [{"name": p.name, "kind": p.kind.name.lower()}
            for p in list(inspect.signature(cls.__init__).parameters.values())[1:]]


def test_double_refuses_what_the_contract_does_not_list(poptorch):
    options = poptorch.Options()
    for missing in ("AnchorMode", "trainingModels", "torch"):
        with pytest.raises(AttributeError):
            getattr(poptorch, missing)
    with pytest.raises(AttributeError):
        options.anchorMode  # noqa: B018
    with pytest.raises(TypeError):
        options.outputMode(mode=poptorch.OutputMode.All)
    with pytest.raises(AssertionError):
        options.deviceIterations("4")
    with pytest.raises(AssertionError):
        options.batch_size = 3
    for key, value in (("noSuchOption", True), ("cachePath", 3), ("enableStableNorm", 1)):
        bad = poptorch.Options()
        bad._Popart.set(key, value)
        with pytest.raises(poptorch.Error, match=key):
            poptorch.inferenceModel(torch.nn.Identity(), bad)(torch.zeros(1))


def test_double_freezes_options_after_use(poptorch):
    options = poptorch.Options()
    wrapped = poptorch.inferenceModel(torch.nn.Identity(), options)
    for change in (lambda o: o.deviceIterations(2), lambda o: o._Popart.set("x", True),
                   lambda o: o.Precision.setPartialsType(torch.half),
                   lambda o: o.TensorLocations.numIOTiles(32)):
        for frozen in (options, wrapped.options):
            with pytest.raises(AttributeError, match="frozen"):
                change(frozen)
    assert options.clone().deviceIterations(2).device_iterations == 2


class _Numbered(torch.nn.Module):
    """Adds 1 to its input, in two layers that can be blocks."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Identity()
        self.second = torch.nn.Identity()

    def forward(self, x):
        return self.second(self.first(x)) + 1


@pytest.mark.parametrize(("mode", "rows"), [
    ("All", [1, 2, 3, 4, 5, 6]), ("Final", [5, 6]), ("Sum", [9, 12]), ("Default", range(1, 7))])
def test_double_returns_according_to_the_output_mode(poptorch, mode, rows):
    options = poptorch.Options().deviceIterations(3).replicationFactor(2)
    options.outputMode(poptorch.OutputMode[mode])
    model = poptorch.inferenceModel(_Numbered(), options)
    assert model(torch.arange(6.)).tolist() == list(rows)


def test_double_checks_batches_shapes_and_life_cycle(poptorch):
    model = poptorch.inferenceModel(_Numbered(), poptorch.Options().deviceIterations(2))
    with pytest.raises(AssertionError, match="multiple of 2"):
        model(torch.zeros(3))
    model.compile(torch.zeros(4, dtype=torch.float64))
    assert model(torch.zeros(4, dtype=torch.float64)).dtype == torch.float32
    with pytest.raises(poptorch.Error, match="don't match"):
        model(torch.zeros(6))
    with pytest.warns(UserWarning, match="already compiled"):
        model.compile(torch.zeros(4))
    with pytest.warns(UserWarning, match="not contiguous"):
        poptorch.inferenceModel(_Numbered())(torch.zeros(4, 2).t())
    model.detachFromDevice()
    with pytest.raises(poptorch.Error, match="not attached"):
        model.detachFromDevice()
    model.destroy()
    with pytest.raises(poptorch.Error, match="destroyed"):
        model.attachToDevice()
    offline = poptorch.inferenceModel(_Numbered(), poptorch.Options().useOfflineIpuTarget(2))
    offline.compile(torch.zeros(1))
    with pytest.raises(AssertionError, match="offline"):
        offline(torch.zeros(1))


def test_double_holds_the_weights_of_the_time_of_compilation(poptorch):
    layer = torch.nn.Linear(1, 1)
    model = poptorch.inferenceModel(layer)
    before = model(torch.ones(1, 1))
    torch.nn.init.zeros_(layer.weight)
    assert torch.equal(model(torch.ones(1, 1)), before)


def test_double_checks_blocks(poptorch):
    def wrapped(first, second, iterations, **strategy):
        model = _Numbered()
        poptorch.BeginBlock(model.first, ipu_id=first, user_id="a")
        poptorch.BeginBlock(model.second, ipu_id=second, user_id="b")
        with pytest.raises(poptorch.Error, match="already"):
            poptorch.BeginBlock(model.first, ipu_id=0)
        options = poptorch.Options().deviceIterations(iterations).autoRoundNumIPUs()
        if strategy:
            options.setExecutionStrategy(strategy["strategy"])
        return poptorch.inferenceModel(model, options)

    with pytest.raises(poptorch.Error, match=r"number of pipeline stages \(3\)"):
        wrapped(1, 2, 2)(torch.zeros(2))
    wrapped(1, 2, 3)(torch.zeros(3))
    wrapped(1, 2, 1, strategy=poptorch.ShardedExecution())(torch.zeros(1))
    with pytest.raises(poptorch.Error, match="stage 0 comes after stage 1"):
        wrapped(1, 0, 3)(torch.zeros(3))
    with pytest.raises(poptorch.Error, match="reserve a minimum of 4"):
        poptorch.inferenceModel(
            poptorch.BeginBlock(_Numbered(), ipu_id=2),
            poptorch.Options().deviceIterations(2))(torch.zeros(2))


@pytest.mark.parametrize(("sharded", "tiles", "marks", "message"), [
    (False, 32, "right", "PipelinedExecution"), (True, 0, "right", "No IO tiles"),
    (True, 32, "late input", "not a tensor input"), (True, 32, "early output", "tensor output")])
def test_double_checks_overlapped_transfers(poptorch, sharded, tiles, marks, message):
    mode = poptorch.OverlapMode.OverlapDeviceIterationLoop

    class Marked(torch.nn.Module):
        def forward(self, x):
            x = poptorch.set_overlap_for_input(x * 2 if marks == "late input" else x, mode)
            x = poptorch.set_overlap_for_output(x + 1, mode)
            return x + 1 if marks == "early output" else x

    options = poptorch.Options()
    if sharded:
        options.setExecutionStrategy(poptorch.ShardedExecution())
    if tiles:
        options.TensorLocations.numIOTiles(tiles)
    with pytest.raises(poptorch.Error, match=message):
        poptorch.inferenceModel(Marked(), options)(torch.zeros(1))


def test_contract_holds_no_path_of_a_machine():
    text = (DOUBLES / "contracts" / "poptorch-3.3.json").read_text()
    assert not [word for word in ("/home/", "/root/", "/tmp/") if word in text]
