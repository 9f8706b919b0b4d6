"""PopART's double against the contract file, ONNX Runtime and torch."""

from __future__ import annotations

import copy
import inspect
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

DOUBLES = Path(__file__).resolve().parents[2] / "doubles"
CONTRACT = json.loads((DOUBLES / "contracts" / "popart-3.3.json").read_text())
CLASSES = {**CONTRACT["classes"], **CONTRACT["python_classes"]}


@pytest.fixture
def popart(popart_double):
    return popart_double


@pytest.fixture
def machine(popart):
    return sys.modules["popart._machine"].MACHINE


def small(activation=torch.nn.ReLU6):
    """Return a small CNN with batch norm."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), activation(),
        torch.nn.MaxPool2d(2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 5))


def exported(model, batch=2, training=False, **more):
    """Return ONNX bytes by the TorchScript exporter, the only one that writes such opsets."""
    file = io.BytesIO()
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        more["dynamo"] = False
    mode = torch.onnx.TrainingMode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter has a successor, which is no use here
        torch.onnx.export(copy.deepcopy(model), torch.zeros(batch, 3, 8, 8), file,
                          opset_version=11, input_names=["x"], output_names=["y"],
                          training=mode.TRAINING if training else mode.EVAL,
                          do_constant_folding=not training, **more)
    return file.getvalue()


def options(popart, **values):
    made = popart.SessionOptions()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def inferring(popart, model, kind="All", steps=1, ipus=1, anchors=("y",), **values):
    flow = popart.DataFlow(steps, {name: popart.AnchorReturnType(*([kind] if isinstance(
        kind, str) else kind)) for name in anchors})
    return popart.InferenceSession(model, flow, popart.DeviceManager().acquireAvailableDevice(ipus),
                                   userOptions=options(popart, **values))


def ready(session):
    session.prepareDevice()
    session.weightsFromHost()
    return session


def run(popart, session, **inputs):
    anchors = session.initAnchorArrays()
    session.run(popart.PyStepIO(inputs, anchors))
    return anchors


def images(*shape):
    return np.random.default_rng(0).standard_normal((*shape, 3, 8, 8)).astype(np.float32)


# -- the contract ------------------------------------------------------------------------------


def allowed(name):
    """Return the methods and attributes that the contract gives a class: overloads by name."""
    entry, found = CLASSES[name], {}
    for key in ("methods", "inherited_methods", "forwarded_methods", "fields", "properties"):
        found.update(entry.get(key, {}))
    for base in entry.get("bases", ()):
        if "popart." + base in CLASSES:
            found = {**allowed("popart." + base), **found}
    return found


def overloads(entry):
    if isinstance(entry, list):
        return [[arg.get("name") for arg in one["args"]] for one in entry
                if not str(one.get("args_from", "")).startswith(("&", "py::"))]
    return [[arg["name"] for arg in entry.get("params", ())]]


def test_the_double_has_nothing_that_the_contract_lacks(popart):
    known = {name.split(".")[1] for part in ("classes", "python_classes", "enums", "exceptions",
                                             "functions") for name in CONTRACT[part]}
    known |= {name.split(".")[1] for name in CONTRACT["constants"]}
    known |= {"SessionOptions", "OptimizerValueMap"}
    for name in (name for name in vars(popart) if not name.startswith("_")):
        assert name in known, name


def test_classes_have_the_methods_and_arguments_of_the_contract(popart):
    checked = 0
    for full in CLASSES:
        made = getattr(popart, full.split(".")[1], None)
        if made is None or full == "popart.TensorInfo":  # whose methods are PopXL's
            continue
        known = allowed(full)
        for base in made.__mro__[:-1]:
            for name, value in vars(base).items():
                if name.startswith("_") or not inspect.isfunction(value):
                    continue
                assert name in known, f"{full}.{name}"
                mine = list(inspect.signature(value).parameters)[1:]
                theirs = overloads(known[name])
                if not theirs or any(None in one for one in theirs) or mine[:1] == ["args"]:
                    continue
                checked += 1
                if len(theirs) == 1:
                    assert [one.rstrip("_") for one in theirs[0]] == mine, f"{full}.{name}"
                else:
                    assert set(mine) <= {arg for one in theirs for arg in one}, f"{full}.{name}"
    assert checked > 50


def test_constructors_take_the_arguments_of_the_contract(popart):
    for full in ("popart.SGD", "popart.ConstSGD", "popart.Adam", "popart.Adaptive",
                 "popart.PyStepIO", "popart.PyWeightsIO", "popart.GraphTransformer"):
        mine = list(inspect.signature(getattr(popart, full.split(".")[1])).parameters)
        assert mine == [arg["name"] for arg in CLASSES[full]["init"][0]], full
    for full in ("popart.Builder", "popart.InferenceSession", "popart.TrainingSession"):
        mine = list(inspect.signature(getattr(popart, full.split(".")[1])).parameters)
        assert mine == [arg["name"] for arg in CLASSES[full]["init"]["params"]], full


def test_enumerations_are_those_of_the_contract(popart):
    for full, entry in CONTRACT["enums"].items():
        made = getattr(popart, full.split(".")[1])
        assert set(made.__members__) == set(entry["values"]), full


def test_options_have_the_fields_types_and_defaults_of_the_contract(popart):
    made = popart.SessionOptions()
    for name in CONTRACT["SessionOptions"]["fields"]:
        getattr(made, name)
    assert made.rearrangeAnchorsOnHost is True
    assert made.accumulationAndReplicationReductionType is popart.ReductionType.Sum
    assert made.autoRecomputation is popart.RecomputationType.NoRecompute
    assert made.activationTensorLocationSettings.minElementsForOffChip == 2
    assert made.cachePath == "session_cache"
    assert made.timeLimitScheduler == 1e9
    with pytest.raises(AttributeError):
        made.enablePipeline = True
    for name, value in (("enablePipelining", 1), ("accumulationFactor", True),
                        ("partialsTypeMatMuls", 1), ("virtualGraphMode", "Auto"),
                        ("engineOptions", {"a": 1})):
        with pytest.raises(TypeError):
            setattr(made, name, value)
    made.engineOptions["target.syncReplicasIndependently"] = "true"
    with pytest.raises(TypeError):
        made.convolutionOptions["partialsType"] = 1


def test_operators_are_bound_to_the_contract(popart):
    builder = popart.Builder()
    with pytest.raises(AttributeError):
        _ = builder.aiOnnxOpset11.hardswish
    with pytest.raises(RuntimeError, match="already defined as 11"):
        _ = builder.aiOnnxOpset10.relu
    x = builder.addInputTensor(popart.TensorInfo("FLOAT", [2, 3]))
    with pytest.raises(TypeError):
        builder.aiOnnxOpset11.softmax([x], axes=1)
    with pytest.raises(TypeError):
        builder.aiOnnxOpset11.concat([x, x])
    with pytest.raises(popart.popart_exception, match="Unknown tensor"):
        builder.aiOnnxOpset11.relu(["z"])
    with pytest.raises(AttributeError):
        popart.Builder(opsets={"ai.onnx": 6, "ai.graphcore": 1}).aiOnnx.where([])


# -- models ------------------------------------------------------------------------------------


def test_a_builder_makes_a_graph(popart):
    builder = popart.Builder(opsets={"ai.onnx": 11, "ai.graphcore": 1})
    x = builder.addInputTensor(popart.TensorInfo("FLOAT", [2, 3]), "x")
    w = builder.addInitializedInputTensor(np.eye(3, 4, dtype=np.float32))
    with builder.virtualGraph(1):
        y = builder.aiOnnx.matmul([x, w])
    z, = builder.checkpointOutput([builder.aiGraphcore.swish([y])])
    builder.addOutputTensor(z)
    builder.pipelineStage(y, 3)
    builder.setAvailableMemoryProportion(y, 0.5)
    builder.setPartialsType(y, "HALF")
    assert builder.getInputTensorIds() == ["x", w]
    assert builder.getOutputTensorIds() == [z]
    assert builder.getTensorShape(z) == [2, 4]
    assert builder.getTensorDtypeString(z) == "float32"
    assert builder.getVirtualGraph(y) == 1
    assert builder.getPartialsType(y) == "HALF"
    assert sorted(builder.getAllNodeAttributeNames({y})) == [
        "__available_memory", "__ipu_number", "__partials_type", "__pipeline_stage"]
    for wrong in (lambda: builder.addNodeAttribute("__ipu_number", 1, {y}),
                  lambda: builder.setPartialsType(z, "HALF"),
                  lambda: builder.setAvailableMemoryProportion(y, 2),
                  lambda: builder.getInt64NodeAttribute("axis", {y})):
        with pytest.raises(popart.popart_exception):
            wrong()
    again = popart.Builder(builder.getModelProto())
    assert again.getTensorShape(z) == [2, 4]


def test_models_of_other_versions_are_refused(popart, tmp_path):
    import onnx

    data = exported(small().eval())
    model = onnx.load_from_string(data)
    model.ir_version = 7
    with pytest.raises(RuntimeError, match="ir_version"):
        popart.Builder(model.SerializeToString())
    for version in (5, 12):
        model = onnx.load_from_string(data)
        model.opset_import[0].version = version
        with pytest.raises(popart.popart_exception, match="opset version"):
            inferring(popart, model.SerializeToString())
    for wrong in (b"no model", data[:-200], str(tmp_path / "missing.onnx")):
        with pytest.raises(popart.popart_exception):
            popart.Builder(wrong)
    (tmp_path / "model.onnx").write_bytes(data)
    assert popart.Builder(str(tmp_path / "model.onnx")).getOutputTensorIds() == ["y"]


def test_operators_that_the_runtime_lacks_are_refused(popart):
    class Other(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    dilated = Other(lambda x: torch.nn.functional.max_pool2d(x, 2, 1, dilation=2))
    with pytest.raises(popart.popart_exception, match="dilations"):
        inferring(popart, exported(dilated))
    # Pow-7 is there, Round of opset 11 too, GatherElements is not
    with pytest.raises(popart.popart_exception, match="GatherElements"):
        inferring(popart, exported(Other(lambda x: x.gather(1, torch.zeros(2, 1, 8, 8).long()))))
    limited = popart.Builder(opsets={"ai.onnx": 11, "ai.graphcore": 1})
    x = limited.addInputTensor("FLOAT", [2])
    low = limited.addInputTensor("FLOAT", [])
    out = limited.aiOnnx.clip([x, low])
    limited.addOutputTensor(out)
    with pytest.raises(popart.popart_exception, match="constant min/max"):
        inferring(popart, limited.getModelProto(), anchors=[out])


def test_transformers_change_graphs(popart):
    import onnx

    made = popart.GraphTransformer(exported(small(), training=True))
    made.prepareNodesForTraining()
    made.convertAllFixedPointInitializersToConstants()
    made.convertFloatsToHalfs()
    graph = onnx.load_from_string(made.getModelProto()).graph
    assert {len(node.output) for node in graph.node if node.op_type == "BatchNormalization"} == {5}
    assert {one.data_type for one in graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    with pytest.raises(popart.popart_exception):
        made.convertInitializersToConstants(["missing"])


# -- devices -----------------------------------------------------------------------------------


def test_ipus_are_given_out_once(popart, machine):
    machine.ipus = 4
    manager = popart.DeviceManager()
    first = manager.acquireAvailableDevice(2)
    second = manager.acquireAvailableDevice(2)
    assert (first.driverIds, second.driverIds, second.isAttached) == ([0, 1], [2, 3], True)
    assert manager.tryAcquireAvailableDevice(1) is None
    with pytest.raises(popart.popart_exception, match="Failed to acquire device with 1 IPUs"):
        manager.acquireAvailableDevice(1)
    with pytest.raises(popart.popart_exception, match="power of two"):
        manager.acquireAvailableDevice(3)
    with pytest.raises(popart.popart_exception, match="Never"):
        manager.acquireAvailableDevice(1, connectionType=popart.DeviceConnectionType.Never)
    second.detach()
    assert manager.acquireDeviceById(3).driverIds == [3]
    with manager.acquireAvailableDevice(1) as third:
        assert third.type == popart.DeviceType.Ipu
    assert not third.isAttached


def test_processes_share_the_ipus_of_a_pool(popart, machine, monkeypatch, tmp_path):
    monkeypatch.setenv("POPART_DOUBLE_POOL", str(tmp_path))
    machine.ipus = 1
    taken = popart.DeviceManager().acquireAvailableDevice(1)
    code = ("import popart; d = popart.DeviceManager().tryAcquireAvailableDevice(1);"
            "print(d is not None)")
    environment = {**os.environ, "PYTHONPATH": str(DOUBLES), "POPART_DOUBLE_IPUS": "1"}

    def other():
        return subprocess.run([sys.executable, "-c", code], env=environment, check=True,
                              stdout=subprocess.PIPE).stdout.strip()

    assert other() == b"False"
    taken.detach()
    assert other() == b"True"


def test_an_offline_device_compiles_and_does_not_run(popart, tmp_path):
    device = popart.DeviceManager().createOfflineIPUDevice({"numIPUs": 1, "ipuVersion": "ipu2"})
    flow = popart.DataFlow(1, {"y": popart.AnchorReturnType("All")})
    session = popart.InferenceSession(exported(small().eval()), flow, device)
    session.compileAndExport(str(tmp_path / "made" / "model.popef"))
    assert (tmp_path / "made" / "model.popef").stat().st_size
    with pytest.raises(popart.popart_runtime_error, match="offline"):
        session.prepareDevice()
    with pytest.raises(popart.popart_runtime_error, match="Offline"):
        run(popart, session, x=images(2))
    with pytest.raises(popart.popart_runtime_error):
        popart.DeviceManager().createIpuModelDevice({"ipus": 1})


def test_popart_comes_before_onnx():
    environment = {**os.environ, "PYTHONPATH": str(DOUBLES),
                   "POPART_DOUBLE_IMPORT_ORDER": "strict"}
    for code, works in (("import onnx, popart", False), ("import popart; popart.Builder()", True)):
        made = subprocess.run([sys.executable, "-c", code], env=environment,
                              stderr=subprocess.PIPE)
        assert (made.returncode == 0) is works
        assert (b"must be imported before onnx" in made.stderr) is not works


# -- inference ---------------------------------------------------------------------------------


def test_inference_is_that_of_onnx_runtime(popart):
    import onnxruntime

    data = exported(small().eval())
    x = images(3, 2, 2)
    found = run(popart, ready(inferring(popart, data, steps=3, ipus=2, enableReplicatedGraphs=True,
                                        replicatedGraphCount=2)), x=x)["y"]
    runtime = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert found.shape == (3, 2, 2, 5)
    for step in range(3):
        for replica in range(2):
            wanted, = runtime.run(None, {"x": x[step, replica]})
            np.testing.assert_allclose(found[step, replica], wanted, rtol=1e-6)


@pytest.mark.parametrize(("kind", "shape"), [
    ("final", (2, 5)), ("SUM", (2, 5)), (("EveryN", 2), (2, 2, 5)), ("all", (4, 2, 5))])
def test_anchors_return_according_to_their_type(popart, kind, shape):
    data, x = exported(small().eval()), images(4, 2)
    every = run(popart, ready(inferring(popart, data, steps=4)), x=x)["y"]
    found = run(popart, ready(inferring(popart, data, kind, steps=4)), x=x)["y"]
    assert found.shape == shape
    wanted = {"final": every[-1], "SUM": every.sum(0), "all": every}.get(
        kind if isinstance(kind, str) else "", every[1::2])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_halves_and_whole_numbers(popart):
    class Predicting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small(torch.nn.ReLU)  # a bound of ReLU6 may not be a half

        def forward(self, x):
            return self.model(x).argmax(1)

    model = Predicting().eval()
    made = popart.GraphTransformer(exported(model))
    made.convertFloatsToHalfs()
    x = images(2)
    found = run(popart, ready(inferring(popart, made.getModelProto())), x=x.astype(np.float16))
    assert found["y"].dtype == np.int32
    assert found["y"].tolist() == model(torch.from_numpy(x)).tolist()
    session = ready(inferring(popart, made.getModelProto()))
    with pytest.raises(popart.popart_runtime_error, match="discrepency"):
        run(popart, session, x=x)


def test_its_own_executor_agrees_with_onnx_runtime(popart):
    """A graph with an operator of PopART's takes another way through the double."""
    data, x = exported(small().eval()), images(2)
    builder = popart.Builder(data)
    out = builder.aiGraphcore.scale(["y"], 2.0)
    found = run(popart, ready(inferring(popart, builder.getModelProto(), anchors=["y", out])), x=x)
    plain = run(popart, ready(inferring(popart, data)), x=x)["y"]
    np.testing.assert_allclose(found["y"], plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[out], 2 * plain, rtol=1e-5, atol=1e-6)


