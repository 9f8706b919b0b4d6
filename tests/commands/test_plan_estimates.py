"""What `ipucnn plan` estimates, draws, warns of and prints for a launcher."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from ipucnn.models.stage_memory import MIB, MK2, StageMemory
from ipucnn.planning.picture import bars, svg
from ipucnn.planning.stages import Estimate, Pipeline, Stage
from ipucnn.terminal.layout import cells

SMALL = ("--model", "resnet20-cifar", "--data", "cifar10", "--batch-size", "8", "--optimizer",
         "sgd")


# -- memory ------------------------------------------------------------------------------------


def test_every_generation_and_a_gpu_have_an_estimate(plan):
    _, out, _ = plan(*SMALL, "--device-memory", "24GB", "--precision", "16.32", "--json")
    pipeline = json.loads(out)["pipeline"]
    rows = {found["device"]: found for found in pipeline["memory"]}
    assert list(rows) == ["GPU of 24 GB", "Mk1", "Mk2/Bow"]
    assert rows["Mk1"]["memory"] == 304 * MIB
    assert rows["Mk2/Bow"]["memory"] == 1472 * 624 * 1024
    assert {found["verdict"] for found in rows.values()} == {"fits"}
    (stage,) = rows["Mk1"]["stages"]
    parts = ("weights", "gradients", "optimizer", "activations", "images", "temporary", "overhead")
    assert stage["total"] == sum(stage[part] for part in parts)
    assert stage["activations"] == stage["activations_kept"] > stage["activations_recomputed"]
    assert any("304 MiB" in text for text in pipeline["assumptions"])
    assert any(text.startswith("GPU: ") for text in pipeline["assumptions"])


@pytest.mark.parametrize(("words", "precision", "weights"), [
    (["--precision", "full"], "32.32", 4), ([], "16.32", 6),
    (["--precision", "16.32"], "16.32", 6), (["--precision", "16.16"], "16.16", 8)])
def test_a_gpu_stores_weights_in_single_precision(plan, words, precision, weights):
    _, out, _ = plan(*SMALL, "--device-memory", "24GB", *words, "--json")
    pipeline = json.loads(out)["pipeline"]
    estimate, count = pipeline["memory"][0], pipeline["stages"][0]["parameters"]
    (stage,) = estimate["stages"]
    assert estimate["precision"] == precision
    assert [stage[part] / count for part in ("weights", "gradients", "optimizer")] == [
        weights, 4, 4]


def test_a_stage_that_does_not_fit_is_noted_where_a_device_is_named(plan):
    words = ["--model", "resnet18", "--data", "imagenet", "--batch-size", "32", "--precision",
             "16.16"]
    _, out, err = plan(*words)
    assert "does not fit" in out
    assert not err
    _, _, err = plan(*words, "--device-memory", "mk1")
    assert "MiB of the 304 MiB of Mk1: it does not fit" in err


def test_automatic_splits_keep_to_the_memory_of_a_device(plan):
    words = ["--model", "efficientnet-b0", "--data", "imagenet", "--batch-size", "8",
             "--precision", "16.16", "--gradient-accumulation", "32", "--pipeline-splits", "auto:2",
             "--json", "--device-memory"]
    large, small = (json.loads(plan(*words, memory)[1])["pipeline"] for memory in ("80G", "mk1"))
    by_name = {found["device"]: found for found in large["memory"]}
    assert by_name["Mk1"]["share"] > 1 > small["memory"][0]["share"]
    assert small["balance"] < large["balance"] == small["balance_of_automatic_splits"]


def test_a_model_of_a_plugin_is_cut(plan, tmp_path):
    module = tmp_path / "mine.py"
    module.write_text('''
import ipucnn
from torch import nn


def build(num_classes):
    blocks = [nn.Sequential(nn.Conv2d(width, 8, 3, padding=1), nn.GELU()) for width in (3, 8, 8, 8)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="mine", summary="Mine.", target=build, input_size=16)]
''')
    code, out, err = plan("--plugin", module, "--model", "mine", "--data", "cifar10",
                          "--batch-size", "8", "--pipeline-splits", "auto:3",
                          "--gradient-accumulation", "5", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["begins_at"] == ["input", "2", "3"]
    assert [row["verdict"] for row in found["pipeline"]["memory"]] == ["fits", "fits"]


@pytest.mark.parametrize("size", ["big", "-1GB", "0", "mk3"])
def test_a_memory_that_is_none_is_refused(plan, size):
    code, out, err = plan(*SMALL, f"--device-memory={size}")
    assert (code, out) == (2, "")
    assert "is not a memory size" in err
    assert "mk1" in err


# -- the size of the images --------------------------------------------------------------------


@pytest.mark.parametrize(("words", "size", "noted"), [
    (["--data", "cifar10"], 32, True), (["--data", "cifar10", "--input-size", "64"], 64, False),
    (["--data", "cifar10", "--weights", "pretrained"], 224, False),
    (["--data", "imagenet"], 224, False),
    (["--data", "imagenet", "--half-res-training", "--fine-tune-epoch", "1",
      "--fine-tune-first-trainable-layer", "layer4", "--weight-avg-strategy", "mean",
      "--fine-tune-gradient-accumulation", "3", "--checkpoint-path", "x"], 160, False)])
def test_images_have_the_size_that_a_training_chooses(plan, words, size, noted):
    code, out, err = plan("--model", "resnet18", "--batch-size", "8", "--pipeline-splits", "auto:2",
                          "--gradient-accumulation", "3", *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["times"]["bytes_per_image"] == 3 * size ** 2
    pipeline = found["pipeline"]
    assert pipeline["stages"][0]["inputs"] == 3 * size ** 2
    assert pipeline["balance"] == pipeline["balance_of_automatic_splits"]
    assert (f"the input size is {size} pixels instead of 224" in " ".join(err.split())) is noted


# -- time --------------------------------------------------------------------------------------


def test_times_follow_from_a_rate(plan):
    code, out, err = plan(*SMALL, "--rate", "1000", "--gradient-accumulation", "4", "--replicas",
                          "2", "--epoch", "3", "--json")
    assert code == 0, err
    times = json.loads(out)["times"]
    assert times["samples_per_update"] == 64
    assert times["samples_per_epoch"] == 50_000
    assert times["updates_per_epoch"] == 781
    assert times["update_seconds"] == pytest.approx(0.064)
    assert times["epoch_seconds"] == pytest.approx(49.984)
    assert times["training_seconds"] == pytest.approx(3 * 49.984)
    assert times["bytes_per_image"] == 3 * 32 * 32
    assert times["host_bytes_per_second"] == pytest.approx(3 * 32 * 32 * 1000)


@pytest.mark.parametrize(("words", "updates"), [
    (["--data", "cifar10", "--iterations", "10"], 20),
    (["--data", "cifar10", "--iterations", "9999"], 6250),
    (["--data", "image_folder", "--iterations", "10"], 20),
    (["--data", "synthetic", "--iterations", "10"], 20)])
def test_iterations_limit_an_epoch(plan, words, updates):
    _, out, _ = plan("--model", "resnet20-cifar", "--batch-size", "8", "--device-iterations", "2",
                     "--rate", "1000", *words, "--json")
    times = json.loads(out)["times"]
    assert times["updates_per_epoch"] == updates
    assert times["epoch_seconds"] == pytest.approx(updates * 0.008)
    _, out, _ = plan(*SMALL, "--rate", "1000", "--samples", "8000", "--epoch", "3")
    assert re.search(r"time of the training +24 s for 3 epochs", out)


@pytest.mark.parametrize(("result", "rate"), [
    ({"format": "ipucnn.train/1", "images_per_second": 300.0, "plan": {"replicas": 2}}, 600.0),
    ({"format": "ipucnn.run/1", "throughput": {"mean": 50.0}, "plan": {"replicas": 1}}, 200.0),
    ({"format": "ipucnn.data-bench/1", "compute": {"images_per_second": 10.0}}, 40.0)])
def test_a_rate_is_that_of_a_result_by_replicas(plan, tmp_path, result, rate):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    code, out, err = plan(*SMALL, "--replicas", "4", "--rate", path, "--json")
    assert code == 0, err
    assert json.loads(out)["times"]["images_per_second"] == rate


@pytest.mark.parametrize(("content", "message"), [
    (None, "is neither a number nor a file"), ("[1, 2]", "is not a result with a rate"),
    ("{", "is not a result with a rate"),
    ('{"images_per_second": true}', "is not a result with a rate"),
    ('{"throughput": {"mean": "fast"}}', "is not a result with a rate")])
def test_a_file_without_a_rate_is_refused(plan, tmp_path, content, message):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    code, out, err = plan(*SMALL, "--rate", path)
    assert (code, out) == (2, "")
    assert message in err
    assert plan(*SMALL, "--rate", "nan")[0] == plan(*SMALL, "--rate=-3")[0] == 2


# -- pictures ----------------------------------------------------------------------------------


def drawn(names):
    stages = tuple(Stage(name, 1000 * number, 10 ** 9 * number, number / 10, 10, 10)
                   for number, name in enumerate(names, 1))
    memory = tuple(StageMemory(*(number * 40 * MIB for number in range(1, 8))) for _ in names)
    return Pipeline(stages, 16, estimates=(
        Estimate(MK2, "16.16", memory, (1,) * len(names), (1,) * len(names), (1,) * len(names)),))


NAMES = ["input", "features/stages/<a & b>/a_very_long_name_of_a_block/and_of_its_layer",
         "x\x1b[31m"]


def test_the_picture_is_svg_whose_texts_have_room(plan, tmp_path):
    path = tmp_path / "plan.svg"
    code, _, err = plan("--model", "resnet18", "--data", "cifar10", "--pipeline-splits", "auto:3",
                        "--gradient-accumulation", "8", "--picture", path)
    assert code == 0, err
    for text in (path.read_text(encoding="utf-8"), svg("a plan <of> & many", drawn(NAMES))):
        root = ElementTree.fromstring(text)
        space = "{http://www.w3.org/2000/svg}"
        width = float(root.get("width"))
        assert root.find(f"{space}title") is not None
        assert not list(root.iter(f"{space}script"))
        assert "prefers-color-scheme:dark" in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        names = [item for item in root.iter(f"{space}text") if item.get("class") == "name"]
        assert len(names) == 6
        assert all(float(item.get("x")) + 7.3 * cells(item.text) < 190 for item in names)
        for item in root.iter(f"{space}rect"):
            assert float(item.get("x", 0)) + float(item.get("width")) <= width
            assert float(item.get("height")) > 0
        assert {float(item.get("y2")) - float(item.get("y1"))
                for item in root.iter(f"{space}line")} == {3 * 24}


def test_bars_fit_a_terminal():
    lines = bars(drawn(NAMES), 80).splitlines()
    assert len(lines) == 1 + 3 + 1 + 1 + 3 + 1
    assert max(map(cells, lines)) <= 80
    shares = [line for line in lines if line.rstrip().endswith("%")]
    assert [line.count("\u2588") for line in shares] == sorted(
        line.count("\u2588") for line in shares)
    assert all("|" in line for line in lines[-4:])
    assert "\x1b" not in "".join(lines)


def test_a_picture_of_another_kind_is_refused(plan, tmp_path):
    code, _, err = plan(*SMALL, "--picture", tmp_path / "plan.png")
    assert code == 2
    assert "is not an SVG file" in err


# -- rules -------------------------------------------------------------------------------------


RULES = [
    (["--replicas", "3"], "only allocated in powers of two"),
    (["--replicas", "128"], "a process can use 64"),
    (["--num-io-tiles", "32", "--pipeline-splits", "layer2", "--gradient-accumulation", "3"],
     "transfers cannot overlap with a pipeline"),
    (["--available-memory-proportion", "0.1", "0.2"],
     "2 available memory proportions for 1 pipeline stages"),
    (["--auto-loss-scaling", "--precision", "32.32"], "'--auto-loss-scaling' follows gradients"),
    (["--enable-optimizer-rts"], "shards the optimizer's state over replicas"),
    (["--optimizer", "sgd", "--momentum", "0.9", "--nesterov"], "without '--nesterov'")]


@pytest.mark.parametrize(("words", "message"), RULES,
                         ids=[" ".join(rule[0])[:40] for rule in RULES])
@pytest.mark.parametrize("backend", ["poptorch", "popart"])
def test_rules_of_the_api_are_warned_of(plan, without_poptorch, backend, words, message):
    code, out, err = plan("--model", "resnet20-cifar", "--data", "cifar10", "--batch-size", "8",
                          "--backend", backend, *words)
    assert code == 0, err
    assert out
    assert f"note: backend '{backend}' would refuse this: " in err
    assert message in err


def test_rules_of_popart_alone(plan):
    words = ["--model", "resnet20-cifar", "--data", "cifar10", "--recompute-mode", "manual",
             "--recompute-checkpoints", ".*conv", "--pipeline-splits", "layer2",
             "--gradient-accumulation", "3", "--batch-size", "8"]
    assert "a pipeline recomputes whole stages" in plan(*words, "--backend", "popart")[2]
    assert not plan(*words, "--backend", "poptorch")[2]


def test_batch_norm_of_single_images_is_warned_of(plan):
    words = ["--model", "resnet20-cifar", "--data", "cifar10", "--batch-size", "1"]
    assert "statistics are those of a single image" in plan(*words)[2]
    assert not plan(*words, "--normlayer", "group", "--groupnorm-group-num", "4")[2]


# -- launchers ---------------------------------------------------------------------------------


def test_the_line_for_torchrun_starts_the_processes(plan):
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()

    def printed(*words):
        code, out, err = plan(*SMALL, *words)
        assert (code, err) == (0, "")
        words = shlex.split(out)
        assert words[0] == "torchrun"
        found = parser.parse_args(words[1:])
        assert (found.module, found.training_script) == (True, "ipucnn")
        assert found.training_script_args[0] == "train"
        return found

    found = printed("--replicas", "4", "--launch", "torchrun")
    assert (found.nproc_per_node, found.standalone) == ("4", True)
    assert "--replicas 4" in " ".join(found.training_script_args)
    found = printed("--replicas", "8", "--launch", "torchrun", "--hosts", "h1", "h2")
    assert (found.nproc_per_node, found.nnodes) == ("4", "2")
    assert (found.rdzv_backend, found.rdzv_endpoint) == ("c10d", "h1:29400")
    found = printed("--launch", "torchrun", "--nproc", "4", "--nnodes", "2", "--rdzv-endpoint",
                    "10.0.0.1:5000")
    assert (found.nproc_per_node, found.rdzv_endpoint) == ("4", "10.0.0.1:5000")
    found = printed("--replicas", "2", "--launch", "torchrun", "--pipeline-splits", "auto:2",
                    "--gradient-accumulation", "3")
    assert found.nproc_per_node == "4"  # a process for each stage of each replica
    assert not [word for word in found.training_script_args if word.startswith("auto")]


def test_a_line_is_printed_without_torch():
    code = ("import sys; from ipucnn.__main__ import invoke; "
            "code = invoke(['plan', '--config', 'resnet50', '--launch', 'poprun']); "
            "sys.exit(code or 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.startswith(b"poprun --num-instances=1 --num-replicas=16 ")


def test_devices_are_ipus_where_they_may_be(plan):
    for words, label in ([], "IPUs"), (["--backend", "torch"], "devices"), (
            ["--launcher", "torchrun"], "devices"), (["--backend", "poptorch"], "IPUs"):
        _, out, _ = plan(*SMALL, "--replicas", "3", *words)
        (found,) = [line for line in out.splitlines() if line.startswith(label)]
        assert ("of 4 reserved" in found) == (label == "IPUs")


def test_a_command_line_with_its_launcher_is_planned(plan):
    _, out, err = plan(*SMALL, "--launcher", "torchrun", "--nproc", "4", "--json")
    found = json.loads(out)
    assert not err
    assert (found["plan"]["replicas"], found["plan"]["instances"]) == (4, 4)
    assert shlex.split(found["launch"]["command"])[:3] == ["torchrun", "--nproc-per-node=4",
                                                         "--standalone"]
    _, out, _ = plan(*SMALL, "--launcher", "torchrun", "--nproc", "4", "--hosts", "a", "b",
                     "--json")
    found = json.loads(out)
    assert (found["plan"]["replicas"], found["plan"]["instances"]) == (8, 8)
    code, _, err = plan(*SMALL, "--launcher", "torchrun", "--nproc", "3", "--pipeline-splits",
                        "layer2", "--gradient-accumulation", "3")
    assert code == 2
    assert "2 pipeline stages cannot be divided among 3 processes" in err


def test_a_launcher_of_a_third_party_prints_its_own_line(plan, tmp_path):
    module = tmp_path / "grid.py"
    module.write_text('''
import ipucnn
from ipucnn.core.execution.instances import ALONE
from ipucnn.core.execution.launcher import Launcher


class Grid(Launcher):
    def launch(self, environment):
        return None

    def environment(self, index, count):
        return {}

    def join(self):
        return ALONE

    def command(self, plan, hosts, flags):
        return ["grid", f"-n{plan.instances}"]


class Silent(Grid):
    command = Launcher.command


@ipucnn.hookimpl
def ipucnn_launchers():
    return [ipucnn.LauncherSpec(name="grid", summary="A grid.", target=Grid, variables=("GRID",)),
            ipucnn.LauncherSpec(name="silent", summary="None.", target=Silent, variables=("NONE",))]
''')
    code, out, err = plan("--plugin", module, *SMALL, "--replicas", "4", "--launch", "grid")
    assert code == 0, err
    words = shlex.split(out)
    assert words[:5] == ["grid", "-n4", "ipucnn", f"--plugin={module}", "train"]
    assert words[-1] == "--launcher=grid"
    code, out, err = plan("--plugin", module, *SMALL, "--launch", "silent")
    assert (code, out) == (2, "")
    assert "launcher 'silent' prints no command" in err
