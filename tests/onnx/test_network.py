"""Reading model files: of any origin, and broken in every way."""

from __future__ import annotations

import json
import os

import numpy
import onnx
import pytest
from graphs import FLOAT, UINT8, classifier, constant, model, node
from onnx import TensorProto

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.card import ModelCard
from ipucnn.onnx.embedded_metadata import Metadata
from ipucnn.onnx.network import check_batch, find_file, read_network
from ipucnn.onnx.network_of_run import read_stored


def written(folder, proto, name="a.onnx"):
    (folder / name).write_bytes(proto.SerializeToString())
    return folder / name


def refused(path):
    with pytest.raises(DataError) as caught:
        read_network(path)
    assert f"'{path}'" in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_a_file_of_any_batch(tmp_path):
    network = read_network(written(tmp_path, classifier()))
    assert (network.input_name, network.input_type, network.input_size) == ("images", "float32", 8)
    assert (network.batch, network.num_outputs, network.name) == (None, 5, "a")
    assert network.normalisation == "host"
    assert not network.half_weights
    check_batch(network, 3)


def test_the_hint_names_what_there_is_in_a_folder(tmp_path):
    with pytest.raises(DataError) as caught:
        find_file(str(tmp_path), "resnet18", 1)
    assert f"--batch-size 1 --model-path {tmp_path}' writes it" in caught.value.hint
    (tmp_path / "mine.onnx").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        find_file(str(tmp_path), "resnet18", 1)
    assert f"'--onnx {tmp_path}/mine.onnx'" in caught.value.hint


def test_a_file_of_one_batch(tmp_path):
    network = read_network(written(tmp_path, classifier(("in", FLOAT, [4, 3, 8, 8]),
                                                        ("out", FLOAT, [4, 5]))))
    assert (network.input_name, network.batch) == ("in", 4)
    check_batch(network, 4)
    with pytest.raises(UsageError, match="takes 4 images per call, not 3") as caught:
        check_batch(network, 3)
    assert "--batch-size 4" in caught.value.hint


def test_bytes_of_a_foreign_file_are_its_own_to_normalise(tmp_path):
    network = read_network(written(tmp_path, classifier(("images", UINT8, ["n", 3, 8, 8]),
                                                        cast=True)))
    assert (network.input_type, network.normalisation) == ("uint8", "device")


def test_the_card_in_the_file_counts(tmp_path):
    proto = classifier()
    images = Preprocessing(8, mean=(0.5, 0.5, 0.5))
    Metadata(ModelCard(model="resnet8", num_outputs=5, class_names=tuple("abcde"),
                       preprocessing=images), "none").embed(proto)
    network = read_network(written(tmp_path, proto))
    assert (network.name, network.normalisation) == ("resnet8", "none")
    assert (network.card.names, network.card.preprocessing) == (list("abcde"), images)


def test_as_many_names_as_outputs(tmp_path):
    proto = classifier()
    for key, value in (("ipucnn.input_size", "8"), ("ipucnn.class_names", '["a", "b"]')):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    assert "has 5 outputs and names 2 classes" in refused(written(tmp_path, proto))


def test_the_size_of_the_images_is_that_of_the_graph(tmp_path):
    proto = classifier()
    Metadata(ModelCard(model="resnet8", num_outputs=5, preprocessing=Preprocessing(16)),
             "none").embed(proto)
    assert "takes images of 8 pixels and describes 16" in refused(written(tmp_path, proto))


def test_class_names_of_the_configuration_beside_it(tmp_path):
    names = {str(number): f"kind {number}" for number in range(5)}
    config = tmp_path / "config.json"
    path = written(tmp_path, classifier())

    def named(values):
        config.write_text(values if isinstance(values, str) else json.dumps(values))
        return read_network(path).card.class_names

    expected = tuple(names.values())
    assert named({"id2label": names, "other": [1]}) == expected
    assert read_network(path).card.provenance == {"weights": str(path),
                                                  "class names": "config.json"}
    assert named({"label2id": {name: int(number) for number, name in names.items()}}) == expected
    assert named({"label_names": list(expected)}) == expected
    assert named({"id2label": {"0": "one", "1": "two"}}) == ()  # of another model
    assert named({"id2label": {str(number): f"LABEL_{number}" for number in range(5)}}) == ()
    assert named({"id2label": names, "labels": list("abcde")}) == ()  # which of both?
    assert named("[1]") == named("{") == named({"id2label": 3}) == ()
    config.unlink()
    assert read_network(path).card.class_names == ()
    (tmp_path / "onnx").mkdir()
    config.write_text(json.dumps({"id2label": names}))
    assert read_network(written(tmp_path / "onnx", classifier())).card.class_names == expected
    proto = classifier()
    onnx.helper.set_model_props(proto, {"names": "['a', 'b', 'c', 'd', 'e']"})
    assert read_network(written(tmp_path, proto)).card.class_names == tuple("abcde")