def test_inputs_that_do_not_fit_are_refused(popart):
    session = ready(inferring(popart, exported(small().eval()), steps=2))
    x = images(2, 2)
    with pytest.raises(popart.popart_exception, match="c-contiguous"):
        run(popart, session, x=x.transpose(0, 1, 4, 3, 2))
    for wrong, message in (({"x": x[:1]}, "number of input elements"), ({}, "No tensor x"),
                           ({"x": x.astype(np.float64)}, "No numpy type"),
                           ({"x": x, "z": x}, "not registered")):
        with pytest.raises(popart.popart_exception, match=message):
            run(popart, session, **{name: np.ascontiguousarray(a) for name, a in wrong.items()})
    with pytest.raises(popart.popart_runtime_error, match="PyStepIO's outputs"):
        session.run(popart.PyStepIO({"x": x}, {}))


def test_the_order_of_calls_matters(popart):
    session = inferring(popart, exported(small().eval()))
    for call in (session.weightsFromHost, session.weightsToHost,
                 lambda: run(popart, session, x=images(2)), session.getCycleCount):
        with pytest.raises(popart.popart_runtime_error):
            call()
    session.prepareDevice()
    with pytest.raises(popart.popart_runtime_error, match="weightsFromHost"):
        run(popart, session, x=images(2))


