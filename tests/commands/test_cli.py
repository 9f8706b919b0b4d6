"""The command line as a user meets it: exit codes, one clear line and a hint, pure JSON."""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import typer

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.cli import COMMANDS, application
from ipucnn.testing import reports

FAST = ["--data", "synthetic", "--random-weights", "--iterations", "1", "--progress", "off"]


def one_line_and_hint(err: str) -> None:
    lines = err.strip().splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert len([line for line in lines if line.startswith("hint: ")]) == 1
    assert "Traceback" not in err


BAD_USAGE = [
    (["run", "--model", "resnet81"], "unknown model 'resnet81'", "resnet18"),
    (["run", "--data", "synthetik"], "unknown dataset 'synthetik'", "'synthetic'"),
    (["run", "--backend", "torsh"], "unknown backend 'torsh'", "'torch'"),
    (["run", "--normlayer", "grup"], "unknown norm-layer 'grup'", "'group'"),
    (["run", "--batch-size", "0"], "'--batch-size': '0' is too small", "1"),
    (["run", "--batch-size", "-4"], "'--batch-size': '-4' is too small", "1"),
    (["run", "--replicas", "0"], "'--replicas': '0' is too small", "1"),
    (["run", "--precision", "16.32"], "'--precision': '16.32' is not one of", "32.32"),
    (["run", "--bach-size", "3"], "unknown option '--bach-size'", "'--batch-size'"),
    (["run", *FAST, "--pipeline-splits", "layer9", "--device-iterations", "2"],
     "unknown pipeline split 'layer9'", "layer"),
    (["run", *FAST, "--pipeline-splits", "layer3", "layer3", "--device-iterations", "3"],
     "pipeline split 'layer3' is repeated", "once"),
    (["run", *FAST, "--pipeline-splits", "layer3", "layer1", "--device-iterations", "3"],
     "'layer1' runs before 'layer3'", "order"),
    (["run", *FAST, "--pipeline-splits", "layer2", "layer3", "--device-iterations", "2"],
     "3 pipeline stages need at least 3 device iterations", "--device-iterations 3"),
    (["run", *FAST, "--half-partial"],
     "'--half-partial' is an option of backends popart, poptorch", "Poplar SDK"),
    (["run", *FAST, "--half-partial", "--backend", "torch"],
     "'--half-partial' is an option of backends popart, poptorch; this run uses torch",
     "--backend popart"),
    (["run", *FAST, "--momentum", "0.9"], "'--momentum' is an option of optimizers rmsprop",
     "leave it out"),
    (["run", *FAST, "--available-memory-proportion", "0.4"],
     "'--available-memory-proportion' is an option of backends popart, poptorch", "poptorch"),
    (["run", *FAST, "--predictions", "x.csv"],
     "'--predictions' cannot be used with dataset 'synthetic'", "--data"),
    (["run", *FAST, "--data-dir", "photos", "--dataloader-worker", "2"],
     "'--data-dir', '--dataloader-worker' cannot be used with dataset 'synthetic'", "leave"),
    (["run", "--data", "shapes", "--data-dir", "photos"],
     "'--data-dir' cannot be used with dataset 'shapes', which reads no folder", "leave"),
    (["run", *FAST, "--weights-partial"], "'--weights-partial' has no effect", "--weights"),
    (["run", *FAST, "--top-k", "3"], "'--top-k' is for predictions", "--predictions"),
    (["run", "--data", "image_folder"], "dataset 'image_folder' needs a folder", "--data-dir"),
    (["run", "--predictions", "x.txt"], "'x.txt' has no known format", ".csv"),
    (["run", "--config", "resnet50-mk3"], "unknown profile 'resnet50-mk3'", "resnet50-mk2"),
    (["run", *FAST, "--eight-bit-io", "--normalization-location", "host"],
     "8-bit input and normalisation on the host", "device"),
    (["run", *FAST, "--efficientnet-expand-ratio", "4"], "--efficientnet-expand-ratio",
     "efficientnet-b0"),
    (["run", *FAST, "--model", "mobilenet", "--normlayer", "group"], "group",
     "group counts that suit"),
    (["run", *FAST, "--device", "cuda:77"], "no device 'cuda:77'", "--device cpu"),
    (["run", "--data", "synthetic", "--backend", "torch", "--device", "cuda:77"],
     "'torch' cannot be used here: there is no device 'cuda:77'", "--device cpu"),
    (["run", *FAST, "--backend", "torch", "--compile-only"], "--compile-only", "--compile"),
    (["run", "--random-weights", "--weights", "x.pt"], "contradicts", "leave one"),
    (["show", "modle", "resnet50"], "unknown kind 'modle'", "model"),
    (["show", "dataset", "real", "--splits"], "is for models", ""),
    (["list-plugins", "modles"], "unknown kind 'modles'", "models"),
    (["trian"], "unknown command 'trian'", "did you mean 'train'? commands: train, restore,"),
    (["data", "fecth"], "unknown command 'fecth'", "did you mean 'fetch'"),
    (["run", "resnet50"], "unexpected argument 'resnet50'", "did you mean '--model resnet50'?"),
    (["train", "--model", "resnet50", "lars.py"], "unexpected argument 'lars.py'", "--help"),
    (["plan", "sgd"], "unexpected argument 'sgd'", "'--optimizer sgd'"),
    (["run", str(Path(__file__).parent)], "unexpected argument", "did you mean '--data-dir /"),
    (["run", __file__], "unexpected argument", "did you mean '--data-dir /"),
    (["show"], "the name of a plugin is missing", "show resnet50"),
    (["show", "model"], "the name of the model is missing", "'ipucnn list-plugins models'"),
    (["show", "none"], "'none' is the name of several plugins",
     "add the kind: 'ipucnn show norm-layer none' or 'ipucnn show lr-schedule none'"),
    (["show", "resnet55"], "there is no plugin 'resnet55'", "did you mean 'resnet50'"),
    (["average", "--checkpoint-path", "a", "--reestimate-batch-norm", "--data-dir", "photos"],
     "option '--reestimate-batch-norm' requires an argument", "--help"),
    (["average", "--weight-avg-n", "--json"], "option '--weight-avg-n' requires an argument", ""),
    (["train", "--resume", "--epoch=3"], "option '--resume' requires an argument", "--help"),
    (["run", "--pipeline-splits", "--no-hide-output"],
     "option '--pipeline-splits' requires an argument", "--help"),
    (["data", "shapes", "--out", "--size", "8"], "option '--out' requires an argument", "--help"),
    (["data", "verify", "--data-dir", "photos"], "unknown option '--data-dir'",
     "the folder is an argument: 'ipucnn data verify DIR'"),
    (["data", "verify", "--dat", "photos"], "unknown option '--dat'", "did you mean '--data'?"),
    (["show", "resnet50", "--lr", "1"], "unexpected argument '--lr'", "--help"),
    (["list-plugins", "--wide", "--json"], "exclude each other", "leave one"),
    (["config", "show", "nothing.yaml"], "no profile 'nothing.yaml'", "config list"),
    (["data", "fetch", "sample-imags"], "sample-imags", "sample-images"),
    (["--plugin", "missing_plugin.py", "run"], "missing_plugin.py", "--plugin"),
]


