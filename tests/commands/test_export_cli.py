"""Exporting and running ONNX files as a user meets it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
import torch

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use
from ipucnn.models.build import create_model

TESTS = Path(__file__).resolve().parents[1]
PLUGINS = ["--plugin", str(TESTS / "tiny_plugin.py"), "--plugin", str(TESTS / "odd_models.py")]
TINY = ["--model", "tiny", "--weights", "random"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCH_20 = torch.__version__ < "2.1"

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def cli(capfd):  # what torch prints by itself counts too
    def run(*argv):
        code = invoke([*PLUGINS, *(str(word) for word in argv)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return code, out, err

    return run


@pytest.fixture
def exported(cli):
    """Export, and return the result and the session of ONNX Runtime that has the file."""
    def run(*argv):
        code, out, err = cli("export", *argv, "--json")
        assert code == 0, err
        result = json.loads(out)
        session = onnxruntime.InferenceSession(result["path"], providers=["CPUExecutionProvider"])
        return result, session

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Real JPEG files: 16 to train on, 16 to validate."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "2", "--size", "40",
                   "--validation-per-class", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A folder with the checkpoint of a short training."""
    folder = tmp_path_factory.mktemp("trained") / "ckpt"
    assert invoke([*PLUGINS, "train", "--model", "tiny", "--data", "image_folder", "--data-dir",
                   str(pictures), "--precision", "full", "--batch-size", "4", "--epoch", "1",
                   "--lr", "0.05", "--progress", "off", "--checkpoint-path", str(folder),
                   "--no-validation", "--ema-decay", "0.5", "--backend", "torch"]) == 0
    use(None)
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def images(count, dtype=numpy.float32, size=16):
    random = numpy.random.default_rng(count)
    return (random.integers(0, 256, (count, 3, size, size)) if dtype == numpy.uint8
            else random.standard_normal((count, 3, size, size))).astype(dtype)


def test_the_file_is_where_the_old_tool_wrote_it(cli, tmp_path):
    code, out, err = cli("export", *TINY, "--batch-size", "6")
    assert code == 0, err
    assert files(tmp_path) == ["models/tiny/model_6.onnx"]
    for word in ("models/tiny/model_6.onnx", "PopART", "ai.onnx 11, format version 6",
                 "6 x 3 x 16 x 16 float32", "Conv 2", "random weights", "batch 6: "):
        assert word in out
    assert "exporting tiny" in err


@pytest.mark.parametrize(("argv", "name"), [
    (["--dynamic-batch"], "models/tiny/model.onnx"),
    (["--model-path", "here"], "here/tiny/model_1.onnx"),
    (["--output", "a/b.onnx"], "a/b.onnx")])
def test_names_of_files(cli, tmp_path, argv, name):
    assert cli("export", *TINY, *argv)[0] == 0
    assert files(tmp_path) == [name]


def test_a_suffix_may_be_in_capitals(cli, tmp_path):
    assert cli("export", *TINY, "--output", "NET.ONNX")[0] == 0
    assert files(tmp_path) == ["NET.ONNX"]
    code, out, err = cli("show", "NET.ONNX")
    assert code == 0, err
    assert re.search("^model +tiny$", out, re.MULTILINE)
    code, _, err = cli("run", "NET.ONNX")
    assert code == 2
    assert "'--onnx NET.ONNX'" in err
    assert ipucnn.load(tmp_path, backend="onnxruntime", precision="full").card.model == "tiny"
    assert "there is no file 'NO.ONNX'" in cli("show", "NO.ONNX")[2]


def test_the_file_is_for_all_who_may_read_it(cli, tmp_path):
    mask = os.umask(0o022)
    try:
        assert cli("export", *TINY, "--output", "a.onnx")[0] == 0
    finally:
        os.umask(mask)
    assert (tmp_path / "a.onnx").stat().st_mode & 0o777 == 0o644


def test_half_precision_in_an_operator_set_whose_files_list_their_weights(exported):
    argv = [*TINY, "--target", "onnxruntime", "--opset", "8"]
    full, half = (exported(*argv, "--precision", precision, "--output", f"{precision}.onnx")[1]
                  .run(None, {"images": images(1)})[0] for precision in ("full", "half"))
    assert 0 < numpy.abs(full - half).max() < 1e-2