def test_weights_can_be_exchanged_when_they_are_not_constants(popart, tmp_path):
    other, x = small().eval(), images(2)
    with torch.no_grad():
        other[-1].bias += 1
    data = exported(other)
    constant = ready(inferring(popart, exported(small().eval())))
    with pytest.raises(popart.popart_runtime_error, match="constantWeights"):
        constant.resetHostWeights(data)
    session = ready(inferring(popart, exported(small().eval()), constantWeights=False))
    before = run(popart, session, x=x)["y"]
    session.resetHostWeights(data)
    with pytest.raises(popart.popart_runtime_error):
        run(popart, session, x=x)
    session.weightsFromHost()
    np.testing.assert_allclose(run(popart, session, x=x)["y"], before + 1, rtol=1e-5)
    session.modelToHost(str(tmp_path / "kept.onnx"))
    kept = run(popart, ready(inferring(popart, str(tmp_path / "kept.onnx"))), x=x)["y"]
    np.testing.assert_allclose(kept, before + 1, rtol=1e-5)


def test_programs_are_cached(popart, machine, tmp_path):
    values = {"enableEngineCaching": True, "cachePath": str(tmp_path / "cache")}
    for steps in (1, 1, 2):
        inferring(popart, exported(small().eval()), steps=steps, **values).prepareDevice()
    assert [event["event"] for event in machine.events] == ["compiled", "loaded", "compiled"]
    assert len(list((tmp_path / "cache").glob("*.popef"))) == 2


