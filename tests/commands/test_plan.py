"""Planning a training, and the command that launches it on many hosts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.options import profiles
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.registry import registry
from ipucnn.planning.options import LaunchProfileOptions, PlanOptions
from ipucnn.terminal.flags import flag_table, parsed
from ipucnn.terminal.spellings import expanded, normalise
from ipucnn.training.options.train_options import TrainOptions

ROOT = Path(__file__).resolve().parents[2]

# the options of poprun in SDK 3.3
POPRUN_OPTIONS = {
    "--num-replicas", "--num-instances", "--ipus-per-replica", "--host", "-H", "--num-ilds",
    "--vipu-server-host", "--vipu-server-port", "--vipu-server-timeout", "--vipu-partition",
    "--vipu-partition-attempts", "--update-partition", "--reset-partition", "--remove-partition",
    "--vipu-cluster", "--vipu-allocation", "--executable-cache-path", "--mpi-global-args",
    "--mpi-local-args", "--numa-aware", "--print-topology", "--only-output-from-instance",
    "--only-stdout-from-instance", "--offline-mode", "--allow-run-as-root", "--import-config",
    "--export-config", "-v", "--vv"}


def split_command(line: str):
    """Return poprun's options, and the words of `ipucnn`."""
    assert line.endswith("\n")
    assert line.count("\n") == 1
    words = shlex.split(line)
    at = words.index("ipucnn")
    assert words[0] == "poprun"
    options = dict(word.split("=", 1) for word in words[1:at])
    assert len(options) == at - 1
    return options, words[at + 1:]


def train_options(words):
    """Return the options that the parser of `train` makes of these words."""
    words = normalise(words)
    words = expanded(words, flag_table([TrainOptions], words, registry()).lists())
    return resolve(TrainOptions, parsed(TrainOptions, words, registry()), "train")


# -- the plan ----------------------------------------------------------------------------------