def test_preprocessing_that_is_assumed_is_noted(tmp_path):
    def notes(proto):
        path = str(written(tmp_path, proto))
        return read_stored(path, registry().get_typed(ModelSpec, "resnet18"), 1).notes

    (note,) = notes(classifier())
    assert "a.onnx' does not state its preprocessing, so that of most ImageNet models" in note
    assert "mean 0.485 0.456 0.406" in note
    assert notes(classifier(("images", UINT8, ["n", 3, 8, 8]), cast=True)) == []
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))
    assert notes(classifier()) == []


VIT = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
       "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}


@pytest.mark.parametrize(("values", "expected"), [
    (VIT, Preprocessing(8, 1, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)),
    ({**VIT, "size": 8}, Preprocessing(8, 1, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)),
    ({**VIT, "size": {"shortest_edge": 10}, "do_center_crop": True, "resample": 3,
      "crop_size": {"height": 8, "width": 8}},
     Preprocessing(8, 0.8, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3)),
    ({**VIT, "size": {"shortest_edge": 8}, "crop_pct": 0.8},
     Preprocessing(8, 0.8, "shortest", "bilinear", (0.5,) * 3, (0.5,) * 3)),
    ({**VIT, "do_normalize": False, "do_rescale": False},
     Preprocessing(8, 1, "squash", "bilinear", (0.0,) * 3, (1.0,) * 3, value_range=(0.0, 255.0))),
    ({**VIT, "size": {"shortest_edge": 8}, "crop_pct": 1e-308}, None),
    ({**VIT, "size": {"height": 9, "width": 9}}, None), ({**VIT, "resample": "x"}, None),
    ({**VIT, "size": {"shortest_edge": 8}}, None), ({**VIT, "include_top": True}, None),
    ({**VIT, "size": {"height": 8, "width": 9}}, None), ({**VIT, "image_std": [0, 1, 2]}, None),
    ({**VIT, "size": None}, None), ({}, None), ([], None)])
def test_the_preprocessing_beside_it(tmp_path, values, expected):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    found = read_network(written(tmp_path, classifier())).card.preprocessing
    assert found == (expected or Preprocessing(8, assumed=True))


@pytest.mark.parametrize(("operators", "outputs", "multi_label"), [
    (["Softmax"], "probabilities", False), (["Sigmoid", "Identity"], "probabilities", True),
    (["HardSigmoid"], "probabilities", True),
    (["Softmax", "Unsqueeze", "Squeeze", "Transpose"], "probabilities", False),
    (["LogSoftmax", "Exp"], "probabilities", False), (["LogSoftmax"], "logits", False),
    (["Relu"], "logits", False), (["Softmax", "Relu"], "logits", False)])
def test_the_graph_describes_the_outputs(tmp_path, operators, outputs, multi_label):
    proto = classifier()
    name = proto.graph.output[0].name
    for number, operator in enumerate(operators):
        more = {"axes": [0]} if "squeeze" in operator.lower() else {}
        proto.graph.node.append(onnx.helper.make_node(operator, [name], [f"y{number}"], **more))
        name = f"y{number}"
    proto.graph.output[0].name = name
    card = read_network(written(tmp_path, proto)).card
    assert (card.outputs, card.multi_label) == (outputs, multi_label)


def test_a_softmax_in_parts_is_one(tmp_path):
    proto = classifier()
    logits = proto.graph.output[0].name
    proto.graph.node.extend([
        onnx.helper.make_node("Exp", [logits], ["above"]),
        onnx.helper.make_node("ReduceSum", ["above"], ["below"], axes=[1]),
        onnx.helper.make_node("Div", ["above", "below"], ["shares"])])
    proto.graph.output[0].name = "shares"
    assert read_network(written(tmp_path, proto)).card.outputs == "probabilities"