def test_synthetic_data_needs_no_input(popart):
    session = ready(inferring(popart, exported(small().eval()),
                              syntheticDataMode=popart.SyntheticDataMode.RandomNormal,
                              instrumentWithHardwareCycleCounter=True))
    session.run(popart.PyStepIO({}, {}))
    assert session.getCycleCount() > 0


def test_memory_runs_out(popart, machine, monkeypatch):
    data = exported(small().eval())
    machine.bytes_per_ipu = 100
    with pytest.raises(popart.OutOfMemoryException, match="Out of memory"):
        inferring(popart, data).prepareDevice()
    machine.bytes_per_ipu = None
    monkeypatch.setenv("POPART_DOUBLE_BYTES", "1:100")
    first = inferring(popart, data)
    first.prepareDevice()
    with pytest.raises(popart.OutOfMemoryException):
        inferring(popart, data).prepareDevice()


def test_a_run_fails_on_demand(popart, monkeypatch):
    monkeypatch.setenv("POPART_DOUBLE_FAILS", "0:2")
    session = ready(inferring(popart, exported(small().eval())))
    run(popart, session, x=images(2))
    with pytest.raises(popart.poplar_runtime_error, match="IPU 0"):
        run(popart, session, x=images(2))


def test_a_device_on_demand_is_attached_when_it_is_needed(popart, machine):
    machine.ipus = 1
    manager, demand = popart.DeviceManager(), popart.DeviceConnectionType.OnDemand
    devices = [manager.acquireAvailableDevice(1, connectionType=demand) for _ in range(2)]
    sessions = [popart.InferenceSession(exported(small().eval()), popart.DataFlow(1, ["y"]), device)
                for device in devices]
    ready(sessions[0])
    with pytest.raises(popart.popart_runtime_error, match="Failed to attach"):
        sessions[1].prepareDevice()
    devices[0].detach()
    run(popart, ready(sessions[1]), x=images(2))


