"""The rules of `tests/doubles/rules/popart.json`, from both sides."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import re
from pathlib import Path

import engine_matrix as matrix
import numpy as np
import pytest
import torch
from chosen import optimizer
from sample_norms import use_sample_norms
from states import assert_close
from torch import nn

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    TrainingBatch,
    TrainingSetup,
)
from ipucnn.data.mixup import draw
from ipucnn.models.build import create_model
from ipucnn.onnx.network import read_network
from ipucnn.plugins.backends.popart.engine import PopArtBackend
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions

FOLDER = Path(__file__).parent
RULES = FOLDER.parents[1] / "doubles" / "rules"
SIZE = 16


@pytest.fixture(autouse=True)
def popart(popart_double):
    """The double, as `import popart` gives it."""
    return popart_double


@pytest.fixture
def machine(popart):
    """The device that the double simulates."""
    return popart._machine.MACHINE


@pytest.mark.parametrize("name", ["popart", "poptorch"])
def test_every_rule_has_a_source_and_a_test_of_either_side(name):
    for rule in json.loads((RULES / f"{name}.json").read_text())["rules"]:
        assert re.search(r"\.(cpp|hpp|py):\d+", rule["source"]), rule
        for side in ("refused", "avoided"):
            file, test = rule[side].split("::")
            assert f"def {test}(" in (FOLDER / file).read_text(), rule[side]


# -- networks and sessions ---------------------------------------------------------------------


def network(norm=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=not norm), nn.BatchNorm2d(8) if norm else nn.ReLU(),
            nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 5))


def session(backend=None, model=None, options=None, size=SIZE, setup=None, **plan):
    made = (backend or PopArtBackend(PopArtOptions(**(options or {})))).training(
        network() if model is None else copy.deepcopy(model), ExecutionPlan(**{
            "precision": "32.32", "training": True, "seed": 1, "micro_batch": 4, **plan}),
        TrainingSetup(**{"loss": CrossEntropy(), "optimizer": optimizer(
            "sgd", weight_decay=0.0, momentum=0.9), **(setup or {})}), size)
    made.compile()
    return made


def batch(count, seed=0, size=SIZE, classes=5):
    generator = torch.Generator().manual_seed(seed)
    return TrainingBatch(
        torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator),
        torch.randint(0, classes, (count,), generator=generator))


def logits(model, options=None, **plan):
    with PopArtBackend(PopArtOptions(**(options or {}))).inference(
            copy.deepcopy(model), ExecutionPlan(**{"precision": "32.32", "micro_batch": 2,
                                                   **plan}), SIZE) as made:
        made.compile()
        return made(batch(2).images), made


# -- files -------------------------------------------------------------------------------------


def stored(raw):
    """Return a model with weights and a constant of 16 and 8 bits, as bytes or as numbers."""
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name, values):
        if raw:
            return numpy_helper.from_array(values, name)
        wide = values.view(np.uint16 if values.dtype == np.float16 else np.uint8)
        return TensorProto(name=name, dims=values.shape, int32_data=wide.flatten().tolist(),
                           data_type=helper.np_dtype_to_tensor_dtype(values.dtype))

    half = np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float16)
    nodes = [helper.make_node("Conv", ["images", "weight"], ["convolved"]),
             helper.make_node("GlobalAveragePool", ["convolved"], ["pooled"]),
             helper.make_node("Flatten", ["pooled"], ["flat"]),
             helper.make_node("Constant", [], ["kept"], value=tensor(
                 "kept", np.array([[True, False, True, True, False]]))),
             helper.make_node("Where", ["kept", "flat", "other"], ["logits"])]
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT16, [2, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT16, [2, 5])],
        [tensor("weight", half), tensor("other", np.full((1, 5), 7, np.float16))])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def test_values_in_wider_numbers_are_misread(popart):
    from onnx import numpy_helper

    right, wrong = (popart._models.misread(stored(raw)).graph for raw in (True, False))
    assert right == stored(raw=True).graph
    assert not np.array_equal(*(numpy_helper.to_array(one.initializer[0])
                                for one in (right, wrong)))


def test_files_with_values_in_wider_numbers_are_read(popart, tmp_path):
    from onnx import save

    images, results = batch(2).images.half(), []
    for raw in (True, False):
        save(stored(raw), str(tmp_path / "half.onnx"))
        plan = ExecutionPlan(precision="16.16", normalisation="none", eight_bit_io=False,
                             micro_batch=2)
        with PopArtBackend().inference(read_network(tmp_path / "half.onnx"), plan, SIZE) as made:
            made.compile()
            results.append(made(images))
    assert torch.equal(*results)


# -- calls -------------------------------------------------------------------------------------


def graph(popart, kind="FLOAT", shape=(2,)):
    builder = popart.Builder()
    return builder, builder.addInputTensor(popart.TensorInfo(kind, list(shape)), "x")


def infer(popart, builder, out, ipus=1, anchor=None, **values):
    builder.addOutputTensor(out)
    options = popart.SessionOptions()
    for name, value in values.items():
        setattr(options, name, value)
    return popart.InferenceSession(
        builder.getModelProto(), popart.DataFlow(1, {out: anchor or popart.AnchorReturnType(
            "All")}), popart.DeviceManager().acquireAvailableDevice(ipus), userOptions=options)


def test_calls_with_arguments_of_other_types_are_refused(popart):
    builder, x = graph(popart)
    first, second = (builder.aiOnnxOpset11.relu([x]) for _ in range(2))
    for call in (builder.pipelineStage, builder.recomputeOutput):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            call({first}, popart.RecomputeType.Recompute if call == builder.recomputeOutput else 1)
    with pytest.raises(TypeError):
        builder.addNodeAttribute("__pipeline_stage", 1, first)
    builder.pipelineStage(first, 1)
    builder.addNodeAttribute("__pipeline_stage", 1, {second})
    builder.virtualGraph([first], 1)
    builder.recomputeOutputInBackwardPass({second})
    with builder.pipelineStage(2), builder.recomputeOutput(popart.RecomputeType.Recompute):
        third = builder.aiOnnxOpset11.relu([second])
    assert builder.getInt64NodeAttribute("__pipeline_stage", {third}) == 2


def test_a_node_is_found_by_all_its_outputs(popart):
    import onnx

    builder = popart.Builder(several(onnx, ["y", ""]))
    with pytest.raises(popart.popart_exception, match="Must specify all outputs"):
        builder.addNodeAttribute("mark", 1, {"y"})
    builder.addNodeAttribute("mark", 1, {"y", ""})


def several(onnx, outputs):
    node = onnx.helper.make_node("Split", ["x"], outputs, axis=0)
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph([node], "g", [value("x", 1, [4])], [value("y", 1, [2])])
    return onnx.helper.make_model(made, ir_version=4, opset_imports=[
        onnx.helper.make_opsetid("", 11)]).SerializeToString()


def test_outputs_that_are_left_out_are_counted(popart):
    import onnx

    from ipucnn.plugins.backends.popart.placing import place

    data = several(onnx, ["y", ""])
    builder, nodes = popart.Builder(data), onnx.load_from_string(data).graph.node
    place(builder, nodes, [1], ())
    assert builder.getInt64NodeAttribute("__pipeline_stage", {"y", ""}) == 1
    nodes = onnx.load_from_string(several(onnx, ["y", "", ""])).graph.node
    with pytest.raises(UsageError, match="leaves out several of its outputs"):
        place(builder, nodes, [1], ())


# -- average pools -----------------------------------------------------------------------------


def test_average_pools_that_count_padding_are_refused(popart):
    builder, x = graph(popart, shape=(1, 3, 8, 8))
    out = builder.aiOnnxOpset11.averagepool([x], [2, 2], count_include_pad=1)
    with pytest.raises(popart.popart_exception, match="`count_include_pad` is not supported"):
        infer(popart, builder, out)


def pooling(pad):
    """Return a network with the pools of DenseNet, and with padded ones that count padding."""
    side = (SIZE - 2) // 2 - 4 + 2 * pad
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AvgPool2d(2, 2), nn.Conv2d(8, 8, 3),
                             nn.AvgPool2d(3, 1, pad), nn.Flatten(), nn.Linear(8 * side ** 2, 5))


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("plan", [
    {}, {"precision": "16.16"}, {"pipeline_splits": ("2",), "device_iterations": 2}], ids=str)
def test_average_pools_do_not_count_padding(popart, pad, plan):
    model = pooling(pad).eval()
    images = batch(2 * plan.get("device_iterations", 1)).images
    results = []
    for backend in (PopArtBackend(), TorchBackend()):
        where = plan if isinstance(backend, PopArtBackend) else {}
        with backend.inference(copy.deepcopy(model), ExecutionPlan(**{
                "precision": "32.32", "micro_batch": 2, **where}), SIZE) as made:
            made.compile()
            results.append(torch.cat([made(part) for part in images.split(
                made.samples_per_call)]))
    assert_close({"logits": results[0]}, {"logits": results[1]},
                 2e-2 if plan.get("precision") else 1e-5)


@pytest.mark.parametrize("opset", [10, 11])
def test_average_pools_of_files_do_not_count_padding(popart, tmp_path, opset):
    from onnx import TensorProto, helper, save

    nodes = [helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[3, 3],
                              strides=[2, 2], pads=[1, 0, 2, 1], count_include_pad=1),
             helper.make_node("ReduceMean", ["pooled"], ["logits"], axes=[2, 3], keepdims=0)]
    model = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [2, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 3])])
    save(helper.make_model(model, opset_imports=[helper.make_opsetid("", opset)], ir_version=6),
         str(tmp_path / "pool.onnx"))
    images = batch(2).images.float()
    plan = ExecutionPlan(precision="32.32", normalisation="none", eight_bit_io=False,
                         micro_batch=2)
    with PopArtBackend().inference(read_network(tmp_path / "pool.onnx"), plan, SIZE) as made:
        made.compile()
        found = made(images)
    pooled = nn.functional.avg_pool2d(nn.functional.pad(images, (0, 1, 1, 2)), 3, 2)
    torch.testing.assert_close(found, pooled.mean((2, 3)))


def test_average_pools_train(popart):
    model = pooling(1)
    weights = []
    for backend in (PopArtBackend(), TorchBackend()):
        with session(backend, model) as made:
            made.step(batch(4), 0)
            weights.append(made.weights())
    assert_close(*weights)


# -- PReLU -------------------------------------------------------------------------------------


def parametric():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.PReLU(8), nn.Conv2d(8, 8, 3),
                             nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def stepped(backend, **plan):
    with session(backend, parametric(), **plan) as made:
        made.step(batch(4 * plan.get("gradient_accumulation", 1)), 0)
        return made.weights()


def test_prelu_has_no_gradient(popart, monkeypatch):
    graphs = importlib.import_module("ipucnn.plugins.backends.popart.training_graph")
    monkeypatch.setattr(graphs, "differentiable_prelu", lambda model: model)
    with pytest.raises(IpucnnError, match="weight has no gradient"):  # PopART leaves it unchanged
        stepped(PopArtBackend())


@pytest.mark.parametrize("precision", ["32.32", "16.32", "16.16"])
def test_layers_before_prelu_are_trained(popart, precision):
    assert_close(stepped(PopArtBackend(), precision=precision), stepped(TorchBackend()),
                 1e-5 if precision == "32.32" else 2e-2)


def test_prelu_in_a_pipeline(popart):
    assert_close(stepped(PopArtBackend(), pipeline_splits=("3",), gradient_accumulation=4),
                 stepped(TorchBackend(), gradient_accumulation=4))


# -- types -------------------------------------------------------------------------------------


def test_numbers_in_half_precision_are_refused(popart):
    for operator, extra in (("clip", ()), ("pad", (np.zeros(2, np.int64),))):
        for kind, accepted in ((np.float16, False), (np.float32, True)):
            builder, x = graph(popart, "FLOAT16")
            ops = builder.aiOnnxOpset11
            more = [ops.constant(value) for value in (*extra, np.array(1, kind))]
            out = getattr(ops, operator)([x, *more])
            if accepted:
                infer(popart, builder, out)
            else:
                with pytest.raises(popart.popart_exception, match="incorrect type"):
                    infer(popart, builder, out)


def test_types_that_differ_are_refused(popart):
    builder, x = graph(popart, "FLOAT16")
    out = builder.aiOnnxOpset11.add([x, builder.aiOnnxOpset11.constant(np.ones(2, np.float32))])
    with pytest.raises(popart.popart_exception, match="differ: FLOAT and"):
        infer(popart, builder, out)


def test_random_numbers_in_another_type_are_refused(popart):
    builder, x = graph(popart, "FLOAT16")
    ops = builder.aiOnnxOpset11
    out = ops.add([x, ops.randomuniformlike([x], dtype=1)])
    with pytest.raises(popart.popart_exception, match="differ"):
        infer(popart, builder, out)


class Padded(nn.Module):
    """Pads with zeros and with a number, and clips between numbers."""

    def forward(self, x):
        x = nn.functional.pad(x, (1, 1, 0, 0), value=0.25)
        x = nn.functional.pad(x, (0, 0, 1, 0))
        return x.clamp(-1.5, 1.75).mean((2, 3))


def test_numbers_stay_in_single_precision():
    whole, _ = logits(Padded())
    half, _ = logits(Padded(), precision="16.16")
    torch.testing.assert_close(half, whole, rtol=0, atol=2e-3)


FAMILIES = [("mobilenet", 32, {}), ("efficientnet-b0", 32, {}), ("resnet8-cifar", 16, {}),
            ("resnet18", 32, {"normlayer": "group"})]


@pytest.mark.parametrize(("name", "size", "given"), FAMILIES[1:])
@pytest.mark.parametrize("precision", ["16.16", "16.32"])
def test_families_train_in_half_precision(name, size, given, precision):
    """The first of them runs in the matrix; see `test_popart_matrix.py`."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, weights="random", **given).module
    made = session(model=model, size=size, precision=precision, micro_batch=2)
    assert made.facts["weights_type"] == {"16.16": "float16", "16.32": "float32"}[precision]
    assert made.step(batch(2, size=size), 0).loss == pytest.approx(1.6, abs=1.0)
    for value in made.weights().values():
        assert torch.isfinite(value).all()