def ending(*nodes, constants=(), functions=()):
    """A classifier whose logits `z` the given operators turn into `shares`."""
    proto = classifier()
    named = proto.graph.output[0].name
    proto.graph.initializer.extend(
        [onnx.numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants])
    proto.graph.node.extend([onnx.helper.make_node("Identity", [named], ["z"]), *nodes])
    proto.functions.extend(functions)
    proto.opset_import.extend([onnx.helper.make_opsetid("own", 1)] if functions else [])
    proto.graph.output[0].name = "shares"
    return proto


HALF, AXES = ("half", numpy.float32(0.5)), ("axes", numpy.array([1]))


@pytest.mark.parametrize(("proto", "outputs", "multi_label"), [
    (ending(node("Softmax", "z", "p"), node("Sigmoid", "z", "q"), node("Add", "p q", "s"),
            node("Mul", "s half", "shares"), constants=[HALF]), "probabilities", False),
    (ending(node("Softmax", "z", "p"), node("Max", "p half", "shares"), constants=[HALF]),
     "probabilities", False),
    (ending(node("Exp", "z", "e"), node("ReduceSum", "e", "s", axes=[1]),
            node("Reciprocal", "s", "r"), node("Mul", "e r", "shares")),
     "probabilities", False),
    (ending(node("Sigmoid", "z", "p"), node("ReduceSum", "p", "s", axes=[1]),
            node("Div", "p s", "shares")), "probabilities", False),
    (ending(node("Sigmoid", "z", "p"), node("Mul", "p half", "shares"), constants=[HALF]),
     "probabilities", True),
    (ending(node("own_softmax", "z", "shares", domain="own"), functions=[
        onnx.helper.make_function("own", "own_softmax", ["a"], ["b"], [
            node("Softmax", "a", "b")], [onnx.helper.make_opsetid("", 11)])]),
     "probabilities", False),
    (ending(node("Sigmoid", "z", "p"), node("Mul", "z p", "shares")), "logits", False),
    (ending(node("Softmax", "z", "p"), node("Greater", "p half", "b"), node("Sub", "p p", "none"),
            node("Where", "b p none", "shares"), constants=[HALF]), "probabilities", False),
    (ending(node("Softmax", "z", "p"), node("Greater", "p half", "b"),
            node("Cast", "b", "mask", to=FLOAT), node("Mul", "p mask", "shares"),
            constants=[HALF]), "probabilities", False),
    (ending(node("Exp", "z", "e"), node("LpNormalization", "e", "shares", p=1, axis=1)),
     "probabilities", False),
    (ending(node("Softmax", "z", "p"), node("Pow", "p two", "q"),
            node("LpNormalization", "q", "shares", p=1, axis=1),
            constants=[("two", numpy.float32(2))]), "probabilities", False),
    (ending(node("LpNormalization", "z", "shares", p=2, axis=1)), "logits", False),
    (ending(node("Sigmoid", "z", "p"), node("Sqrt", "p", "shares")), "probabilities", True),
    (ending(node("Softmax", "z", "p"), node("Round", "p", "shares")), "probabilities", False),
    (ending(node("Softmax", "z", "p"), node("Log", "p", "shares")), "logits", False)])
def test_operators_after_the_activation(tmp_path, proto, outputs, multi_label):
    card = read_network(written(tmp_path, proto)).card
    assert (card.outputs, card.multi_label) == (outputs, multi_label)


@pytest.mark.parametrize(("operator", "nodes", "constants"), [
    ("Hardmax", [node("Hardmax", "z", "shares")], []),
    ("ArgMax", [node("ArgMax", "z", "best", axis=1), node("Cast", "best", "shares", to=FLOAT)], []),
    ("TopK", [onnx.helper.make_node("TopK", ["z", "three"], ["shares", "places"])],
     [("three", numpy.array([3]))]),
    ("Greater", [node("Sigmoid", "z", "p"), node("Greater", "p half", "b"),
                 node("Cast", "b", "shares", to=FLOAT)], [HALF])])