def test_the_training_form_infers_with_the_statistics_of_the_batch(popart):
    model, x = small(), images(2)
    made = popart.GraphTransformer(exported(model, training=True))
    made.prepareNodesForTraining()
    found = run(popart, ready(inferring(popart, made.getModelProto())), x=x)["y"]
    np.testing.assert_allclose(found, model(torch.from_numpy(x)).detach(), rtol=1e-4, atol=1e-6)


def test_shapes_that_the_model_leaves_open_are_given(popart):
    data = exported(small().eval(), dynamic_axes={"x": {0: "batch"}})
    flow = popart.DataFlow(1, {"y": popart.AnchorReturnType("All")})
    device = popart.DeviceManager().createCpuDevice()
    with pytest.raises(popart.popart_exception, match="InputShapeInfo"):
        popart.InferenceSession(data, flow, device)
    shapes = popart.InputShapeInfo()
    shapes.add("x", popart.TensorInfo("FLOAT", [5, 3, 8, 8]))
    session = ready(popart.InferenceSession(data, flow, device, shapes))
    assert run(popart, session, x=images(5))["y"].shape == (5, 5)


def test_factors_need_what_enables_them(popart):
    data = exported(small().eval())
    for values, message in (({"replicatedGraphCount": 2}, "enableReplicatedGraphs"),
                            ({"accumulationFactor": 2}, "enableGradientAccumulation is false"),
                            ({"enableGradientAccumulation": True}, "only available when training"),
                            ({"enablePipelining": True}, "more than 1 IPU"),
                            ({"partialsTypeMatMuls": "double"}, "partials")):
        with pytest.raises(popart.popart_exception, match=message):
            inferring(popart, data, **values)
    with pytest.raises(popart.popart_exception, match="divisible"):
        inferring(popart, data, ipus=1, enableReplicatedGraphs=True, replicatedGraphCount=2)
    with pytest.raises(popart.popart_exception, match="not in Ir"):
        inferring(popart, data, anchors=["z"])
    with pytest.raises(popart.popart_exception, match="factor of the number"):
        inferring(popart, data, ("EveryN", 2), steps=3)