def test_master_weights_keep_small_updates(popart):
    """An update that a half loses is kept by a weight in single precision."""
    moved = {}
    for precision in ("16.16", "16.32"):
        made = session(precision=precision, model=network(norm=False), setup={
            "optimizer": optimizer("sgd", lr=1e-6, weight_decay=0.0, momentum=0.0)})
        before = made.weights()["3.weight"]
        made.step(batch(4), 0)
        moved[precision] = float((made.weights()["3.weight"] - before).abs().max())
    assert moved["16.16"] == 0 < moved["16.32"]


def test_running_statistics_are_in_single_precision(popart):
    import onnx

    made = session(precision="16.16")
    proto = onnx.load_from_string(made._graph.proto)
    kinds = {one.name: one.data_type for one in proto.graph.initializer}
    assert (kinds["1.running_var"], kinds["1.weight"]) == (1, 10)
    made.step(batch(4), 0)
    assert (made.weights()["1.running_var"].half().float()
            != made.weights()["1.running_var"]).any()


# -- loss scaling ------------------------------------------------------------------------------


def test_automatic_loss_scaling_needs_halves(popart, monkeypatch):
    from ipucnn.plugins.backends.popart import engine

    monkeypatch.setattr(engine, "check_training", lambda *_: None)
    with pytest.raises(IpucnnError, match="No tracked gradient"):
        session(options={"auto_loss_scaling": True})
    session(options={"auto_loss_scaling": True}, precision="16.16")
    session(options={"auto_loss_scaling": True}, precision="16.32")


