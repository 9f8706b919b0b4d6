"""What an engine refuses to read."""

from __future__ import annotations

import numpy
import onnx
import pytest
from graphs import FLOAT, classifier, constant, model, node
from onnx import helper

from ipucnn.core.errors import UsageError
from ipucnn.onnx.target import OnnxTarget

X, Y = ("x", FLOAT, [2, 3]), ("y", FLOAT, [2, 3])
OLD = OnnxTarget("Engine", (7, 11), ir_version=6, domains=("my.own",), operators={
    "GlobalAveragePool": (1,), "Flatten": (1, 9, 11), "Gemm": (), "Relu": (6,), "Round": (11,),
    "Softmax": (1,), "If": (11,), "Constant": ()})
NEW = OnnxTarget("Engine", (7, 0))


def refused(target, proto, what="'a.onnx'"):
    with pytest.raises(UsageError) as caught:
        target.check(proto, what)
    return caught.value


@pytest.mark.parametrize("target", [OLD, NEW])
def test_a_model_that_suits(target):
    target.check(classifier(), "'a.onnx'")


@pytest.mark.parametrize(("opset", "nearest"), [(6, 7), (13, 11)])
def test_another_operator_set_is_named_with_the_nearest(opset, nearest):
    error = refused(OLD, classifier(opset=opset))
    assert error.message == f"'a.onnx' has operator set {opset}, and Engine reads 7 to 11"
    assert f"--opset {nearest}" in error.hint


def test_a_format_version_that_is_too_new():
    error = refused(OLD, classifier(ir_version=9))
    assert "format version (IR) 9, and Engine reads up to 6" in error.message
    NEW.check(classifier(ir_version=9), "it")


def test_missing_operators_are_all_named_once():
    error = refused(OLD, model([node("Erf", "x", "a"), node("Erf", "a", "b"), node("Exp", "b", "c"),
                                node("Relu", "c", "y")], [X], [Y]))
    assert error.message == "'a.onnx' needs operators that Engine lacks: Erf, Exp"


def test_an_operator_of_a_version_that_is_not_implemented():
    assert "lacks: Softmax-11" in refused(OLD, model([node("Softmax", "x", "y")], [X],
                                                     [Y])).message
    OLD.check(model([node("Softmax", "x", "y")], [X], [Y], opset=10), "it")


def foreign(domain):
    return model([node("Relu", "x", "y", domain=domain)], [X], [Y], domains=(domain,))


def test_operators_of_other_domains():
    assert "lacks: else.where.Relu" in refused(OLD, foreign("else.where")).message
    OLD.check(foreign("my.own"), "it")


def test_an_engine_without_a_list_is_tried():
    NEW.check(foreign("else.where"), "it")
    NEW.check(classifier(opset=99, ir_version=9), "it")
    assert "has operator set 6, and Engine reads 7 and newer" in refused(
        NEW, classifier(opset=6)).message


def test_functions_in_the_file_are_refused_by_engines_with_a_list():
    proto = model([node("Twice", "x", "y", domain="local")], [X], [Y], domains=("local",), opset=15,
                  ir_version=8)
    proto.functions.append(helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 15)]))
    onnx.checker.check_model(proto)
    NEW.check(proto, "it")
    old = OnnxTarget("Engine", (7, 20), operators=OLD.operators)
    assert "lacks: local.Twice" in refused(old, proto).message


def test_operators_in_branches_count():
    def branch(op):
        return helper.make_graph([node(op, "x", f"{op}_y")], op, [], [
            helper.make_tensor_value_info(f"{op}_y", FLOAT, [2, 3])])

    proto = model([constant("yes", numpy.bool_(True)),
                   node("If", "yes", "y", then_branch=branch("Relu"), else_branch=branch("Sin"))],
                  [X], [Y])
    assert "lacks: Sin" in refused(OLD, proto).message