def test_pipelines_need_every_operation_placed(popart):
    def placed(*marked):
        builder = popart.Builder(opsets={"ai.onnx": 11, "ai.graphcore": 1})
        name = builder.addInputTensor(popart.TensorInfo("FLOAT", [2]), "x")
        for ipu in marked:
            name = builder.aiOnnx.relu([name])
            if ipu is not None:
                builder.virtualGraph(name, ipu)
        builder.addOutputTensor(name)
        return builder.getModelProto(), name

    manual = {"enablePipelining": True, "virtualGraphMode": popart.VirtualGraphMode.Manual}
    for marks, steps, message in (((None, None), 2, "no Ops have been annotated"),
                                  ((0, None), 2, "Either all Ops"), ((0, 2), 2, "on none of"),
                                  ((1, 0), 2, "increasing"), ((0, 1), 1, "batchesPerStep")):
        data, out = placed(*marks)
        with pytest.raises(popart.popart_exception, match=message):
            inferring(popart, data, steps=steps, ipus=2, anchors=[out], **manual)
    data, out = placed(0, 1)
    with pytest.raises(popart.popart_exception, match="has virtualGraphId set"):
        inferring(popart, data, anchors=[out])
    inferring(popart, data, steps=2, ipus=2, anchors=[out], **manual)
    data, out = placed(None, None)
    inferring(popart, data, steps=2, ipus=2, anchors=[out], enablePipelining=True,
              virtualGraphMode=popart.VirtualGraphMode.Auto)


# -- training ----------------------------------------------------------------------------------


def training(popart, optimizer, model=None, steps=1, ipus=1, data=None, loss=None, **values):
    """Return a session that trains a small model with the loss of log-probabilities."""
    made = popart.GraphTransformer(data or exported(model or small(), training=True))
    made.prepareNodesForTraining()
    builder = popart.Builder(made.getModelProto())
    labels = builder.addInputTensor(popart.TensorInfo("INT32", [2]), "labels")
    log = builder.aiOnnxOpset11.logsoftmax(["y"])
    loss = builder.aiGraphcore.nllloss([log, labels], **(loss or {"inputIsLogProbability": True}))
    flow = popart.DataFlow(steps, {loss: popart.AnchorReturnType("All")})
    return popart.TrainingSession(builder.getModelProto(), flow, loss, optimizer,
                                  popart.DeviceManager().acquireAvailableDevice(ipus),
                                  userOptions=options(popart, **values)), loss


def labels(*shape):
    return np.random.default_rng(1).integers(0, 5, shape).astype(np.int32)


def weights(popart, session, names_and_shapes):
    session.weightsToHost()
    found = {name: np.zeros(tuple(shape), np.float32) for name, shape in names_and_shapes}
    session.readWeights(popart.PyWeightsIO(found))
    return found


def assert_trained(popart, session, model, rtol=1e-5):
    found = weights(popart, session, [(name, value.shape) for name, value in
                                      model.named_parameters()])
    for name, value in model.named_parameters():
        np.testing.assert_allclose(found[name], value.detach(), rtol=rtol, atol=1e-6,
                                   err_msg=name)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_sgd_is_torchs(popart, mean, separate):
    """Momentum, decay, loss scaling, two accumulated micro-batches on each of two replicas."""
    model, steps = small(), 3
    kinds = popart.SGDAccumulatorAndMomentum
    optimizer = popart.SGD({"defaultLearningRate": (0.05, False), "defaultMomentum": (0.9, True),
                            "defaultWeightDecay": (0.01, True), "lossScaling": (16.0, True)},
                           accumulatorAndMomentum=kinds.Separate if separate else kinds.Combined)
    reduction = popart.ReductionType.Mean if mean else popart.ReductionType.Sum
    session, loss = training(
        popart, optimizer, model, steps, 2, enableReplicatedGraphs=True, replicatedGraphCount=2,
        enableGradientAccumulation=True, accumulationFactor=2,
        accumulationAndReplicationReductionType=reduction)
    x, y = images(steps, 2, 2, 2), labels(steps, 2, 2, 2)
    losses = run(popart, ready(session), x=x, labels=y)[loss]
    reference = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    assert losses.shape == (3, 2, 2)
    for step in range(steps):
        reference.zero_grad()
        for part in range(2):
            for replica in range(2):
                found = torch.nn.functional.cross_entropy(
                    model(torch.from_numpy(x[step, part, replica])),
                    torch.from_numpy(y[step, part, replica]).long())
                assert losses[step, part, replica] == pytest.approx(found.item(), rel=1e-5)
                (found / (4 if mean else 1)).backward()
        reference.step()
    assert_trained(popart, session, model)


def test_statistics_are_those_of_the_first_replica(popart):
    model, x = small(), images(2, 2)
    session, _ = training(popart, popart.ConstSGD(0.1), model, ipus=2, replicatedGraphCount=2,
                          enableReplicatedGraphs=True)
    shapes = [("1.running_mean", (4,)), ("1.running_var", (4,))]
    before = weights(popart, ready(session), shapes)
    run(popart, session, x=x, labels=labels(2, 2))
    after = weights(popart, session, shapes)
    seen = model[0](torch.from_numpy(x[0])).detach()
    # ONNX's variance is that of the population, torch's is estimated from a sample
    for name, value in (("1.running_mean", seen.mean((0, 2, 3))),
                        ("1.running_var", seen.var((0, 2, 3), unbiased=False))):
        np.testing.assert_allclose(after[name], 0.9 * before[name] + 0.1 * value.numpy(),
                                   rtol=1e-5, atol=1e-7)