def test_automatic_loss_scaling_in_single_precision_is_refused(machine):
    with pytest.raises(UsageError, match=r"precision 32\.32 has none"):
        session(options={"auto_loss_scaling": True})
    assert machine.events == []


# -- the cache ---------------------------------------------------------------------------------


class Shifted(nn.Module):
    """Adds a constant, whose value is in no weight and no structure, to means of the image."""

    def __init__(self, by):
        super().__init__()
        self.by = torch.tensor([[by, -by, 0.0]])

    def forward(self, x):
        return x.mean((2, 3)) + self.by


def cached(popart, tmp_path, by, **values):
    builder, x = graph(popart)
    out = builder.aiOnnxOpset11.add([x, builder.aiOnnxOpset11.constant(
        np.full(2, by, np.float32))])
    made = infer(popart, builder, out, enableEngineCaching=True, cachePath=str(tmp_path), **values)
    made.prepareDevice()
    anchors = made.initAnchorArrays()
    made.run(popart.PyStepIO({x: np.zeros(2, np.float32)}, anchors))
    return anchors[out].tolist(), made


def test_a_cached_program_brings_what_the_hash_does_not_see(popart, machine, tmp_path):
    assert cached(popart, tmp_path, 1, defaultBufferingDepth=2)[0] == [1, 1]
    found, made = cached(popart, tmp_path, 3, defaultBufferingDepth=5,
                         instrumentWithHardwareCycleCounter=True)
    assert found == [1, 1]  # the first one's constant
    assert made._options.defaultBufferingDepth == 2
    with pytest.raises(popart.popart_runtime_error, match="Invalid id for cycle counter"):
        made.getCycleCount()
    assert cached(popart, tmp_path, 3, enableStableNorm=True)[0] == [3, 3]