def test_a_file_in_a_folder_is_scored_as_the_file_itself(cli, exported, pictures, trained):
    exported("--checkpoint-path", trained, "--dynamic-batch")
    found = {}
    for place in ("models/tiny/model.onnx", "models"):
        code, out, err = cli("run", "--onnx", place, "--model", "tiny", "--data-dir",
                             pictures / "validation", "--backend", "onnxruntime", "--precision",
                             "full", "--json", "--progress", "off")
        assert code == 0, err
        found[place] = json.loads(out)["accuracy"]
    assert found["models"] == found["models/tiny/model.onnx"] is not None


def test_json_is_one_document(exported):
    result, session = exported(*TINY)
    assert result["format"] == "ipucnn.export/1"
    assert result["model"] == "tiny"
    assert result["size"] == os.path.getsize(result["path"])
    assert result["input"] == {"type": "float32", "shape": [1, 3, 16, 16]}
    assert 0 <= result["differences"]["1"] <= result["tolerance"]
    proto = onnx.load(result["path"])
    assert sum(result["operators"].values()) == len(proto.graph.node)
    assert (result["opset"], result["ir_version"]) == (11, 6)
    assert (session.get_inputs()[0].name, session.get_outputs()[0].name) == ("images", "logits")


def test_any_number_of_images(exported):
    result, session = exported(*TINY, "--dynamic-batch")
    assert result["input"]["shape"] == [None, 3, 16, 16]
    assert list(result["differences"]) == ["1", "2", "5"]
    together = images(5)
    (logits,) = session.run(None, {"images": together})
    for count in (1, 2):
        (some,) = session.run(None, {"images": together[:count]})
        numpy.testing.assert_allclose(some, logits[:count], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("target", "opset", "ir_version"), [
    ("popart", 9, 6), ("popart", 11, 6), ("onnxruntime", 9, None), ("onnxruntime", None, None)])
def test_operator_sets(exported, target, opset, ir_version):
    result, session = exported(*TINY, "--target", target, *(["--opset", opset] if opset else []))
    assert result["opset"] == (opset or (17 if TORCH_20 else 20))
    if ir_version:
        assert result["ir_version"] <= ir_version
    assert session.run(None, {"images": images(1)})[0].shape == (1, 1000)


def test_half_precision_is_half_the_size_and_close(exported):
    half, half_session = exported(*TINY, "--precision", "half", "--output", "half.onnx")
    full, full_session = exported(*TINY, "--output", "full.onnx")
    assert half["size"] < 0.7 * full["size"]
    assert half["tolerance"] > full["tolerance"]
    assert half["input"] == full["input"]
    logits = [session.run(None, {"images": images(1)})[0] for session in (half_session,
                                                                          full_session)]
    assert 0 < numpy.abs(logits[0] - logits[1]).max() < 0.03 * numpy.abs(logits[1]).max()


def test_the_seed_decides_random_weights(exported):
    names = ("one", "same", "other")
    for name, seed in zip(names, (1, 1, 2)):
        exported(*TINY, "--seed", seed, "--output", f"{name}.onnx")
    weights = [onnx.load(f"{name}.onnx").graph.initializer[0].raw_data for name in names]
    assert weights[0] == weights[1] != weights[2]


def predictions(path):
    with open(path, newline="") as file:
        return [[row["path"], row["class_1"], row["name_1"], float(row["probability_1"])]
                for row in csv.DictReader(file)]


def classified(cli, name, pictures, *argv):
    code, _, err = cli("run", "--data", "image_folder", "--data-dir", pictures / "validation",
                       "--precision", "full", "--predictions", name, "--progress", "off", *argv)
    assert code == 0, err
    return predictions(name)


@pytest.mark.parametrize("place", ["host", "device", "none"])
def test_a_file_predicts_what_the_model_does(cli, exported, pictures, trained, place):
    (checkpoint,) = trained.glob("*.pt")
    wanted = classified(cli, "torch.csv", pictures, "--model", "tiny", "--backend", "torch",
                        "--weights", checkpoint, "--normalization-location", place)
    result, _ = exported("--checkpoint-path", checkpoint, "--normalization-location", place,
                         "--batch-size", "3")
    assert result["input"]["type"] == ("uint8" if place == "device" else "float32")
    found = classified(cli, "onnx.csv", pictures, "--onnx", "models", "--model", "tiny",
                       "--batch-size", "3", "--backend", "onnxruntime")
    assert len(found) == 16
    assert [row[:3] for row in found] == [row[:3] for row in wanted]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in wanted], abs=1e-4)