def test_decisions_are_refused(tmp_path, operator, nodes, constants):
    found = refused(written(tmp_path, ending(*nodes, constants=constants)))
    assert f"ends in {operator}: its outputs are decisions" in found


def branches(then, other, **outer):
    """A condition whose branches turn the logits `z` into `shares`."""
    graphs = [onnx.helper.make_graph(nodes, name, [], [
        onnx.helper.make_tensor_value_info("out", FLOAT, ["batch", 5])])
        for name, nodes in (("then", then), ("else", other))]
    return ending(constant("always", True), onnx.helper.make_node(
        "If", ["always"], ["shares"], then_branch=graphs[0], else_branch=graphs[1]), **outer)


def test_branches_state_what_the_outputs_are(tmp_path):
    softmax, logits = [node("Softmax", "z", "out")], [node("Identity", "z", "out")]
    both = read_network(written(tmp_path, branches(softmax, softmax)))
    assert both.card.outputs == "probabilities"
    neither = read_network(written(tmp_path, branches(logits, logits), "b.onnx"))
    assert neither.card.outputs == "logits"
    assert "some branches of" in refused(written(tmp_path, branches(softmax, logits), "c.onnx"))
    sigmoid = read_network(written(tmp_path, branches([node("Sigmoid", "z", "out")],
                                                      [node("Sigmoid", "z", "out")]), "d.onnx"))
    assert sigmoid.card.multi_label


def test_a_softmax_of_a_loop_is_one(tmp_path):
    body = onnx.helper.make_graph(
        [node("Identity", "on", "still"), node("Softmax", "state", "out")], "body",
        [onnx.helper.make_tensor_value_info(*entry) for entry in (
            ("i", TensorProto.INT64, []), ("on", TensorProto.BOOL, []),
            ("state", FLOAT, ["batch", 5]))],
        [onnx.helper.make_tensor_value_info("still", TensorProto.BOOL, []),
         onnx.helper.make_tensor_value_info("out", FLOAT, ["batch", 5])])
    proto = ending(constant("once", 1), constant("always", True), onnx.helper.make_node(
        "Loop", ["once", "always", "z"], ["shares"], body=body))
    assert read_network(written(tmp_path, proto)).card.outputs == "probabilities"


@pytest.mark.parametrize(("opset", "axis", "fine"), [
    (13, None, False), (13, 3, False), (13, 1, True), (11, 2, False), (11, None, True)])
def test_a_softmax_over_one_value_is_refused(tmp_path, opset, axis, fine):
    more = {} if axis is None else {"axis": axis}
    reshaped = constant("shape", numpy.array([-1, 5, 1, 1])), node("Reshape", "z shape", "map")
    proto = ending(*reshaped, node("Softmax", "map", "ones", **more),
                   node("Flatten", "ones", "shares"))
    proto.opset_import[0].version = opset
    path = written(tmp_path, proto)
    if fine:
        assert read_network(path).card.outputs == "probabilities"
    else:
        assert "over an axis of one value" in refused(path)


def test_a_softmax_over_the_batch_is_refused(tmp_path):
    proto = ending(node("Softmax", "z", "shares", axis=0))
    assert read_network(written(tmp_path, proto)).card.outputs == "probabilities"  # of old sets
    proto.opset_import[0].version = 13
    assert "over the images of a batch (axis 0)" in refused(written(tmp_path, proto, "b.onnx"))


def test_a_softmax_of_one_output_is_refused(tmp_path):
    proto = model([node("Softmax", "x", "y"), node("ReduceMean", "images", "x", axes=[1, 2],
                                                   keepdims=0)][::-1],
                  [("images", FLOAT, [1, 3, 8, 8])], [("y", FLOAT, [1, 1])])
    assert "one output, which is derived from a Softmax" in refused(written(tmp_path, proto))


def test_the_largest_probability_alone_is_refused(tmp_path):
    proto = ending(node("Softmax", "z", "p"), node("ReduceMax", "p", "shares", axes=[1]))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    assert "the probability of an unknown class" in refused(written(tmp_path, proto))


@pytest.mark.parametrize(("shape", "hint"), [
    ((1, 8, 8, 3), "channels first"), (("n", 3, "h", "w"), "set its height and width"),
    ((1, 1, 8, 8), "ipucnn export")])
