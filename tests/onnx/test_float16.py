"""Half precision within a graph."""

from __future__ import annotations

import numpy
import onnx
import pytest
import torch
from graphs import FLOAT, INT64, UINT8, classifier, constant, model, node, outputs
from onnx import TensorProto, numpy_helper

from ipucnn.onnx.float16 import in_bfloat16, in_float16


def copied(proto):
    return onnx.ModelProto.FromString(proto.SerializeToString())


def images(dtype=numpy.float32):
    random = numpy.random.default_rng(1)
    return (random.integers(0, 256, (2, 3, 8, 8)) if dtype == numpy.uint8
            else random.standard_normal((2, 3, 8, 8))).astype(dtype)


def types(proto):
    return ([entry.type.tensor_type.elem_type for entry in proto.graph.input],
            [entry.type.tensor_type.elem_type for entry in proto.graph.output],
            {tensor.data_type for tensor in proto.graph.initializer})


def test_float16_holds_weights_and_keeps_how_the_model_is_called():
    before = classifier()
    after = in_float16(copied(before))
    onnx.checker.check_model(after, full_check=True)
    assert types(after) == ([FLOAT], [FLOAT], {TensorProto.FLOAT16})
    wanted, found = (outputs(each, images=images())[0] for each in (before, after))
    assert found.dtype == numpy.float32
    assert 0 < numpy.abs(wanted - found).max() < 2e-3


def test_float16_takes_bytes_as_before():
    before = classifier(("images", UINT8, ["batch", 3, 8, 8]), cast=True)
    after = in_float16(copied(before))
    assert types(after) == ([UINT8], [FLOAT], {TensorProto.FLOAT16})
    wanted, found = (outputs(each, images=images(numpy.uint8))[0] for each in (before, after))
    numpy.testing.assert_allclose(found, wanted, rtol=2e-3, atol=0.3)


def test_only_what_a_cast_makes_is_changed():
    # `saturate` has the value that stands for float32
    cast = node("Cast", "images", "floats", to=FLOAT, saturate=1)
    before = model([cast, node("Relu", "floats", "y")], [("images", UINT8, [1, 3])],
                   [("y", FLOAT, [1, 3])], opset=19, ir_version=9)
    (after,) = [each for each in in_float16(before).graph.node if each.output[0] == "floats"]
    assert {a.name: a.i for a in after.attribute} == {"to": TensorProto.FLOAT16, "saturate": 1}


def test_outputs_that_are_no_floats_stay():
    before = model([node("ArgMax", "x", "y", axis=1, keepdims=0)], [("x", FLOAT, [1, 3])],
                   [("y", INT64, [1])])
    after = in_float16(before)
    found = outputs(after, x=numpy.array([[1, 5, 2]], dtype=numpy.float32))[0]
    assert (found.dtype, found.tolist()) == (numpy.int64, [1])


def test_weights_beyond_float16_become_its_largest():
    before = model([node("Mul", "x w", "y")], [("x", FLOAT, [2])], [("y", FLOAT, [2])],
                   {"w": numpy.array([1e6, -1e6], dtype=numpy.float32)})
    (weight,) = in_float16(before).graph.initializer
    assert numpy_helper.to_array(weight).tolist() == [65504, -65504]


def test_rounded_weights_are_those_of_torch_and_constants_stay_exact():
    weight = torch.randn(64, generator=torch.Generator().manual_seed(0))
    weight[:6] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -3.4e38, 1e-40, float("inf"), -0.0])
    before = model([constant("c", numpy.float32(0.1)), node("Mul", "x w", "a"),
                    node("Add", "a c", "y")], [("x", FLOAT, [64])], [("y", FLOAT, [64])],
                   {"w": weight.numpy(), "n": numpy.array([3])})
    after = in_bfloat16(before)
    assert types(after) == ([FLOAT], [FLOAT], {FLOAT, INT64})
    found = outputs(after, x=numpy.ones(64, dtype=numpy.float32))[0]
    assert torch.equal(torch.from_numpy(found), weight.bfloat16().float() + 0.1)


def test_bfloat16_keeps_the_statistics_of_batch_norms():
    names = ("scale", "bias", "mean", "variance")
    value = numpy.array([1 + 2**-12], numpy.float32)  # 1 in bfloat16
    before = model([node("BatchNormalization", "x " + " ".join(names), "y")],
                   [("x", FLOAT, [1, 1, 2, 2])], [("y", FLOAT, [1, 1, 2, 2])],
                   dict.fromkeys(names, value))
    found = {one.name: float(numpy_helper.to_array(one)[0])
             for one in in_bfloat16(before).graph.initializer}
    assert found == {"scale": 1.0, "bias": 1.0, "mean": value[0], "variance": value[0]}


def listed(proto):
    """Return a model whose weights are among its inputs, as those of old files are."""
    proto.graph.input.extend(onnx.helper.make_tensor_value_info(
        tensor.name, tensor.data_type, tensor.dims) for tensor in proto.graph.initializer)
    return proto


@pytest.mark.parametrize("ir_version", [3, 6])
def test_weights_among_the_inputs_are_halved_and_not_cast(ir_version):
    before = listed(classifier(ir_version=ir_version, opset=8))
    after = in_float16(copied(before))
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node].count("Cast") == 2
    wanted, found = (outputs(each, images=images())[0] for each in (before, after))
    assert 0 < numpy.abs(wanted - found).max() < 2e-3