def test_sgd_with_dampening_and_values_of_its_own(popart):
    values = {"defaultLearningRate": (0.1, False), "defaultMomentum": (0.8, True),
              "defaultDampening": (0.5, True), "defaultWeightDecay": (0.1, True),
              "defaultVelocityScaling": (4.0, True)}
    optimizer = popart.SGD(values)
    optimizer.insertSpecific("6.bias", {"weightDecay": (0.0, True), "learningRate": (0.2, False)})
    model = small()
    session, _ = training(popart, optimizer, model, 2)
    x, y = images(2, 2), labels(2, 2)
    run(popart, ready(session), x=x, labels=y)
    velocity = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for step in range(2):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x[step])),
                                          torch.from_numpy(y[step]).long()).backward()
        with torch.no_grad():
            for name, w in model.named_parameters():
                rate, decay = (0.2, 0.0) if name == "6.bias" else (0.1, 0.1)
                velocity[name] = 0.8 * velocity[name] + 0.5 * (w.grad + decay * w)
                w -= rate * velocity[name]
    assert_trained(popart, session, model)


def test_adam_is_torchs(popart):
    model = small()
    optimizer = popart.Adam({"defaultLearningRate": (0.01, False), "defaultEps": (1e-8, True),
                             "defaultWeightDecay": (0.1, True), "lossScaling": (8.0, True)})
    session, _ = training(popart, optimizer, model, 3)
    x, y = images(3, 2), labels(3, 2)
    run(popart, ready(session), x=x, labels=y)
    reference = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    for step in range(3):
        reference.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x[step])),
                                          torch.from_numpy(y[step]).long()).backward()
        reference.step()
    # where a gradient is zero but for rounding, Adam makes it a whole step
    found = weights(popart, session, [("6.weight", (5, 4)), ("6.bias", (5,)),
                                      ("Step___6.bias", ())])
    np.testing.assert_allclose(found["6.weight"], model[6].weight.detach(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["6.bias"], model[6].bias.detach(), rtol=1e-3, atol=1e-5)
    assert found["Step___6.bias"] == 3


def test_rmsprop_is_torchs(popart):
    model = small()
    modes = popart.WeightDecayMode
    optimizer = popart.Adaptive({"defaultLearningRate": (0.01, False), "defaultAlpha": (0.9, True),
                                 "defaultMomentum": (0.5, True), "defaultEps": (1e-3, True),
                                 "defaultWeightDecay": (0.01, True)},
                                weight_decay_mode=modes.L2Regularization)
    session, _ = training(popart, optimizer, model, 3)
    x, y = images(3, 2), labels(3, 2)
    run(popart, ready(session), x=x, labels=y)
    reference = torch.optim.RMSprop(model.parameters(), 0.01, 0.9, 1e-3, 0.01, 0.5)
    for step in range(3):
        reference.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x[step])),
                                          torch.from_numpy(y[step]).long()).backward()
        reference.step()
    assert_trained(popart, session, model, 1e-3)


def test_a_training_continues_from_its_file(popart, tmp_path):
    def optimizer():
        return popart.SGD({"defaultLearningRate": (0.1, False), "defaultMomentum": (0.9, True),
                           "defaultWeightDecay": (0.1, True)})

    import onnx

    x, y, path = images(2, 2), labels(2, 2), str(tmp_path / "kept.onnx")
    whole, _ = training(popart, optimizer())
    ready(whole)
    for step in range(2):
        run(popart, whole, x=x[step], labels=y[step])
        if step == 0:
            whole.modelToHost(path)
    assert "Accl___6.weight" in {one.name for one in onnx.load(path).graph.initializer}
    flow = popart.DataFlow(1, {"Nll:0": popart.AnchorReturnType("All")})
    rest = popart.TrainingSession(path, flow, "Nll:0", optimizer(),
                                  popart.DeviceManager().createCpuDevice())
    run(popart, ready(rest), x=x[1], labels=y[1])
    shapes = [("0.weight", (4, 3, 3, 3)), ("6.weight", (5, 4)), ("Accl___6.weight", (5, 4)),
              ("1.running_var", (4,))]
    for one, other in zip(weights(popart, whole, shapes).values(),
                          weights(popart, rest, shapes).values()):
        np.testing.assert_array_equal(one, other)