def test_the_hint_fits_the_shape(tmp_path, shape, hint):
    with pytest.raises(DataError) as caught:
        read_network(written(tmp_path, classifier(("images", FLOAT, list(shape)))))
    assert hint in caught.value.hint


def test_class_numbers_are_no_outputs(tmp_path):
    proto = classifier()
    proto.graph.node.append(onnx.helper.make_node(
        "ArgMax", [proto.graph.output[0].name], ["best"], axis=1))
    del proto.graph.output[0]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(
        "best", TensorProto.INT64, ["batch", 1]))
    assert "is int64: class numbers" in refused(written(tmp_path, proto))


def test_weights_that_old_files_list_among_the_inputs(tmp_path):
    proto = classifier()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(
            tensor.name, tensor.data_type, tensor.dims))
    assert read_network(written(tmp_path, proto)).input_name == "images"


def images(*shape, element=FLOAT):
    return lambda: classifier(("images", element, list(shape)))


def two_inputs():
    proto = classifier()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("more", FLOAT, [1]))
    return proto


def two_outputs():
    proto = classifier()
    proto.graph.output.append(onnx.helper.make_tensor_value_info("flat", FLOAT, ["batch", 3]))
    return proto


def without_shape():
    proto = classifier()
    proto.graph.input[0].type.tensor_type.shape.Clear()
    return proto


def sequence():
    return model([node("SequenceAt", "images zero", "logits")],
                 [], [("logits", FLOAT, ["n", 5])], {"zero": numpy.int64(0)})