def test_checkpoints_bring_their_classes_and_their_average(exported, trained):
    (checkpoint,) = trained.glob("*.pt")
    sessions = {}
    for name, argv in (("file", [checkpoint]), ("folder", [trained]), ("ema", [trained, "--ema"])):
        result, sessions[name] = exported("--checkpoint-path", *argv, "--output", f"{name}.onnx")
        assert str(checkpoint) in result["weights"]
    logits = {name: session.run(None, {"images": images(1)})[0]
              for name, session in sessions.items()}
    assert numpy.array_equal(logits["file"], logits["folder"])
    assert not numpy.array_equal(logits["file"], logits["ema"])
    stored = {entry.key: json.loads(entry.value) for entry in onnx.load("ema.onnx").metadata_props}
    assert stored["ipucnn.class_names"] == ["bar", "circle", "crescent", "cross", "ring", "square",
                                            "star", "triangle"]
    assert stored["ipucnn.input_size"] == 16
    weights = stored["ipucnn.provenance"]["weights"]
    assert weights["path"] == str(checkpoint)
    assert weights["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_a_file_of_weights(exported, trained):
    (checkpoint,) = trained.glob("*.pt")
    _, session = exported("--model", "tiny", "--weights", checkpoint, "--num-classes", "8",
                          "--output", "weights.onnx")
    _, other = exported("--checkpoint-path", checkpoint, "--output", "checkpoint.onnx")
    assert numpy.array_equal(*(each.run(None, {"images": images(1)})[0]
                               for each in (session, other)))
    keys = {entry.key: entry.value for entry in onnx.load("weights.onnx").metadata_props}
    assert "circle" in keys["ipucnn.class_names"]  # the card in the checkpoint


REFUSED = [
    (["--model", "tinny"], "unknown model 'tinny'", 2),
    ([*TINY, "--target", "openvine"], "unknown backend 'openvine'", 2),
    ([*TINY, "--target", "torch"], "backend 'torch' is not an export target", 2),
    ([*TINY, "--opset", "12"], "operator set 12 is not one of 7 to 11, which PopART reads", 2),
    ([*TINY, "--opset", "6"], "operator set 6 is not one of 7 to 11", 2),
    ([*TINY, "--target", "onnxruntime", "--opset", "99"], "operator set 99 is not one of 7 to ", 2),
    ([*TINY, "--dynamic-batch", "--batch-size", "2"], "contradict each other", 2),
    ([*TINY, "--output", "a.pb"], "does not end in '.onnx'", 2),
    ([*TINY, "--output", "a.onnx", "--model-path", "b"], "contradict each other", 2),
    ([*TINY, "--ema"], "'--ema' is for checkpoints", 2),
    (["--checkpoint-path", "nowhere.pt"], "nowhere.pt", 1),
    (["--checkpoint-path", "."], "there are no checkpoints in '.'", 1),
    (["--checkpoint-path", "x.pt", "--weights", "y.pt"], "both name the weights", 2),
    ([*TINY, "--full-precision-norm"], "unknown option '--full-precision-norm'", 2),
    ([*TINY, "--model-path", "file"], "cannot write 'file/tiny/model_1.onnx': ", 1),
    (["--model", "odd-erfinv", "--weights", "random"], "operator 'aten::erfinv'", 2),
    (["--model", "resnet8-cifar", "--weights", "random", "--opset", "8", "--target", "onnxruntime"],
     "cannot be exported to operator set 8: step!=1 is currently not supported\n", 2),
    (["--model", "odd-gathers", "--weights", "random"],
     "model 'odd-gathers' of odd_models needs operators that PopART lacks: GatherElements", 2),
    (["--model", "odd-fails", "--weights", "random"],
     "model 'odd-fails' of odd_models cannot be exported: KeyError: 'no such thing'", 1),
    (["--model", "odd-counts", "--weights", "random", "--dynamic-batch"],
     "model 'odd-counts' of odd_models cannot be exported: RuntimeError: shape", 1),
    (["--model", "odd-looks", "--weights", "random"],
     "model 'odd-looks' of odd_models cannot be exported: its code branches on values ('", 1),
    (["--model", "odd-drifts", "--weights", "random"],
     "model 'odd-drifts' of odd_models differs from torch when exported", 1),
    (["--model", "odd-huge", "--weights", "random"],
     "model 'odd-huge' of odd_models is larger than 2 GiB", 2),
]


@pytest.mark.parametrize(("argv", "message", "code"), REFUSED,
                         ids=[" ".join(case[0])[:60] for case in REFUSED])
def test_what_is_refused_leaves_no_file(cli, tmp_path, argv, message, code):
    (tmp_path / "file").write_text("in the way")
    found, out, err = cli("export", *argv)
    assert message in err
    assert (found, out) == (code, "")
    assert err.count("error: ") == 1
    assert "hint: " in err
    assert files(tmp_path) == ["file"]


def test_another_engine_has_what_popart_lacks(exported):
    result, _ = exported("--model", "odd-gathers", "--weights", "random", "--target", "onnxruntime")
    assert result["operators"]["GatherElements"] == 1


def test_an_existing_file_is_replaced_whole_or_not_at_all(cli, tmp_path):
    path = tmp_path / "a.onnx"
    path.write_text("old")
    assert cli("export", "--model", "odd-looks", "--weights", "random", "--output", path)[0] == 1
    assert path.read_text() == "old"
    assert cli("export", *TINY, "--output", path)[0] == 0
    onnx.checker.check_model(onnx.load(str(path)))
    assert files(tmp_path) == ["a.onnx"]


FULL_DISK = """
import resource, sys
from ipucnn.core import files
from ipucnn.__main__ import invoke
whole = files.write_bytes
def on_a_small_disk(path, content):
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    whole(path, content)
import ipucnn.onnx.job
ipucnn.onnx.job.write_bytes = on_a_small_disk
sys.exit(invoke(sys.argv[1:]))
"""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "a.onnx").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *PLUGINS, "export", *TINY, "--output", "a.onnx"],
        cwd=str(tmp_path), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=240)
    assert done.returncode == 1
    assert "error: cannot write 'a.onnx': File too large" in done.stderr
    assert files(tmp_path) == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_text() == "old"