def test_rates_change_and_constants_do_not(popart):
    def optimizer(rate, momentum=0.9, constant=False):
        return popart.SGD({"defaultLearningRate": (rate, constant),
                           "defaultMomentum": (momentum, True)})

    session, _ = training(popart, optimizer(0.1))
    ready(session)
    before = weights(popart, session, [("6.weight", (5, 4))])["6.weight"]
    session.updateOptimizerFromHost(optimizer(0.0))
    run(popart, session, x=images(2), labels=labels(2))
    after = weights(popart, session, [("6.weight", (5, 4))])["6.weight"]
    np.testing.assert_array_equal(before, after)
    adam = popart.Adam({"defaultLearningRate": (0.1, False)})
    for wrong in (optimizer(0.1, 0.8), optimizer(0.1, constant=True), adam):
        with pytest.raises(popart.popart_exception):
            session.updateOptimizerFromHost(wrong)


def test_optimizers_refuse_what_makes_no_sense(popart):
    for values in ({"defaultLearningRate": (-1.0, False)}, {"defaultLearningRate": (0.0, True)},
                   {"learningRate": (0.1, True)}, {"lossScaling": (0.0, True)},
                   {"defaultVelocityScaling": (0.0, True)},
                   {"nesterov": (1.0, True), "defaultDampening": (0.1, True)}):
        with pytest.raises(popart.popart_exception):
            popart.SGD(values)
    with pytest.raises(TypeError):
        popart.SGD({"defaultLearningRate": 0.1})
    assert popart.SGD({}).learningRates().getDefault().val() == 0.1
    assert popart.Adam({}).epss().getDefault().val() == 1e-6


def test_half_precision_weights_stay_halves(popart):
    made = popart.GraphTransformer(exported(small(torch.nn.ReLU), training=True))
    made.convertFloatsToHalfs()
    session, _ = training(popart, popart.ConstSGD(0.1), data=made.getModelProto())
    run(popart, ready(session), x=images(2).astype(np.float16), labels=labels(2))
    session.weightsToHost()
    found = np.zeros((5, 4), np.float16)
    session.readWeights(popart.PyWeightsIO({"6.weight": found}))
    assert np.abs(found - small()[6].weight.detach().numpy()).max() > 1e-3
    with pytest.raises(popart.popart_runtime_error, match="non matching"):
        session.readWeights(popart.PyWeightsIO({"6.weight": np.zeros((5, 4), np.float32)}))


def test_losses_reduce_as_given(popart):
    log = torch.log_softmax(small()(torch.from_numpy(images(2))), 1)
    y = np.array([1, 3], np.int32)
    rows = -log[[0, 1], [1, 3]].detach().numpy()
    kinds = popart.ReductionType
    for given, wanted in (({"reduction": kinds.Mean}, rows.mean()), ({"reduction": kinds.Sum},
                          rows.sum()), ({"ignoreIndex": 3}, rows[0])):
        session, loss = training(popart, popart.ConstSGD(0.1), loss={
            "inputIsLogProbability": True, **given})
        assert run(popart, ready(session), x=images(2), labels=y)[loss] == pytest.approx(wanted)
    with pytest.raises(popart.popart_exception, match="must be a scalar"):
        training(popart, popart.ConstSGD(0.1), loss={"reduction": kinds.NoReduction})


def test_training_refuses_what_has_no_gradient(popart):
    import onnx

    flow, device = popart.DataFlow(1, {}), popart.DeviceManager().createCpuDevice()
    model = onnx.load_from_string(exported(small(), training=True))
    norm, = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    del norm.output[1:]
    data = model.SerializeToString()
    builder = popart.Builder(data)
    loss = builder.aiGraphcore.identityloss(["y"])
    with pytest.raises(popart.popart_exception, match="inference mode"):
        popart.TrainingSession(builder.getModelProto(), flow, loss, popart.ConstSGD(0.1), device)
    with pytest.raises(popart.popart_exception, match="Could not find loss"):
        popart.TrainingSession(data, flow, "z", popart.ConstSGD(0.1), device)


def test_a_pipeline_that_trains_needs_depth(popart):
    values = {"enablePipelining": True, "virtualGraphMode": popart.VirtualGraphMode.Auto,
              "enableGradientAccumulation": True}
    with pytest.raises(popart.popart_exception, match=r"gradient accumulation factor.*\(3\)"):
        training(popart, popart.ConstSGD(0.1), ipus=2, accumulationFactor=2, **values)
    training(popart, popart.ConstSGD(0.1), ipus=2, accumulationFactor=3, **values)


def test_dropout_follows_the_seed(popart):
    model = torch.nn.Sequential(*small()[:-1], torch.nn.Dropout(0.5), torch.nn.Linear(4, 5))
    session, loss = training(popart, popart.ConstSGD(1e-9), model)
    ready(session)
    found = []
    for seed in (1, 1, 2):
        session.setRandomSeed(seed)
        found.append([float(run(popart, session, x=images(2), labels=labels(2))[loss])
                      for _ in range(4)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] != pytest.approx(found[2], rel=1e-5)
    assert len(set(found[0])) > 1