def quantised():
    """Return a graph that quantises values with a scale that float16 rounds, and adds it too."""
    nodes = [node("Relu", "x", "a"), node("QuantizeLinear", "a scale zero", "q"),
             node("DequantizeLinear", "q scale zero", "b"), node("Mul", "b w", "c"),
             node("QuantizeLinear", "b scale zero", "r"),
             node("DequantizeLinear", "r scale zero", "d"), node("Sum", "c d scale", "y")]
    return model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], {
        "scale": numpy.float32(0.0123), "zero": numpy.uint8(3), "w": numpy.float32(3)}, opset=13)


def resized():
    nodes = [node("Relu", "x", "a"), node("Resize", "a roi scales", "y", mode="nearest")]
    return model(nodes, [("x", FLOAT, [1, 1, 3, 3])], [("y", FLOAT, [1, 1, 4, 4])], {
        "roi": numpy.zeros(0, numpy.float32),
        "scales": numpy.array([1, 1, 1.3334, 1.3334], numpy.float32)}, opset=11)


def numbers():
    """Return a graph with constants that are numbers, not tensors."""
    nodes = [onnx.helper.make_node("Constant", [], ["one"], value_float=0.5),
             onnx.helper.make_node("Constant", [], ["two"], value_floats=[1.0, 2.0]),
             node("Mul", "x one", "a"), node("Add", "a two", "y")]
    return model(nodes, [("x", FLOAT, [1, 2])], [("y", FLOAT, [1, 2])], opset=13)


@pytest.mark.parametrize("made", [quantised, resized, numbers])
def test_scales_stay_exact_and_numbers_are_halved(made):
    before = made()
    shape = [dim.dim_value for dim in before.graph.input[0].type.tensor_type.shape.dim]
    x = numpy.random.default_rng(1).standard_normal(shape).astype(numpy.float32)
    wanted = outputs(before, x=x)[0]
    for convert in (in_float16, in_bfloat16):
        after = convert(copied(before))
        onnx.checker.check_model(after, full_check=True)
        kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
        for name in ("scale", "scales"):
            if name in kept:
                assert kept[name].dtype == numpy.float32
                assert kept[name].max() in (numpy.float32(0.0123), numpy.float32(1.3334))
        numpy.testing.assert_allclose(outputs(after, x=x)[0], wanted, rtol=1e-2, atol=0.05)


def branched():
    """Return a graph whose branches read weights, values and the input of the graph around."""
    out = [onnx.helper.make_tensor_value_info("out", FLOAT, [1, 4])]
    deeper = [onnx.helper.make_graph([node(operator, "a w", "deep")], operator, [], [
        onnx.helper.make_tensor_value_info("deep", FLOAT, [1, 4])]) for operator in ("Mul", "Add")]
    then = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["wet"], ["b"], then_branch=deeper[0], else_branch=deeper[1]),
         node("Add", "b own", "c"), node("Add", "c x", "out")], "then", [], out,
        [numpy_helper.from_array(numpy.float32([1, 2, 3, 4]), "own")])
    other = onnx.helper.make_graph([node("Identity", "a", "out")], "else", [], out)
    nodes = [node("Mul", "x w", "a"), node("ReduceSum", "x", "sum", keepdims=0),
             node("Greater", "sum zero", "wet"),
             onnx.helper.make_node("If", ["wet"], ["d"], then_branch=then, else_branch=other),
             node("Mul", "d w", "y")]
    return model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], {
        "w": numpy.float32([2, 1, 0.5, 3]), "zero": numpy.float32(0)}, opset=13)


def looped():
    """Return a graph with a loop that carries a value and collects another."""
    info = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [node("Identity", "on", "still"), node("Mul", "state w", "next"),
         node("Identity", "next", "seen")], "body",
        [info("i", INT64, []), info("on", TensorProto.BOOL, []), info("state", FLOAT, [1, 4])],
        [info("still", TensorProto.BOOL, []), info("next", FLOAT, [1, 4]),
         info("seen", FLOAT, [1, 4])])
    nodes = [constant("times", 3), constant("always", True), node("Relu", "x", "a"),
             onnx.helper.make_node("Loop", ["times", "always", "a"], ["last", "all"], body=body),
             node("ReduceSum", "all first", "b", keepdims=0), node("Add", "last b", "y")]
    return model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], {
        "w": numpy.float32([1.5, 1, 0.5, 2]), "first": numpy.array([0])}, opset=13)


@pytest.mark.parametrize("made", [branched, looped])
@pytest.mark.parametrize("sign", [1, -1])
def test_branches_and_loops_compute_the_same(made, sign):
    before = made()
    x = sign * numpy.float32([[0.1, 0.7, 0.3, 1.3]])
    wanted = outputs(before, x=x)[0]
    for convert in (in_float16, in_bfloat16):
        after = convert(copied(before))
        onnx.checker.check_model(after, full_check=True)
        numpy.testing.assert_allclose(outputs(after, x=x)[0], wanted, rtol=2e-2, atol=2e-2)