def test_programs_of_one_hash_are_kept_apart(machine, tmp_path):
    cache = {"model_cache_path": str(tmp_path)}
    first, _ = logits(Shifted(1.0), cache)
    second, _ = logits(Shifted(3.0), cache)
    torch.testing.assert_close(second - first, torch.tensor([[2.0, -2.0, 0.0]] * 2), rtol=0,
                               atol=1e-5)
    logits(Shifted(1.0), {**cache, "prefetch_depth": 4})
    _, counted = logits(Shifted(1.0), {**cache, "report_hw_cycle_count": True})
    assert counted.facts["cycles"] > 0
    logits(Shifted(1.0), cache)
    assert [event["event"] for event in machine.events if event["event"] != "run"] == [
        *["compiled"] * 4, "loaded"]


RMSPROP = {"optimizer_eps": 1e-3, "rmsprop_decay": 0.9, "momentum": 0.5}


def test_a_cached_program_has_the_variant_of_rmsprop_that_it_was_compiled_with(popart, machine):
    keys = [popart.Adaptive({"defaultEps": (1e-3, True)}, rmsprop_tf_variant=variant)._compiled()
            for variant in (False, True)]
    assert keys[0] == keys[1]


def test_variants_of_rmsprop_are_kept_apart(machine, tmp_path):
    found = []
    for name in ("rmsprop", "rmsprop_tf"):
        for options in ({"model_cache_path": str(tmp_path)}, {}):
            made = session(options=options, setup={
                "optimizer": optimizer(name, weight_decay=0.0, **RMSPROP)})
            made.step(batch(4), 0)
            found.append(made.weights())
    assert_close(found[2], found[3], 0)
    assert [event["event"] for event in machine.events
            if event["event"] in ("compiled", "loaded")] == ["compiled"] * 4