def test_a_plan_describes_a_training(plan):
    code, out, err = plan("--model", "resnet50", "--data", "cifar10", "--batch-size", "4",
                          "--gradient-accumulation", "64", "--replicas", "4",
                          "--device-iteration", "2", "--pipeline-splits", "layer1/2", "layer2/3",
                          "layer3/3", "--precision", "16.32", "--input-size", "224")
    assert (code, err) == (0, "")
    facts, stages, memory, fit, work, _, use = out.split("\n\n")
    assert memory.startswith("Estimated memory of a replica on Mk2/Bow, 16.32, MiB\n")
    assert [row.split()[0] for row in fit.splitlines()[2:]] == ["Mk2/Bow", "Mk1"]
    assert work.startswith("multiply-adds\n")
    assert [row.split()[0] for row in stages.splitlines()[1:]] == [
        "input", "layer1/2", "layer2/3", "layer3/3"]
    assert use.startswith("The largest stage has work for 96% of the time")
    rows = dict(line.split("  ", 1) for line in facts.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows == {
        "model": "resnet50", "data": "cifar10", "precision": "16.32", "replicas": "4",
        "pipeline stages": "4", "they begin at": "input, layer1/2, layer2/3, layer3/3",
        "IPUs": "16", "hosts": "1", "instances": "1", "replicas per instance": "4",
        "micro-batch": "4", "gradient accumulation": "64", "device iterations": "2",
        "samples per weight update": "1,024", "samples per host call": "2,048",
        "samples per epoch": "50,000", "updates per epoch": "48",
        "images from the host": "150.5 kB for an image, 308.3 MB for a host call"}


def test_json_is_the_plan_in_the_terms_of_a_result(plan):
    code, out, err = plan("--config", "efficientnet-b4-g16-gn-pod16", "--launch", "pod16", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert len(found.pop("pipeline")["stages"]) == 2
    assert found.pop("times")["updates_per_epoch"] == 1_281_167 // 8192 * 4
    assert found == {
        "format": "ipucnn.plan/1", "model": "efficientnet-b4", "dataset": "imagenet",
        "backend": "auto", "begins_at": ["input", "_blocks/10/_bn1"], "fine_tuning": None,
            "learning_rate": {"lr": 0.1, "of_mean_gradient": 0.1},
        "epoch_samples": 1_281_167, "ipus": {"used": 16, "reserved": 16},
        "plan": {"micro_batch": 4, "device_iterations": 4, "replicas": 8, "precision": "16.16",
                 "instances": 8, "gradient_accumulation": 64,
                 "accumulation_reduction": "mean", "stages": 2, "devices": 16,
                 "update_batch": 2048, "combined_batch": 8192},
        "launch": {"profile": "pod16", "hosts": 1, "instances": 8, "replicas_per_instance": 1,
                   "command": None}}


def test_the_command_line_wins_over_the_profile(plan):
    _, out, _ = plan("--config", "resnet50", "--replicas", "2", "--json")
    assert json.loads(out)["plan"]["update_batch"] == 18 * 57 * 2


@pytest.mark.parametrize(("options", "samples"), [
    (["--data", "generated"], 60_000), (["--data", "synthetic", "--iterations", "3"], 24),
    (["--data", "cifar10"], 50_000), (["--data", "image_folder", "--data-dir", "x"], None)])
def test_an_epoch_is_known_where_no_data_need_be_read(plan, options, samples):
    _, out, _ = plan("--batch-size", "8", *options, "--json")
    assert json.loads(out)["epoch_samples"] == samples


def test_options_that_are_chosen_from_images_are_noted(capsys):
    words = ["plan", "--model", "resnet8-cifar", "--data-dir", "photos"]
    assert invoke([*words, "--epoch", "2", "--batch-size", "4"]) == 0
    notes = " ".join(capsys.readouterr().err.split())
    assert "images in 'photos' are not read: 'train' chooses '--num-classes', '--input-size' " \
           "from them" in notes
    for more in (["--data", "cifar10"], ["--num-classes", "8", "--input-size", "32", "--epoch",
                                         "2", "--batch-size", "4"]):
        assert invoke([*words, *more]) == 0
        assert "are not read" not in capsys.readouterr().err


def test_ipus_come_in_powers_of_two(plan):
    _, out, _ = plan("--replicas", "3", "--pipeline-splits", "layer3", "--gradient-accumulation",
                     "3")
    assert "6, of 8 reserved" in out
    code, out, err = plan("--replicas", "6", "--poprun")
    assert (code, out) == (2, "")
    assert "need 6 IPUs" in err
    assert "powers of two" in err


HALF = ["--half-res-training", "--fine-tune-epoch", "2", "--checkpoint-path", "c",
        "--fine-tune-first-trainable-layer", "layer4", "--weight-avg-strategy", "mean",
        "--gradient-accumulation", "3", "--pipeline-splits", "layer2",
        "--fine-tune-batch-size", "6"]


def test_the_fine_tuning_is_planned_too(plan):
    _, out, _ = plan(*HALF, "--fine-tune-gradient-accumulation", "32", "--replicas", "4", "--json")
    fine_tuning = json.loads(out)["fine_tuning"]
    assert (fine_tuning["update_batch"], fine_tuning["stages"]) == (6 * 32 * 4, 2)
    _, out, _ = plan(*HALF, "--fine-tune-gradient-accumulation", "32", "--replicas", "4")
    assert [line.split()[-1] for line in out.splitlines()
            if line.startswith("fine-tuning: samples per weight update")] == ["768"]


def test_a_fine_tuning_that_cannot_be_is_refused_before_the_training(capsys):
    assert invoke(["train", *HALF, "--fine-tune-gradient-accumulation", "2"]) == 2
    assert "in fine-tuning: 2 pipeline stages" in capsys.readouterr().err


WRONG = [
    (["--pipeline-splits", "layer2", "layer3", "--gradient-accumulation", "4"],
     "3 pipeline stages need a gradient accumulation of at least 5", "--gradient-accumulation 5"),
    ([*HALF, "--fine-tune-gradient-accumulation", "2"],
     "in fine-tuning: 2 pipeline stages need a gradient accumulation of at least 3 (",
     "--fine-tune-gradient-accumulation"),
    (["--model", "resnet81"], "unknown model 'resnet81'", "resnet18"),
    (["--optimizer", "sdg"], "unknown optimizer 'sdg'", "'sgd'"),
    (["--data", "cifar11"], "unknown dataset 'cifar11'", "'cifar10'"),
    (["--backend", "torch", "--half-partial"], "'--half-partial' is an option of backends popart, "
     "poptorch", "'--backend popart'"),
    (["--bach-size", "4"], "unknown option '--bach-size'", "--batch-size"),
    (["--batch-size", "0"], "'0' is too small", "1"),
    (["--config", "resnet51"], "unknown profile 'resnet51'", "resnet50"),
    (["--launch", "pod17"], "unknown profile 'pod17'", "pod16"),
    (["--replicas", "4", "--instances", "3"], "4 replicas cannot be divided among 3 instances",
     "multiple of 3"),
    (["--replicas", "6", "--launch", "pod64"], "6 replicas cannot be divided among 4 hosts", "4"),
    (["--launch", "pod64", "--replicas", "8", "--instances", "6"],
     "6 instances cannot be divided among 4 hosts", "4"),
    (["--launch", "pod64", "--hosts", "a", "b"], "2 hosts are named but '--num-hosts' is 4",
     "--num-hosts 2"),
    (["--hosts", "node[0-3]"], "host 'node[0-3]' is a range", "every host"),
    (["--config", "resnet50-pod64", "--launch", "pod16"],
     "64 replicas of 1 pipeline stages need 64 IPUs, and launch profile 'pod16' has 16",
     "--replicas 16"),
    (["--replicas", "3", "--pipeline-splits", "layer3", "--gradient-accumulation", "3", "--ipus",
      "6"], "3 replicas of 2 pipeline stages need 8 IPUs, and the system has 6", "--replicas 2"),
    (["--pipeline-splits", "layer2", "layer3", "--gradient-accumulation", "5", "--ipus", "2"],
     "need 4 IPUs, and the system has 2", "fewer '--pipeline-splits'"),
    (["--config", "resnet50-pod64", "--launch", "pod64", "--poprun"],
     "launch profile 'pod64' has 4 hosts, and none is named", "--hosts"),
    (["--launch", "torchrun", "--num-hosts", "2", "--nproc", "4"],
     "the system has 2 hosts, and none is named", "--hosts"),
    (["--poprun", "--json"], "'--poprun' and '--json' exclude each other", "shell"),
]


@pytest.mark.parametrize(("argv", "message", "hint"), WRONG,
                         ids=[" ".join(case[0])[-70:] for case in WRONG])
def test_what_cannot_be_trained_is_one_line_a_hint_and_exit_2(plan, argv, message, hint):
    code, out, err = plan(*argv)
    assert (code, out) == (2, "")
    error, advised = err.strip().splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert advised.startswith("hint: ")
    assert hint in advised


def test_the_backend_need_not_be_usable(plan, without_poptorch):
    code, _, err = plan("--backend", "poptorch", "--config", "resnet50")
    assert (code, err) == (0, "")


# -- poprun ------------------------------------------------------------------------------------


COMMANDS = [
    ["--config", "resnet50", "--data-dir", "my images/imagenet", "--lr", "0.5"],
    ["--config", "resnet50", "--replicas", "32", "--no-half-partial", "--no-validation"],
    ["--model", "resnet50", "--lr-scheduler", "cosine", "--device-iteration", "2",
     "--replicas", "8", "--normlayer", "group", "--precision", "half", "--gradient_accumulation=9",
     "--pipeline-splits", "layer1/2", "layer2/3", "--pipeline-splits", "layer3/4",
     "--recompute-mode", "manual", "--recompute-checkpoints", ".*conv.*", "layer1/0/(bn1|bn2)$"],
    ["--replicas=8", "--lr-epoch-decay", "30", "60", "--checkpoint-path", "it's $HOME; ls",
     "--progress", "off"],
    ["--replicas", "8", "--checkpoint-path=-odd", "--first-trainable-layer", "layer4",
     "--recompute-mode", "manual", "--recompute-checkpoints=-a|.*conv", "--no-eight-bit-io"],
]


@pytest.mark.parametrize("training", COMMANDS, ids=lambda words: " ".join(words)[:60])
def test_the_command_launches_the_planned_training(plan, training):
    launch = ["--instances", "8", "--vipu-partition", "p 1", "--executable-cache-path", "cache",
              "--update-partition", "--no-remove-partition", "--mpi-local-args",
              "-x PATH -x A=b,c", "--only-output-from-instance", "0", "--host", "one,two",
              "--vipu-server-timeout", "600"]
    code, out, err = plan(*training, *launch, "--poprun")
    assert (code, err) == (0, "")
    flags, words = split_command(out)
    wanted = train_options(training)
    assert set(flags) <= POPRUN_OPTIONS
    assert flags == {
        "--num-instances": "8", "--num-replicas": str(wanted.get("replicas")),
        "--ipus-per-replica": str(len(wanted.get("pipeline_splits")) + 1), "--host": "one,two",
        "--vipu-partition": "p 1", "--executable-cache-path": "cache", "--update-partition": "yes",
        "--remove-partition": "no", "--mpi-local-args": "-x PATH -x A=b,c",
        "--only-output-from-instance": "0", "--vipu-server-timeout": "600"}
    assert words[0] == "train"
    assert train_options(words[1:]) == wanted
    spelt = {flag for flag in words if flag.startswith("--no-")} | {
        word.partition("=")[0] for word in words if word.startswith("--")}
    current = {item.flag for item in common_options(TrainOptions)} | {
        item.flag for owner in builtin_owners(TrainOptions.kinds, registry())
        for item in declared(owner.options)}
    assert {flag.replace("--no-", "--", 1) if flag not in current else flag
            for flag in spelt} <= current


def test_every_option_for_poprun_is_one_of_its_own(plan):
    values = {bool: "true", int: "1", str: "x"}
    items = [item for item in declared(LaunchProfileOptions) if item.option.group == "PopRun"]
    words = [word for item in items for word in (
        [item.flag] if item.boolean else [item.flag, values[item.type]])]
    code, out, err = plan("--poprun", *words)
    assert (code, err) == (0, "")
    flags, _ = split_command(out)
    assert {item.flag for item in items} < set(flags) < POPRUN_OPTIONS


def test_a_shell_gives_poprun_its_words(plan, tmp_path):
    import os
    import subprocess

    program = tmp_path / "poprun"
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    program.chmod(0o755)
    _, out, _ = plan("--replicas", "4", "--data-dir", "two  words $HOME 'x'", "--poprun",
                     "--mpi-global-args", "--tag-output --mca a b")
    printed = subprocess.run(["sh"], input=out, stdout=subprocess.PIPE, universal_newlines=True,
                             env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                             check=True).stdout
    assert printed.splitlines() == [
        "--num-instances=1", "--num-replicas=4", "--ipus-per-replica=1",
        "--mpi-global-args=--tag-output --mca a b", "ipucnn", "train", "--data-dir",
        "two  words $HOME 'x'", "--replicas", "4"]


def test_plugins_are_those_of_the_plan(plan, tmp_path, monkeypatch):
    module = tmp_path / "mine.py"
    module.write_text(
        "from ipucnn.core.registry.hookspecs import hookimpl\n"
        "from ipucnn.core.registry.records import ModelSpec\n\n\n"
        "@hookimpl\ndef ipucnn_models():\n"
        "    return [ModelSpec(name='tiny', summary='Tiny.', target='mine:build')]\n")
    code, out, err = plan("--model", "tiny", "--poprun", "--plugin", module)
    assert code == 0, err
    assert split_command(out)[1] == [f"--plugin={module}", "train", "--model", "tiny"]
    monkeypatch.setenv("IPUCNN_DISABLE_PLUGINS", "a,b")
    _, out, _ = plan("--poprun")
    assert split_command(out)[1] == ["--no-plugins=a,b", "train"]
    _, out, _ = plan("--poprun", "--no-plugins")
    assert split_command(out)[1] == ["--no-plugins", "train"]


def test_instances_that_all_compile_are_noted(plan):
    for more, noted in ([], True), (["--instances", "1"], False), (
            ["--model-cache-path", "c"], False), (["--executable-cache-path", "c"], False):
        _, out, err = plan("--replicas", "4", "--instances", "4", *more, "--poprun")
        assert len(out.splitlines()) == 1
        assert ("--executable-cache-path" in err) == noted


# -- stages ------------------------------------------------------------------------------------


def test_a_plan_describes_its_stages(plan):
    code, out, err = plan("--model", "resnet18", "--data", "cifar10", "--batch-size", "2",
                          "--gradient-accumulation", "9", "--pipeline-splits", "layer2", "layer3/1",
                          "--backend", "poptorch", "--precision", "16.16", "--input-size", "224",
                          "--json")
    assert code == 0, err
    found = json.loads(out)["pipeline"]
    stages = found["stages"]
    assert [stage["begins_at"] for stage in stages] == ["input", "layer2", "layer3/1"]
    assert sum(stage["parameters"] for stage in stages) == 11_689_512  # torchvision's table
    assert sum(stage["multiply_adds"] for stage in stages) == pytest.approx(1.814e9, rel=1e-3)
    assert [stage["inputs"] for stage in stages] == [3 * 224**2, 64 * 56**2, 256 * 14**2]
    assert found["fill"] == round(9 / 11, 4)
    shares = [stage["share"] for stage in stages]
    assert found["balance"] == pytest.approx(1 / 3 / max(shares), abs=1e-3)
    assert 64 * 112**2 < stages[0]["activations"] < 20 * 64 * 112**2


@pytest.mark.parametrize(("model", "options"), [
    ("resnet50", []), ("mobilenet-v3-large", ["--input-size", "224"]), ("efficientnet-b0", []),
    ("resnext50", ["--input-size", "96"])])
def test_automatic_splits_are_those_of_the_plan(plan, model, options):
    code, out, err = plan("--model", model, "--pipeline-splits", "auto:4", "--data", "cifar10",
                          "--gradient-accumulation", "7", "--json", *options)
    assert code == 0, err
    found = json.loads(out)
    assert found["plan"]["stages"] == 4
    assert len(found["begins_at"]) == 4
    assert found["pipeline"]["balance"] > 0.6


PUBLISHED = [["--config", profile.name] for profile in profiles.available("train")
             if profile.values.get("pipeline_splits")] + [
    # the README of the old training application
    ["--model", "resnet50", "--normlayer", "group", "--groupnorm-group-num", "32", "--replicas",
     "4", "--batch-size", "4", "--device-iteration", "2", "--pipeline-splits", "layer1/2",
     "layer2/3", "layer3/3", "--precision", "half", "--gradient-accumulation", "64"],
    ["--model", "efficientnet-b0", "--precision", "half", "--pipeline-splits",
     "_blocks/1/_project_conv", "_blocks/4/_bn1", "_blocks/10", "--batch-size", "4",
     "--gradient-accumulation", "128", "--replicas", "4"]]


@pytest.mark.parametrize("words", PUBLISHED, ids=lambda words: " ".join(words)[:50])
def test_published_splits_fit_and_automatic_ones_are_balanced_no_worse(plan, words):
    wanted = [*words, "--data", "imagenet", "--backend", "poptorch", "--json"]
    published = json.loads(plan(*wanted)[1])
    stages = published["plan"]["stages"]
    if "--pipeline-splits" in words:
        begin = wanted.index("--pipeline-splits")
        del wanted[begin:begin + stages]
    found = json.loads(plan(*wanted, "--pipeline-splits", f"auto:{stages}")[1])
    assert found["pipeline"]["balance"] >= published["pipeline"]["balance"] - 1e-4
    estimates = {row["device"]: row for row in published["pipeline"]["memory"]}
    # they ran: on Mk1 where they are for it
    assert estimates["Mk2/Bow"]["share"] < 1
    assert estimates["Mk1"]["share"] < 1 or "mk1" not in words[1]


def test_committed_plans_are_those_of_every_model(plan):
    committed = json.loads((ROOT / "benchmarks" / "results" / "plans.json").read_text())
    assert list(committed["models"]) == registry().names("model")
    assert committed["longest_seconds"] < 10
    assert all(rows["4"]["balance"] > 0.6 for rows in committed["models"].values())
    for model, stages in (("mobilenet-v3-small", 4), ("resnet20-cifar", 2)):
        words = [word for name, value in committed["options"].items()
                 for word in ("--" + name.replace("_", "-"), str(value))]
        found = json.loads(plan("--model", model, "--pipeline-splits", f"auto:{stages}", *words,
                                "--json")[1])
        row = committed["models"][model][str(stages)]
        assert found["begins_at"] == row["begins_at"]
        assert found["pipeline"]["balance"] == row["balance"]
        assert {one["device"]: one["verdict"] for one in found["pipeline"]["memory"]} == {
            name: one["estimate"] for name, one in row["memory"].items()}


@pytest.mark.parametrize(("splits", "message", "hint"), [
    (["layer1/9"], "unknown pipeline split 'layer1/9'", "layer1/1"),
    (["layer3", "layer2"], "'layer2' runs before 'layer3'", "in the order of execution"),
    (["auto:many"], "'auto:many' states no number of stages", "auto:4"),
    (["auto:300"], "cut into 10 stages at most, not into 300", "fewer IPUs"),
])
def test_splits_are_checked_as_a_run_checks_them(plan, splits, message, hint):
    code, _, err = plan("--model", "resnet18", "--data", "cifar10", "--gradient-accumulation",
                        "1000", "--pipeline-splits", *splits)
    assert code == 2
    assert message in err
    assert hint in err


# -- launch profiles ---------------------------------------------------------------------------


ONE_DEVICE = ("resnet20-cifar", "resnet-main-py", "train-py", "cpu", "gpu", "resnet50-gpu",
              "fine-tune", "timm-train-py", "torchvision-train-py", "mobilenet-v3-small")


@pytest.mark.parametrize("profile", [p for p in profiles.available("train")
                                     if p.name not in ONE_DEVICE], ids=lambda p: p.name)
def test_every_training_for_16_or_64_ipus_fits_its_system(plan, profile):
    ipus = resolve(TrainOptions, {"config": profile.name}, "train").plan(False).devices
    assert ipus in (4, 16, 64)
    if "64" in profile.name or "16ipu" in profile.name or "pod16" in profile.name:
        assert ipus == (64 if "64" in profile.name else 16)
    launch = "pod64" if ipus == 64 else "pod16"
    code, out, err = plan("--config", profile.name, "--launch", launch, "--poprun",
                          *(["--hosts", "h1", "h2", "h3", "h4"] if launch == "pod64" else []))
    assert (code, err) == (0, "")
    flags, words = split_command(out)
    assert set(flags) <= POPRUN_OPTIONS
    assert int(flags["--num-replicas"]) * int(flags["--ipus-per-replica"]) == ipus
    assert int(flags["--num-replicas"]) % int(flags["--num-instances"]) == 0
    assert words == ["train", "--config", profile.name]


def test_as_many_instances_as_share_the_replicas_evenly(plan):
    def instances(*argv):
        return json.loads(plan(*argv, "--json")[1])["launch"]["instances"]

    assert instances("--config", "resnet50", "--launch", "pod16") == 8
    assert instances("--config", "efficientnet-b4-g1-gn-pod16", "--launch", "pod16") == 4
    assert instances("--replicas", "12", "--launch", "pod16") == 6
    assert instances("--config", "resnet50-pod64", "--launch", "pod64") == 16
    assert instances("--config", "resnet50", "--launch", "pod16", "--instances", "2") == 2


@pytest.mark.parametrize("profile", profiles.available("launch"), ids=lambda p: p.name)
def test_launch_profiles_are_listed_and_shown(capsys, profile):
    assert profile.summary
    assert invoke(["config", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name": profile.name, "command": "launch", "summary": profile.summary} in rows
    assert invoke(["config", "show", profile.name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ipus"] == int(profile.name[3:])
    assert set(shown) == {item.name for item in declared(LaunchProfileOptions)}


@pytest.mark.parametrize(("text", "message", "hint"), [
    ("ipus: 16\nvipu_partion: p\n", "unknown option 'vipu_partion' (mine.yaml, line 2)",
     "vipu-partition"),
    ("ipus: sixteen\n", "'sixteen' is not a whole number (mine.yaml, line 1)", ""),
    ("numa_aware: 3\n", "3 is not true or false (mine.yaml, line 1)", ""),
    ("batch_size: 3\n", "unknown option 'batch_size' (mine.yaml, line 1)", ""),
    ("poprun: true\n", "'poprun' is not allowed in a profile (mine.yaml, line 1)", "command line"),
    ("num_hosts: 2\nhosts: [a, b, c]\n", "3 hosts are named but '--num-hosts' is 2", "name 2"),
])
def test_a_wrong_launch_profile_is_blamed_by_file_and_line(plan, tmp_path, text, message, hint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    code, out, err = plan("--launch", path)
    assert (code, out) == (2, "")
    assert message in err
    assert hint in err


def test_a_launch_profile_of_ones_own(plan, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("ipus: 8\nhosts: [a, b]\ninstances_per_host: 2\nvipu_partition: mine\n")
    _, out, err = plan("--replicas", "8", "--launch", path, "--vipu-partition", "theirs",
                       "--poprun")
    flags, _ = split_command(out)
    assert flags == {"--num-instances": "4", "--num-replicas": "8", "--ipus-per-replica": "1",
                     "--host": "a,b", "--vipu-partition": "theirs"}
    assert "every instance compiles the model itself" in err


def test_no_option_of_a_launch_is_one_of_a_training():
    assert not ({flag for item in declared(PlanOptions) for flag in item.flags}
                & {flag for item in common_options(TrainOptions) for flag in item.flags})