@pytest.mark.parametrize("delay", [0.0, 1.0, 2.5])
def test_ctrl_c_leaves_no_file(tmp_path, delay):
    process = subprocess.Popen(
        [sys.executable, "-m", "ipucnn", "export", "--model", "resnet152", "--weights", "random"],
        cwd=str(tmp_path), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    assert "exporting" in process.stderr.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert files(tmp_path) == []


def test_a_reader_that_has_gone(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "ipucnn", *PLUGINS, "export", *TINY], cwd=str(tmp_path),
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 141, err
    assert b"Traceback" not in err
    assert files(tmp_path) == ["models/tiny/model_1.onnx"]  # written before it is reported


def test_from_python(tmp_path):
    use(None)
    result = ipucnn.export(model="mobilenet-v3-small", weights="random", input_size=32,
                           micro_batch_size=2)
    assert result.path == "models/mobilenet-v3-small/model_2.onnx"
    assert result.differences[2] <= result.tolerance
    with pytest.raises(ipucnn.IpucnnError, match="bach_size"):
        ipucnn.export(model="mobilenet-v3-small", bach_size=2)


def foreign(path, element, batch="n"):
    """Write a classifier of other origin: three logits, the means of the channels."""
    helper = onnx.helper
    nodes = [helper.make_node("Cast", ["pixels"], ["floats"], to=onnx.TensorProto.FLOAT),
             helper.make_node("GlobalAveragePool", ["floats"], ["means"]),
             helper.make_node("Flatten", ["means"], ["scores"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("pixels", element, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6),
              str(path))
    return path


@pytest.mark.parametrize(("element", "mean", "deviation"), [
    (onnx.TensorProto.UINT8, numpy.zeros(3), numpy.ones(3)),
    (onnx.TensorProto.FLOAT, 255 * numpy.array([0.485, 0.456, 0.406]),
     255 * numpy.array([0.229, 0.224, 0.225]))], ids=["bytes", "floats"])
def test_a_file_of_other_origin_gets_documented_images(cli, tmp_path, element, mean, deviation):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    colour = numpy.array([118, 116, 117])
    Image.new("RGB", (16, 16), tuple(colour.tolist())).save(tmp_path / "photos" / "grey.png")
    path = foreign(tmp_path / "their.model.onnx", element)
    code, _, err = cli("run", "--onnx", path, "--backend", "onnxruntime", "--precision", "full",
                       "--data-dir", "photos", "--predictions", "p.json", "--progress", "off")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "p.json").read_text())
    scores = (colour - mean) / deviation
    wanted = numpy.exp(scores - scores.max()) / numpy.exp(scores - scores.max()).sum()
    order = numpy.argsort(-wanted)
    assert [row[f"class_{place}"] for place in (1, 2, 3)] == order.tolist()
    assert [row[f"probability_{place}"] for place in (1, 2, 3)] == pytest.approx(
        wanted[order].tolist(), abs=1e-3)


@pytest.mark.parametrize("model", ["odd-looks", "odd-fails-when-traced"])
def test_auto_continues_with_a_backend_that_can_execute_the_network(cli, model):
    code, out, err = cli("run", "--model", model, "--weights", "random", "--data", "generated",
                         "--iterations", "1", "--precision", "full", "--progress", "off")
    assert code == 0
    assert "backend      torch" in out
    for engine in ("openvino", "onnxruntime"):
        assert re.search(f"note: backend '{engine}' is not used: .* cannot be exported", err)


def test_a_named_backend_is_never_left(cli):
    code, out, err = cli("run", "--model", "odd-looks", "--weights", "random", "--data",
                         "generated", "--backend", "openvino", "--progress", "off")
    assert (code, out) == (1, "")
    assert "use a backend that executes the module itself" in err


def test_a_network_that_a_backend_cannot_export_is_named(cli):
    code, _, err = cli("run", "--model", "odd-fails", "--weights", "random", "--backend",
                       "onnxruntime", "--data", "synthetic", "--progress", "off")
    assert code == 1
    assert "error: network 'Odd' cannot be exported: KeyError: 'no such thing'" in err


RUN_REFUSED = [
    (["--onnx", "nothing.onnx"], "there is no ONNX file 'nothing.onnx'", 1),
    (["--onnx", "."], "there is no 'resnet18/model_1.onnx'", 1),
    (["--onnx", "text.onnx"], "'text.onnx' is damaged or not an ONNX file", 1),
    (["--onnx", "four.onnx"], "'four.onnx' takes 4 images per call, not 1", 2),
    (["--onnx", "int.onnx"], "the input of 'int.onnx' is int32", 1),
    (["--onnx", "four.onnx", "--weights", "random"], "'--weights' has no effect for an ONNX", 2),
    (["--onnx", "four.onnx", "--normlayer", "group"], "'--normlayer' has no effect", 2),
]


@pytest.mark.parametrize(("argv", "message", "code"), RUN_REFUSED,
                         ids=[" ".join(case[0]) for case in RUN_REFUSED])
def test_files_that_cannot_be_run(cli, tmp_path, argv, message, code):
    (tmp_path / "text.onnx").write_text("weights: none\n" * 30)
    foreign(tmp_path / "four.onnx", onnx.TensorProto.FLOAT, batch=4)
    foreign(tmp_path / "int.onnx", onnx.TensorProto.INT32)
    found, out, err = cli("run", *argv, "--data", "generated", "--iterations", "1", "--backend",
                          "onnxruntime", "--progress", "off")
    assert message in err
    assert (found, out) == (code, "")
    assert err.count("error: ") == 1
    assert "hint: " in err


def test_weights_that_diverged_are_named_as_the_cause(cli, tmp_path):
    state = create_model("resnet8-cifar", weights="random").module.state_dict()
    state["conv1.weight"] *= float("nan")
    torch.save(state, tmp_path / "w.pt")
    found, out, err = cli("export", "--model", "resnet8-cifar", "--weights", "w.pt", "--target",
                          "onnxruntime")
    assert (found, out) == (1, "")
    assert "are not finite, and nothing was written" in err
    assert "diverged in training" in err
    assert files(tmp_path) == ["w.pt"]