@pytest.mark.parametrize(("argv", "message", "hint"), BAD_USAGE,
                         ids=[" ".join(case[0])[:70] for case in BAD_USAGE])
def test_wrong_usage_is_one_line_a_hint_and_exit_2(cli, argv, message, hint):
    code, out, err = cli(*argv)
    assert code == 2
    assert out == ""
    assert message in err
    if hint:
        one_line_and_hint(err)
        assert hint in err.partition("hint: ")[2]


@pytest.mark.skipif(find_spec("poptorch") is not None, reason="the Poplar SDK is here")
def test_a_missing_backend_names_what_is_missing_and_another(cli):
    code, _, err = cli("run", "--backend", "poptorch", *FAST)
    assert code == 2
    one_line_and_hint(err)
    assert "'poptorch' cannot be used here" in err
    assert "Poplar SDK" in err
    assert "pip install poptorch" not in err
    assert re.search(r"here '--backend (openvino|onnxruntime|torch)' runs the same command", err)


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_imports_only_the_module_that_has_it(module):
    names = COMMANDS[module]
    for name in names:
        command = typer.main.get_command(application(name))
        assert sorted(command.list_commands(None)) == sorted(names)


def test_all_commands_are_in_the_list():
    modules = {path.stem for path in Path(ipucnn.__file__).with_name("commands").glob("*.py")
               if "def add_to(" in path.read_text()}
    assert modules == set(COMMANDS)