# -- batch norm --------------------------------------------------------------------------------


def test_the_gradient_of_a_batch_norm_is_off_by_the_sample(popart, monkeypatch):
    """By about 1 / 2N, for N values of a channel."""
    steps = {"setup": {"optimizer": optimizer("sgd", lr=1.0, weight_decay=0.0, momentum=0.0)},
             "micro_batch": 2, "size": 8}
    before = network().state_dict()["0.weight"]
    moved = []
    for backend in (PopArtBackend(), TorchBackend()):
        made = session(backend, **steps)
        made.step(batch(2, size=8), 0)
        moved.append(made.weights()["0.weight"] - before)
    values = 2 * 3 * 3
    assert float(moved[0].norm() / moved[1].norm()) == pytest.approx(
        (1 - 1 / values) ** 0.5, abs=0.03)
    use_sample_norms(popart, monkeypatch)
    made = session(TorchBackend(), **steps)
    made.step(batch(2, size=8), 0)
    torch.testing.assert_close(made.weights()["0.weight"] - before, moved[0], rtol=1e-4, atol=1e-6)


def test_a_batch_norm_of_one_value_is_refused(machine):
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(UsageError, match="one value for each channel") as caught:
        session(model=model, size=8, micro_batch=1)
    assert "--batch-size" in caught.value.hint
    session(model=model, size=8, micro_batch=2)