UNSUITABLE = {
    "two inputs": (two_inputs, "has 2 inputs"),
    "no input": (sequence, "has 0 inputs"),
    "two outputs": (two_outputs, "has 2 outputs"),
    "wrong rank": (images("n", 3, 8), "shape (?, 3, 8)"),
    "no rank": (without_shape, "shape ()"),
    "channels last": (images("n", 8, 8, 3), "shape (?, 8, 8, 3)"),
    "not square": (images("n", 3, 8, 9), "shape (?, 3, 8, 9)"),
    "any size": (images("n", 3, "h", "w"), "shape (?, 3, ?, ?)"),
    "float64": (images("n", 3, 8, 8, element=TensorProto.DOUBLE), "is double, and images are"),
    "text": (images("n", 3, 8, 8, element=TensorProto.STRING), "is string, and images are"),
    "any classes": (lambda: classifier(logits=("logits", FLOAT, ["n", "c"])), "shape (?, ?)"),
    "logits of rank 4": (lambda: classifier(logits=("logits", FLOAT, ["n", 5, 1, 1])),
                         "shape (?, 5, 1, 1)"),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_what_is_no_classifier_of_images(tmp_path, monkeypatch, name):
    make, message = UNSUITABLE[name]
    # what is tested is the reading of inputs and outputs, whatever is between them
    monkeypatch.setattr(onnx.checker, "check_model", lambda _: None)
    assert message in refused(written(tmp_path, make()))


DAMAGED = {
    "empty": lambda whole: b"",
    "truncated": lambda whole: whole[:len(whole) // 2],
    "text": lambda whole: b"weights: none\n" * 30,
    "zeros": lambda whole: bytes(200),
    "an operator that is none": lambda whole: whole.replace(b"Gemm", b"Gemn"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path, name):
    path = tmp_path / "a.onnx"
    path.write_bytes(DAMAGED[name](classifier().SerializeToString()))
    assert "is damaged or not an ONNX file" in refused(path)


@pytest.mark.parametrize(("what", "change"), [
    ("format version", {"ir_version": 99}), ("operator set", {"opset": 99})])
def test_a_file_that_is_newer_than_the_package(tmp_path, what, change):
    proto = classifier()
    proto.ir_version = change.get("ir_version", proto.ir_version)
    proto.opset_import[0].version = change.get("opset", 11)
    message = refused(written(tmp_path, proto))
    assert f"has {what}" in message
    assert "damaged" not in message


@pytest.mark.parametrize("name", ["a.json", "a.txt", "model"])
def test_the_name_of_a_file_does_not_matter(tmp_path, name):
    assert read_network(written(tmp_path, classifier(), name)).num_outputs == 5


def external(tmp_path, length):
    proto = classifier()
    weight = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, "weights.bin", length=length)
    raw = weight.raw_data
    weight.ClearField("raw_data")
    return proto, raw


def test_weights_in_a_file_beside_it(tmp_path):
    proto, raw = external(tmp_path, 60)
    (tmp_path / "weights.bin").write_bytes(raw)
    network = read_network(written(tmp_path, proto))
    assert network.whole().SerializeToString() == classifier().SerializeToString() or (
        network.whole().graph.initializer[0].raw_data == raw)


def in_attributes():
    """Return a classifier whose weight is in a constant and whose bias is within a branch."""
    proto = classifier()
    weight, bias = proto.graph.initializer
    del proto.graph.initializer[:]
    branches = [onnx.helper.make_graph([node("Identity", "inner", "out")], name, [],
                                       [onnx.helper.make_tensor_value_info("out", FLOAT, [5])])
                for name in ("then", "else")]
    for graph in branches:
        graph.initializer.add().CopyFrom(bias)
        graph.initializer[0].name = "inner"
    nodes = [onnx.helper.make_node("Constant", [], ["weight"], value=weight),
             constant("always", True),
             onnx.helper.make_node("If", ["always"], ["bias"], then_branch=branches[0],
                                   else_branch=branches[1]), *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


@pytest.mark.parametrize("where", ["constant", "branch"])
def test_weights_of_attributes_and_branches_in_a_file_beside_it(tmp_path, where):
    proto = in_attributes()
    tensor = proto.graph.node[0].attribute[0].t if where == "constant" else \
        proto.graph.node[2].attribute[0].g.initializer[0]
    raw = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, "weights.bin", length=len(raw))
    tensor.ClearField("raw_data")
    path = written(tmp_path, proto)
    refused(path)
    (tmp_path / "weights.bin").write_bytes(raw)
    network = read_network(path)
    assert not network.one_file  # what is stored for the main file would be used after a change
    assert raw in network.whole().SerializeToString()
    tensor.external_data[0].value = "../weights.bin"
    (tmp_path / "below").mkdir()
    assert "outside of its folder" in refused(written(tmp_path / "below", proto))


@pytest.mark.parametrize("there", [False, True])
def test_weights_that_are_missing_beside_it(tmp_path, there):
    proto, raw = external(tmp_path, 60)
    if there:  # but not whole
        (tmp_path / "weights.bin").write_bytes(raw[:7])
    refused(written(tmp_path, proto))


def test_a_file_of_more_than_2_gib_is_refused_unread(tmp_path):
    path = tmp_path / "a.onnx"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: it takes no room, but reading it would take memory
    assert "holds 3.0 GiB" in refused(path)


def test_weights_of_more_than_2_gib_beside_it_are_refused_unread(tmp_path):
    proto, _ = external(tmp_path, 3 * 2**30)
    proto.graph.initializer[0].dims[:] = [2**28, 3]
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(3 * 2**30)
    assert "holds 3.0 GiB" in refused(written(tmp_path, proto))


def test_a_file_in_a_folder_that_export_filled(tmp_path):
    folder = tmp_path / "resnet8"
    folder.mkdir()
    with pytest.raises(DataError, match=r"model_4\.onnx' and no .+model\.onnx") as caught:
        find_file(str(tmp_path), "resnet8", 4)
    assert "ipucnn export --model resnet8 --batch-size 4" in caught.value.hint
    (folder / "model.onnx").touch()
    assert find_file(str(tmp_path), "resnet8", 4) == folder / "model.onnx"
    (folder / "model_4.onnx").touch()
    assert find_file(str(tmp_path), "resnet8", 4) == folder / "model_4.onnx"
    assert find_file(str(folder / "model.onnx"), "other", 1) == folder / "model.onnx"


@pytest.mark.parametrize("name", ["nothing.onnx", "x" * 300, "a/b.onnx"])
def test_no_such_file(tmp_path, name):
    with pytest.raises(DataError, match="there is no ONNX file"):
        find_file(str(tmp_path / name), "resnet8", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = written(tmp_path, classifier())
    path.chmod(0)
    assert "Permission denied" in refused(path)