def test_version_and_help(cli):
    assert cli("--version") == (0, f"ipucnn {ipucnn.__version__}\n", "")
    code, out, _ = cli("run", "--help-all")
    assert code == 0
    for spelling in ("--device-iterations, --device-iteration", "--normlayer, --norm-type",
                     "--groupnorm-group-num, --norm-num-groups",
                     "--batch-size, --micro-batch-size"):
        assert spelling in re.sub(r"\s+", " ", out)


def explained(text):
    return {match.group(1) for match in re.finditer(r"^  (?:-h, )?(--[a-z0-9-]+)", text, re.M)}


def test_help_of_train_fits_three_screens_and_names_what_help_all_explains(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, short, _ = cli("train", "--help")
    _, full, _ = cli("train", "--help-all")
    assert len(short.splitlines()) <= 3 * 50
    assert max(map(len, short.splitlines())) <= 80
    assert not [line for line in full.splitlines() if line.endswith("-")]  # names stay whole
    named = set(re.findall(r"--[a-z0-9-]+[a-z0-9]", short))
    assert explained(full) - named == set()
    assert "  --lr FLOAT  " in short
    assert "--mixup-alpha FLOAT" not in short
    assert {"--mixup-alpha", "--beta1", "--ipu-model", "--fine-tune-lr"} <= explained(full)
    beta = re.sub(r"\s+", " ", full.partition("--beta1")[2])[:300]
    assert "Plugins: optimizers " in beta
    assert "lamb" in beta


@pytest.mark.parametrize(("command", "flag"), [
    ("average", "--checkpoint-path"), ("average", "--weight-avg-strategy"),
    ("data convert", "--shuffle / --no-shuffle"), ("data bench", "--data")])
def test_a_help_explains_the_usual_options(command, flag, cli):
    _, out, _ = cli(*command.split(), "--help")
    assert f"\n  {flag} " in out
    assert "Further options" not in out
    assert "(default: recognised by the layout of '--data-dir'). Default:" not in re.sub(
        r"\s+", " ", out)


@pytest.mark.parametrize(("command", "own", "other"), [
    ("train", "--auto-loss-scaling", "--images-per-call"),
    ("train", "--pipeline-schedule", "--requests"),
    ("run", "--spinning", "--auto-loss-scaling")])
@pytest.mark.parametrize("help_option", ["--help", "--help-all"])
def test_a_help_contains_only_options_of_the_command_s_job(command, own, other, help_option, cli):
    _, out, _ = cli(command, help_option)
    assert own in out
    assert other not in out


README_001 = [
    "--data real --replicas 1 --batch-size 1 --model resnet18 --device-iteration 1",
    "--data synthetic --replicas 1 --batch-size 16 --model resnet18 --device-iteration 1000 "
    "--normlayer none --precision half",
    "--data real --replicas 1 --batch-size 24 --model resnet18 --device-iteration 64 "
    "--normlayer batch --precision half",
    "--data real --replicas 1 --batch-size 19 --model resnet34 --device-iteration 64 "
    "--normlayer batch --precision half",
    "--data real --replicas 1 --batch-size 8 --model resnet50 --device-iteration 64 "
    "--normlayer batch --precision half",
    "--data real --replicas 1 --batch-size 11 --model efficientnet-b0 --device-iteration 1000 "
    "--normlayer batch --precision half",
]


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A folder of eight real JPEG files."""
    folder = tmp_path_factory.mktemp("images") / "shapes"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "1", "--size",
                       "64"]) == 0
    return folder


@pytest.mark.parametrize("command", README_001)
def test_every_example_of_the_old_readme_runs(cli, images, command):
    # pretrained weights need a network, which tests must not; the time limit cuts the benchmark
    folder = ["--data-dir", str(images)] if "--data real" in command else []
    code, out, err = cli("run", *command.split(), *folder, "--weights", "random",
                         "--time-limit", "0.5", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["images"] > 0
    assert result["throughput"]["mean"] > 0


def test_quiet_prints_only_errors(cli):
    assert "note: backend '" in cli("run", *FAST)[2]
    assert cli("run", *FAST, "-q")[2] == ""
    assert "error: " in cli("run", "--model", "nothing", "-q")[2]


def test_verbose_prints_the_records_of_each_plugin(caplog):
    import logging

    with caplog.at_level(logging.DEBUG):
        assert invoke(["-v", "list-plugins", "schedules"]) == 0
    assert any("provides cosine" in record.getMessage() for record in caplog.records)


def test_plugins_of_the_environment_and_of_the_command_line_add_up(cli, tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.py").write_text(
            "from ipucnn import ModelSpec, hookimpl\n@hookimpl\ndef ipucnn_models():\n"
            f"    return [ModelSpec(name='{name}', summary='x', target='x:y')]\n")
    monkeypatch.setenv("IPUCNN_PLUGIN", os.pathsep.join(
        str(tmp_path / f"{name}.py") for name in ("one", "two")))
    _, out, _ = cli("list-plugins", "models", "--plugin", str(tmp_path / "three.py"),
                    "--json")
    assert {"one", "two", "three"} <= {row["name"] for row in json.loads(out)}


def test_old_spellings_and_new_ones_mean_the_same(cli):
    old = cli("run", *FAST, "--batch_size", "2", "--device-iteration", "2", "--normlayer",
              "group", "--groupnorm-group-num", "8", "--precision", "full", "--json")
    new = cli("run", *FAST, "--micro-batch-size=2", "--device-iterations", "2",
              "--norm-type", "GROUP", "--norm-num-groups", "8", "--precision", "32.32",
              "--json")
    assert old[0] == new[0] == 0
    settings = [json.loads(out)["options"] for _, out, _ in (old, new)]
    assert settings[0].pop("normlayer") == settings[1].pop("normlayer").lower()
    assert settings[0] == settings[1]


def test_space_separated_lists(cli):
    code, out, err = cli(
        "run", *FAST, "--pipeline-splits", "layer1/1", "layer2", "--device-iterations", "3",
        "--replicas", "2", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["options"]["pipeline_splits"] == ["layer1/1", "layer2"]
    assert result["plan"]["devices"] == 6
    assert [stage["begins_at"] for stage in result["session"]["stages"]] == [
        "input", "layer1/1", "layer2"]


def test_a_run_on_labelled_files_reports_and_predicts(cli, images, tmp_path):
    target = tmp_path / "predictions.csv"
    code, out, err = cli(
        "run", "--data", "image_folder", "--data-dir", str(images), "--weights", "random",
        "--batch-size", "3", "--predictions", str(target), "--top-k", "2", "--result",
        str(tmp_path / "result.json"))
    assert code == 0, err
    assert re.search(r"images +8 in 3 iterations, 1 of them warm-up", out)
    assert "top-1" in out
    assert "Traceback" not in err
    header, *rows = target.read_text().splitlines()
    assert header == ("path,label,class_1,name_1,probability_1,class_2,name_2,probability_2,"
                      "label_name")
    assert all(row.split(",")[-1] == Path(row.split(",")[0]).parent.name for row in rows)
    assert len(rows) == 8
    assert all(Path(row.split(",")[0]).is_file() for row in rows)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["accuracy"]["images"] == 8
    assert len(result["answers"]) == 8
    assert sum(row["correct"] for row in result["answers"]) == sum(
        row["correct"] for row in result["classes"])
    assert sum(row["images"] for row in result["classes"]) == 8
    assert result["environment"]["packages"]["torch"]


def test_a_saved_result_repeats_the_run(cli, tmp_path):
    import yaml

    _, out, _ = cli("run", *FAST, "--batch-size", "2", "--seed", "5", "--json")
    first = json.loads(out)["options"]
    profile = tmp_path / "again.yaml"
    profile.write_text(yaml.safe_dump(first))
    code, out, err = cli("run", "--config", str(profile), "--json", "--progress", "off")
    assert code == 0, err
    assert json.loads(out)["options"] == first


@pytest.mark.parametrize(("command", "lines", "meant"), [
    ("run", "model: resnet18\nepoch: 3\n", "train"),
    ("train", "model: resnet18\npredictions: p.csv\n", "run"),
    ("export", "model: resnet18\nepoch: 3\n", "train")])
def test_a_profile_for_another_command_is_recognised(cli, tmp_path, command, lines, meant):
    (tmp_path / "own.yaml").write_text(lines)
    code, _, err = cli(command, "--config", str(tmp_path / "own.yaml"))
    assert code == 2
    assert "(own.yaml, line 2)" in err
    assert f"own.yaml' are those of 'ipucnn {meant}'" in err


def test_only_errors_in_a_profile_name_another_command(cli, tmp_path):
    (tmp_path / "own.yaml").write_text("model: resnet18\nepoch: 3\nlr: 1\n")
    code, _, err = cli("run", "--config", str(tmp_path / "own.yaml"), "--batch-size", "-3")
    assert code == 2
    assert "the smallest value is 1" in err
    (tmp_path / "own.yaml").write_text("hosts: a\nvipu-partition: p\n")
    code, _, err = cli("run", "--config", str(tmp_path / "own.yaml"))
    assert code == 2
    assert "own.yaml' are those of 'ipucnn plan --launch'" in err


def test_a_wrong_option_in_a_profile_for_this_command_keeps_its_hint(cli, tmp_path):
    (tmp_path / "own.yaml").write_text("model: resnet18\nepochz: 3\nlr: 1\n")
    code, _, err = cli("train", "--config", str(tmp_path / "own.yaml"))
    assert code == 2
    assert "did you mean 'epoch'" in err


@pytest.mark.parametrize(("command", "name", "meant"), [
    ("run", "train-py", "train"), ("train", "run-benchmark-py", "run"),
    ("train", "pod16", "launch")])
def test_a_shipped_profile_of_another_command_is_recognised(cli, command, name, meant):
    code, _, err = cli(command, "--config", name)
    assert code == 2
    assert f"the profile '{name}' is for '{meant}', not for '{command}'" in err


@pytest.mark.parametrize("name", ["resnet50-mk2", "efficientnet-b0-g16-gn-mk2"])
def test_named_profiles_run_with_what_this_backend_lacks_left_out(cli, name):
    without = ["--no-half-partial", "--no-enable-fast-groupnorm"]
    code, out, err = cli("run", "--config", name, *without, *FAST, "--batch-size", "1",
                         "--device-iterations", "1", "--json")
    assert code == 0, err
    assert json.loads(out)["plan"]["combined_batch"] == 1


def test_list_plugins(cli):
    code, out, _ = cli("list-plugins", "models", "--filter", "resnet*", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet20-cifar"} <= {
        row["name"] for row in rows}
    assert all(row["name"].startswith("resnet") for row in rows)
    assert {"kind", "name", "aliases", "summary", "distribution", "version", "entry_point",
            "state", "cause", "remedy"} <= set(rows[0])
    code, out, err = cli("list-plugins")
    assert code == 0
    for name in ("efficientnet-b7", "image_folder", "group", "rmsprop", "cosine", "poptorch"):
        assert re.search(rf"\b{name}\b", out)
    assert not err
    code, out, err = cli("list-plugins", "--filter", "zzz*")
    assert (code, out) == (0, "")
    assert "nothing matches 'zzz*'" in err


@pytest.mark.parametrize(("kind", "name", "texts"), [
    ("model", "resnet50", ["25,557,032", "4,089,184,256", "224", "80.858", "BSD"]),
    ("model", "efficientnetb0", ["5,288,548", "Apache"]),
    ("dataset", "image_folder", ["labelled"]),
    ("norm-layer", "group", ["--groupnorm-group-num"]),
    ("optimizer", "sgd", ["--momentum", "--nesterov"]),
    ("lr-schedule", "cosine", ["formula"]),
    ("backend", "torch", ["precisions", "16.16"]),
])
def test_show(cli, kind, name, texts):
    code, out, err = cli("show", kind, name)
    assert code == 0, err
    for text in texts:
        assert text in out
    code, out, _ = cli("show", kind, name, "--json")
    assert json.loads(out)["kind"] == kind


@pytest.mark.parametrize("name", ["resnet50", "ResNet-50", "sgd", "ort"])
def test_show_needs_no_kind_for_a_name_of_one_kind(cli, name):
    code, out, err = cli("show", name, "--json")
    assert code == 0, err
    described = json.loads(out)
    assert cli("show", described["kind"], name, "--json")[1] == out
    assert cli("show", "cosine", "--plot", "--lr", "0.2")[1] == cli(
        "show", "lr-schedule", "cosine", "--plot", "--lr", "0.2")[1]


def test_a_plot_takes_the_options_of_a_training_as_train_does(cli):
    code, out, err = cli("show", "schedule", "step", "--plot", "--lr-epoch-decay", "30",
                         "60", "--epoch", "90")
    assert code == 0, err
    assert "89.7" in out
    code, _, err = cli("show", "step", "--plot", "--no-validation=false")
    assert code == 2
    assert "option '--no-validation' does not take a value" in err


@pytest.mark.parametrize("words", [
    ["step", "--plot", "--json"], ["resnet18", "--plot", "--splits"]])
def test_options_of_show_that_exclude_each_other(cli, words):
    code, _, err = cli("show", *words)
    assert code == 2
    assert "exclude each other" in err


@pytest.mark.parametrize("flag", ["--plot", "--splits"])
def test_show_plots_no_files(cli, tmp_path, flag):
    (tmp_path / "model.pt").touch()
    code, _, err = cli("show", tmp_path / "model.pt", flag)
    assert code == 2
    assert f"'{flag}' is for plugins by name" in err


def test_the_home_folder_is_expanded_in_every_path(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mynet.py").write_text(
        (Path(__file__).parents[1] / "tiny_plugin.py").read_text())
    code, out, err = cli("--plugin=~/mynet.py", "show", "model", "tiny", "--json")
    assert code == 0, err
    assert json.loads(out)["name"] == "tiny"
    found = []
    monkeypatch.setattr(reports, "check_all", lambda names, wishes: found.append(wishes) or {})
    cli("check-plugin", "sgd", "--data-dir=~/photos")
    assert found[0].data_dir == str(tmp_path / "photos")


def test_the_home_folder_of_an_unknown_user_is_a_name(cli):
    code, _, err = cli("run", "--data", "synthetic", "--iterations", "1", "--model",
                       "resnet18", "--weights", "~nobody-here/m.pt")
    assert code == 1
    assert "~nobody-here/m.pt" in err
    assert "Traceback" not in err


def test_show_splits_are_accepted_as_splits(cli):
    _, out, _ = cli("show", "model", "resnet18", "--splits")
    names = out.split()
    assert "layer1/0" in names
    assert names.index("layer1") < names.index("layer2/1/conv1") < names.index("fc")
    code, _, err = cli("run", *FAST, "--device-iterations", "2", "--pipeline-splits",
                       names[-1])
    assert code == 0, err


def test_config_list_and_show(cli):
    code, out, _ = cli("config", "list", "--json")
    names = [profile["name"] for profile in json.loads(out) if profile["command"] == "run"
             and profile["name"] not in ("cpu", "gpu", "run-benchmark-py",
                                         "resnext-bulk")]
    assert code == 0
    assert {"resnet50-mk1", "mobilenet-v3-large-mk2", "efficientnet-b4-g16-gn-mk2"} <= set(names)
    for name in names:
        code, out, err = cli("config", "show", name, "--json")
        assert code == 0, err
        assert json.loads(out)["half_partial"] is True


def test_the_weights_of_another_model_are_refused(cli, tmp_path):
    from ipucnn.models.build import create_model

    path = tmp_path / "other.pt"
    torch.save(create_model("mobilenet-v3-small", weights="random").module.state_dict(), path)
    code, out, err = cli("run", "--data", "synthetic", "--weights", str(path))
    assert code != 0
    assert out == ""
    assert "another model" in err
    one_line_and_hint(err)


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("name", ["own.pt", "pretrained.pt"])
def test_weights_of_a_file_are_for_the_classes_of_the_images(cli, tiny_images, name):
    from ipucnn.models.build import create_model

    torch.save(create_model("resnet8-cifar", weights="random", num_classes=2).module.state_dict(),
               name)
    code, _, err = cli("run", "--model", "resnet8-cifar", "--weights", name, "--data",
                       "image_folder", "--data-dir", tiny_images, "--progress", "off")
    assert code == 0, err


def test_a_pickle_with_code_in_it_is_refused_and_never_executed(cli, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    path = tmp_path / "attack.pt"
    torch.save({"model_state_dict": Attack()}, path)
    code, _, err = cli("run", "--data", "synthetic", "--weights", str(path))
    assert code != 0
    one_line_and_hint(err)
    assert "attack.pt" in err
    assert not (tmp_path / "executed").exists()


def test_a_bad_image_stops_the_run_and_keeps_what_was_done(cli, images, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    good = sorted(images.rglob("*.jpg"))
    for number, path in enumerate(good[:3]):
        (folder / f"{number}.jpg").write_bytes(path.read_bytes())
    (folder / "9-broken.jpg").write_bytes(good[0].read_bytes()[:300])
    argv = ["run", "--data-dir", str(folder), "--weights", "random", "--predictions",
            str(tmp_path / "p.csv")]
    code, out, err = cli(*argv)
    assert code == 1
    one_line_and_hint(err)
    assert "9-broken.jpg" in err
    assert "--skip-bad-samples" in err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + 3
    assert re.search(r"images +3 in", out)
    code, out, err = cli(*argv, "--batch-size", "8", "--json")
    assert code == 1
    assert json.loads(out)["images"] == 3  # of the batch of the broken one
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + 3
    code, out, err = cli(*argv, "--skip-bad-samples", "--json")
    assert code == 0, err
    assert json.loads(out)["skipped"]["count"] == 1
    code, out, err = cli(*argv, "--skip-bad-samples")
    assert code == 0, err
    assert re.search(r"skipped +1 image that cannot be read: .*9-broken\.jpg", out)


def test_a_batch_larger_than_memory_has_a_hint(cli):
    code, _, err = cli("run", *FAST, "--batch-size", "1000000000")
    assert code == 2
    one_line_and_hint(err)
    assert "--batch-size" in err


def test_a_fault_of_a_plugin_keeps_its_traceback(cli, tmp_path):
    plugin = tmp_path / "faulty.py"
    plugin.write_text(
        "from ipucnn import DatasetSpec, hookimpl\n"
        "def make(request):\n    return 1 / 0\n"
        "@hookimpl\ndef ipucnn_datasets():\n"
        "    return [DatasetSpec(name='faulty', summary='x', target=make)]\n")
    code, _, err = cli("run", "--plugin", str(plugin), "--data", "faulty",
                       "--random-weights")
    assert code == 1
    assert f'File "{plugin}", line 3, in make' in err
    assert f"error: plugin '{plugin}' failed: ZeroDivisionError: division by zero" in err
    assert f"hint: fix it, or leave out '--plugin {plugin}'" in err


def test_python_gives_the_same_result_object(images):
    result = ipucnn.run(data="image_folder", data_dir=str(images), weights="random", batch_size=4)
    assert result.images == 8
    assert result.accuracy["images"] == 8
    assert result.as_dict()["format"] == "ipucnn.run/1"
    assert "resnet50" in ipucnn.list_models("resnet*")
    with pytest.raises(ipucnn.IpucnnError, match="unknown option 'batch_sise'"):
        ipucnn.run(batch_sise=4)


def test_progress_is_reported_after_every_device_call():
    from ipucnn.core.options.building import build
    from ipucnn.inference import job as inference
    from ipucnn.inference.options import RunOptions

    reported = []
    options = build(RunOptions, {"data": "synthetic", "weights": "random", "iterations": 2,
                                 "device_iterations": 3, "batch_size": 2})
    inference.run(options, progress=lambda *step: reported.append(step))
    assert reported == [("compile", 0, None), *(("run", done, 12) for done in range(0, 13, 2))]


def test_iterations_go_round_the_data_and_predict_each_image_once(cli, images, tmp_path):
    code, out, err = cli(
        "run", "--data", "real", "--data-dir", str(images), "--weights", "random", "--batch-size",
        "5", "--iterations", "4", "--predictions", str(tmp_path / "p.json"), "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 20
    rows = json.loads((tmp_path / "p.json").read_text())
    assert len({row["path"] for row in rows}) == len(rows) == 8


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be removed")
@pytest.mark.parametrize("argv", [("list-plugins",), ("train", "--data", "shapes"), ("doctor",)])
def test_a_removed_working_folder_is_named(cli, tmp_path, monkeypatch, argv):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = cli(*argv)
    assert done.code == 2
    assert done.err.startswith("error: the working folder does not exist any more\nhint: ")
    assert cli("train", "--help").code == 0


@pytest.mark.parametrize(("argv", "what"), [
    (("report", ""), "an argument"), (("runs", ""), "an argument"),
    (("report", "x", "--out", ""), "option '--out'"), (("data", "verify", ""), "an argument"),
    (("data", "shapes", "--out="), "option '--out'"), (("show", "model", ""), "an argument"),
    (("train", "--resume", ""), "option '--resume'"), (("train", "--freeze="), "option '--freeze'"),
    (("train", "--class-weights", "", "--epoch", "1"), "option '--class-weights'")])
def test_an_empty_value_is_no_folder_and_no_default(cli, tmp_path, monkeypatch, argv, what):
    monkeypatch.chdir(tmp_path)
    assert cli(*argv) == (
        2, "", f"error: {what} is empty\nhint: give it a value, or leave it out\n")
    assert os.listdir(tmp_path) == []