# -- accumulation ------------------------------------------------------------------------------


def test_a_sum_in_half_precision_overflows():
    with pytest.raises(NonFiniteLoss) as caught:
        matrix.accumulated_losses("Post")
    assert caught.value.update > 0


def test_many_micro_batches_in_half_precision_learn():
    losses = matrix.accumulated_losses("Running")
    assert losses[2] < 0.5 * losses[0]


@pytest.mark.parametrize(("name", "precision", "strategy"), [
    ("sgd", "16.16", "Running"), ("adam", "16.16", "Running"), ("sgd_combined", "16.16", "Post"),
    ("sgd", "32.32", "Post"), ("sgd", "16.32", "Post")])
def test_when_sums_are_divided(popart, name, precision, strategy):
    from ipucnn.plugins.backends.popart.training_settings import training_options

    plan = ExecutionPlan(precision=precision, training=True, gradient_accumulation=2)
    found = training_options(plan, PopArtOptions(), name)
    assert found.meanAccumulationAndReplicationReductionStrategy.name == strategy


# -- velocity ----------------------------------------------------------------------------------


def combined(loss_scaling=4.0):
    return session(setup={"loss_scaling": loss_scaling, "optimizer": optimizer(
        "sgd_combined", lr=0.05, weight_decay=0.0, momentum=0.9)})


def test_another_velocity_scaling_shrinks_the_momentum(monkeypatch):
    expected = combined()
    for number in range(2):
        expected.step(batch(4, number), number)
    made = combined()
    made.step(batch(4, 0), 0)
    made._velocity_scaling *= 2
    made._update_optimizer()
    made.step(batch(4, 1), 1)
    moved = [one.weights()["3.weight"] for one in (made, expected)]
    assert float((moved[0] - moved[1]).abs().max()) > 1e-4


def test_velocity_scaling_stays_with_the_velocity():
    expected = combined()
    made = combined()
    for number in range(3):
        for one, scaling in ((expected, 4.0), (made, 4.0 * 2**number)):
            one.set_rates(0.05, scaling)
            one.step(batch(4, number), number)
    assert_close(made.weights(), expected.weights())
    again = combined(loss_scaling=64.0)  # restored with another loss scaling
    again.load(made.weights(), made.state())
    again.set_rates(0.05, 4.0)
    for one in (expected, again):
        one.set_rates(0.05, 4.0)
        one.step(batch(4, 3), 3)
    assert_close(again.weights(), expected.weights())


# -- recomputation -----------------------------------------------------------------------------


def test_recomputation_after_the_loss_is_refused(popart):
    builder, x = graph(popart, shape=(2, 5))
    labels = builder.addInputTensor(popart.TensorInfo("INT32", [2]), "labels")
    weight = builder.addInitializedInputTensor(np.ones((5, 5), np.float32), "w")
    ops = builder.aiOnnxOpset11
    made = ops.matmul([x, weight])
    log = ops.logsoftmax([made])
    loss = builder.aiGraphcore.nllloss([log, labels], inputIsLogProbability=True)
    best = ops.argmax([made], axis=1, keepdims=0)
    plain = builder.getModelProto()
    for marked, accepted in ((made, True), (loss, False), (best, False)):
        builder = popart.Builder(plain)
        builder.recomputeOutputInBackwardPass({marked}, popart.RecomputeType.Recompute)
        flow = popart.DataFlow(1, {name: popart.AnchorReturnType("All") for name in (loss, best)})

        device = popart.DeviceManager().acquireAvailableDevice(1)
        given = (builder.getModelProto(), flow, loss, popart.ConstSGD(0.1), device)
        if accepted:
            popart.TrainingSession(*given)
        else:
            with pytest.raises(popart.popart_exception, match="ScheduledPreLoss::No"):
                popart.TrainingSession(*given)


# -- random numbers ----------------------------------------------------------------------------

ROUNDED = {"precision": "16.16", "options": {"enable_stochastic_rounding": True}}


