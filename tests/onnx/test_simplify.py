"""A simplified graph computes the same, with less in it."""

from __future__ import annotations

import numpy
import onnx
import pytest
from graphs import FLOAT, INT64, constant, model, node, outputs
from onnx import helper

from ipucnn.onnx.simplify import simplified

X = ("x", FLOAT, [2, 3, 4, 4])
BATCH = ("x", FLOAT, ["batch", 3, 4, 4])
ANY = ("y", FLOAT, list("abcd"))
FLAT = ("y", FLOAT, ["a", "b"])
WEIGHT = numpy.linspace(-1, 1, 27 * 3, dtype=numpy.float32).reshape(3, 3, 3, 3)


def branches(captured):
    """Return two branches of an If, which read `captured` from around them."""
    def branch(name, factor):
        return helper.make_graph(
            [constant(f"{name}_factor", numpy.float32(factor)),
             node("Mul", f"{captured} {name}_factor", f"{name}_y")], name, [],
            [helper.make_tensor_value_info(f"{name}_y", FLOAT, [])])

    return {"then_branch": branch("then", 2.0), "else_branch": branch("else", 3.0)}


def numbers(*values):
    return numpy.array(values, dtype=numpy.int64)


GRAPHS = {
    "constants of constants": (model(
        [constant("a", numpy.float32(2)), constant("b", numpy.float32(3)), node("Add", "a b", "c"),
         node("Mul", "c b", "d"), node("Mul", "x d", "y")], [X], [ANY]), ["Constant", "Mul"]),
    "a constant read twice": (model(
        [constant("a", numpy.float32(2)), node("Add", "x a", "b"), node("Mul", "b a", "y")],
        [X], [ANY]), ["Constant", "Add", "Mul"]),
    "a constant as an output": (model(
        [constant("a", numpy.float32(2)), node("Add", "a a", "z"), node("Mul", "x a", "y")],
        [X], [ANY, ("z", FLOAT, [])]), ["Constant", "Add", "Mul"]),
    "a constant that is read and an output": (model(
        [constant("z", numpy.float32(2)), node("Mul", "x z", "y")],
        [X], [ANY, ("z", FLOAT, [])]), ["Constant", "Mul"]),
    "identities in a row": (model(
        [node("Identity", "x", "a"), node("Identity", "a", "b"), node("Relu", "b", "y")],
        [X], [ANY]), ["Relu"]),
    "an identity as an output": (model(
        [node("Relu", "x", "a"), node("Identity", "a", "y"), node("Identity", "a", "z")],
        [X], [ANY, ("z", FLOAT, list("abcd"))]), ["Relu", "Identity", "Identity"]),
    "an identity of a weight that two read": (model(
        [node("Identity", "w", "v"), node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
         node("Conv", "a v", "y", pads=[1, 1, 1, 1])], [X], [ANY], {"w": WEIGHT}),
        ["Conv", "Conv"]),
    "an expression of weights": (model(
        [node("Add", "w w", "v"), node("Conv", "x v", "y")], [X], [ANY], {"w": WEIGHT}),
        ["Add", "Conv"]),
    "a known shape": (model(
        [node("Shape", "x", "s"), constant("i", numbers(0)), node("Gather", "s i", "n"),
         constant("rest", numbers(-1)), node("Concat", "n rest", "t", axis=0),
         node("Reshape", "x t", "y")], [X], [FLAT]), ["Constant", "Reshape"]),
    "a part of a known shape": (model(
        [node("Shape", "x", "s", start=1, end=2), constant("rest", numbers(-1)),
         node("Concat", "s rest", "t", axis=0), node("Reshape", "x t", "y")], [X], [FLAT],
        opset=15, ir_version=8), ["Shape", "Constant", "Concat", "Reshape"]),
    "an unknown shape": (model(
        [node("Shape", "x", "s"), constant("i", numbers(0)), node("Gather", "s i", "n"),
         constant("rest", numbers(-1)), node("Concat", "n rest", "t", axis=0),
         node("Reshape", "x t", "y")], [BATCH], [FLAT]),
        ["Shape", "Constant", "Gather", "Constant", "Concat", "Reshape"]),
    "a large constant expression": (model(
        [constant("shape", numbers(100, 100)), node("ConstantOfShape", "shape", "zeros"),
         node("ReduceSum", "zeros", "sum", keepdims=0), node("Add", "x sum", "y")], [X], [ANY]),
        ["Constant", "ConstantOfShape", "ReduceSum", "Add"]),
    "branches that read an identity, a constant and a weight": (model(
        [constant("yes", numpy.bool_(True)), node("Identity", "w", "v"),
         constant("a", numpy.float32(5)), node("Add", "a a", "ten"),
         node("If", "yes", "b", **branches("v")), node("If", "yes", "c", **branches("ten")),
         node("Add", "b c", "d"), node("Add", "x d", "y")], [X], [ANY],
        {"w": numpy.float32(7)}), None),
    "random numbers": (model(
        [node("RandomNormal", "", "r", shape=[1], seed=1.0, scale=1e-30), node("Add", "x r", "y")],
        [X], [ANY]), ["RandomNormal", "Add"]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_it_computes_the_same(name):
    before, operators = GRAPHS[name]
    after = simplified(onnx.ModelProto.FromString(before.SerializeToString()))
    onnx.checker.check_model(after)
    x = numpy.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(numpy.float32)
    for wanted, found in zip(outputs(before, x=x), outputs(after, x=x)):
        numpy.testing.assert_array_equal(wanted, found)
    if operators is not None:
        assert [each.op_type for each in after.graph.node] == operators


def test_weights_that_nothing_reads_go_and_others_stay_as_they_are():
    before = model([node("Conv", "x w", "y")], [X], [ANY], {"w": WEIGHT, "unused": WEIGHT})
    (weight,) = simplified(before).graph.initializer
    assert weight.name == "w"
    numpy.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), WEIGHT)


def test_what_the_evaluator_lacks_is_left_alone():
    before = model(
        [constant("a", numbers(3)), node("SequenceConstruct", "a a", "s"),
         constant("zero", numpy.int64(0)), node("SequenceAt", "s zero", "t"),
         node("Cast", "t", "f", to=FLOAT), node("Add", "x f", "y")], [X], [ANY])
    after = simplified(onnx.ModelProto.FromString(before.SerializeToString()))
    x = numpy.ones((2, 3, 4, 4), dtype=numpy.float32)
    numpy.testing.assert_array_equal(outputs(after, x=x)[0], outputs(before, x=x)[0])


def test_integers_as_outputs_stay():
    before = model([node("Shape", "x", "y")], [X], [("y", INT64, [4])])
    assert outputs(simplified(before), x=numpy.zeros((2, 3, 4, 4), dtype=numpy.float32))[
        0].tolist() == [2, 3, 4, 4]