def test_stochastic_rounding_is_seeded_by_the_call():
    """So updates in one call do not round as in several; dropout does not see a difference."""
    parts = [batch(4, seed) for seed in range(2)]
    both = TrainingBatch(torch.cat([one.images for one in parts]),
                         torch.cat([one.labels for one in parts]))
    single, joined = session(**ROUNDED), session(**ROUNDED, device_iterations=2)
    for number, part in enumerate(parts):
        single.step(part, number)
    joined.step(both, 0)
    weights = [made.weights()["3.weight"] for made in (single, joined)]
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0, atol=2e-3)
    again = session(**ROUNDED)
    for number, part in enumerate(parts):
        again.step(part, number)
    assert torch.equal(again.weights()["3.weight"], weights[0])


# -- transfers ---------------------------------------------------------------------------------


def test_overlap_without_its_options_is_refused(popart):
    kinds, sets = popart.ExchangeStrategy, popart.TileSet
    needed = {"useHostCopyOps": True, "enableExplicitMainLoops": True, "numIOTiles": 32,
              "virtualGraphMode": popart.VirtualGraphMode.Auto}
    for missing in (*needed, None):
        builder = popart.Builder()
        x = builder.addInputTensor(popart.TensorInfo("FLOAT", [2]),
                                   popart.InputSettings(sets.IO, kinds.OverlapLoops), "x")
        out = builder.aiOnnxOpset11.relu([x])
        values = {name: value for name, value in needed.items() if name != missing}
        if missing is None:
            infer(popart, builder, out, **values)
            with pytest.raises(popart.popart_exception, match="Unsupported output mode"):
                infer(popart, builder, out, anchor=popart.AnchorReturnType(
                    "Final", sets.IO, kinds.OverlapLoops), **values)
            continue
        if missing == "useHostCopyOps":
            values["enableExplicitMainLoops"] = False
        with pytest.raises(popart.popart_exception, match=r"IO tiles|require"):
            infer(popart, builder, out, **values)


@pytest.mark.parametrize("recompute", [
    {}, {"recompute": "auto"}, {"recompute": "manual"},
    {"recompute": "manual", "recompute_checkpoints": ("0",)}])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_transfers_overlap_without_changing_anything(popart, accumulation, recompute):
    plan = {"gradient_accumulation": accumulation, "micro_batch": 2, **recompute}
    plain, tiled = session(**plan), session(**plan, options={"num_io_tiles": 32})
    for number in range(2):
        for made in (plain, tiled):
            made.step(batch(2 * accumulation, number), number)
    assert_close(plain.weights(), tiled.weights(), 0)
    marks = popart._transfers.overlapping(tiled._session._model)
    assert set(marks) == {"images", "labels"}
    strategy = "OverlapInnerLoop" if accumulation > 1 else "OverlapLoops"
    assert {(one.name, two.name) for one, two in marks.values()} == {("IO", strategy)}
    whole, _ = logits(network())
    found, made = logits(network(), {"num_io_tiles": 32})
    assert torch.equal(found, whole)


def test_recomputation_in_loops_is_explicit(popart, monkeypatch):
    monkeypatch.setattr(popart.SessionOptions, "explicitRecomputation", property(
        lambda _: False, lambda *_: None), raising=False)
    with pytest.raises(IpucnnError, match="only with explicitRecomputation"):
        session(recompute="auto", options={"num_io_tiles": 32})


# -- mixing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("eight_bit", [True, False])
@pytest.mark.parametrize(("mix", "smoothing"), [
    (MixOptions(mixup_alpha=0.3), 0.0), (MixOptions(cutmix_low=0.2, cutmix_high=0.8), 0.1),
    (MixOptions(0.3, 0.2, 0.8), 0.2)], ids=["mixup", "cutmix", "both"])
def test_mixed_training_is_that_of_the_torch_backend(popart, monkeypatch, mix, smoothing,
                                                     eight_bit):
    use_sample_norms(popart, monkeypatch)
    found = []
    for backend in (None, TorchBackend()):
        made = session(backend, gradient_accumulation=2, eight_bit_io=eight_bit, setup={
            "mix": mix, "loss": CrossEntropy(CrossEntropyOptions(smoothing))})
        for number in range(2):
            part = batch(8, number)
            result = made.step(TrainingBatch(
                part.images if eight_bit else part.images / 64 - 2, part.labels,
                draw(mix, 1, 0, range(8 * number, 8 * number + 8), 4, SIZE)), number)
        found.append((made.weights(), result.loss, result.correct))
    assert_close(found[0][0], found[1][0], 1e-4)  # torch mixes normalised images
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    assert found[0][2] == found[1][2]


def test_mixed_training_in_a_pipeline_in_half_precision():
    mix = MixOptions(0.3, 0.2, 0.8)
    made = session(precision="16.16", gradient_accumulation=3, pipeline_splits=("3",),
                   setup={"mix": mix})
    part = batch(12)
    loss = made.step(TrainingBatch(part.images, part.labels,
                                   draw(mix, 1, 0, range(12), 4, SIZE)), 0).loss
    assert loss == pytest.approx(1.6, abs=0.4)


# -- what cannot be recognised ----------------------------------------------------------------


def test_an_offline_target_has_a_power_of_two_of_ipus():
    with pytest.raises(UsageError, match="powers of two"):
        logits(network(), {"offline_target_ipu_version": 2}, replicas=3, compile_only=True)


def test_properties_return_enumerations_as_new_objects(popart):
    device = popart.DeviceManager().acquireAvailableDevice(1)
    always = popart.DeviceConnectionType.Always
    assert device.connectionType == always
    assert always == device.connectionType
    assert device.connectionType is not always
    assert device.connectionType != popart.DeviceConnectionType.OnDemand


def test_only_hardware_is_attached(popart):
    manager = popart.DeviceManager()
    assert not manager.createIpuModelDevice({"numIPUs": 1}).isAttached
    offline = manager.createOfflineIPUDevice({"numIPUs": 1})
    for call in (offline.attach, offline.detach):
        with pytest.raises(popart.popart_exception, match="offline device"):
            call()


def test_an_emulated_device_trains_and_is_released():
    emulated = session(options={"ipu_model": True})
    expected = session()
    for made in (emulated, expected):
        made.step(batch(4), 0)
        with made.detached():
            pass
        made.step(batch(4, 1), 1)
    assert_close(emulated.weights(), expected.weights(), 0)
    emulated.close()
    assert torch.equal(logits(network(), {"ipu_model": True})[0], logits(network())[0])
    with PopArtBackend(PopArtOptions(offline_target_ipu_version=2)).inference(
            network(), ExecutionPlan(compile_only=True), SIZE) as made:
        made.compile()


def test_a_device_on_demand_is_attached_by_the_load_alone(popart, monkeypatch):
    calls = []
    device = popart.DeviceInfo
    monkeypatch.setattr(device, "attach", lambda self, real=device.attach: (
        calls.append(inspect.stack()[1].function), real(self))[1])
    made = session(options={"connection_type": "ondemand"})
    calls.clear()  # without those that found a free one
    with made.detached():
        pass
    made.step(batch(4), 0)
    assert calls == ["tryAttachUntilTimeout"]


def test_on_demand_takes_what_is_free(popart, machine):
    machine.ipus = 2
    with popart.DeviceManager().acquireAvailableDevice(1) as first:
        made = session(options={"connection_type": "ondemand"})
        made.step(batch(4), 0)
        assert (first.driverIds, machine.taken) == ([0], {0, 1})
        with pytest.raises(IpucnnError, match="Failed to attach"):
            session(options={"connection_type": "ondemand"})


def test_the_tensorflow_variant_keeps_its_momentum_in_single_precision(popart):
    made = session(precision="16.16", setup={"optimizer": optimizer(
        "rmsprop_tf", weight_decay=0.0, momentum=0.9)})
    made.step(batch(4), 0)
    assert {value.dtype for value in made.state()["popart"].values()} == {torch.float32}


def test_half_partials_are_those_of_half_precision():
    from ipucnn.plugins.backends.popart.settings import session_options

    chosen = PopArtOptions(half_partial=True)
    for precision, value in (("32.32", ""), ("16.16", "half"), ("16.32", "half")):
        made = session_options(ExecutionPlan(precision=precision), chosen)
        assert made.partialsTypeMatMuls == value
