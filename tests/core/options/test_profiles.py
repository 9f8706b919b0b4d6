"""Profiles: types, checks, and errors with file and line."""

from __future__ import annotations

import json
import os

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.options import profiles
from ipucnn.core.options.building import build
from ipucnn.core.options.profiles import resolve
from ipucnn.inference.options import RunOptions
from ipucnn.training.options.train_options import TrainOptions


def _file(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    options = resolve(RunOptions, {"config": _file(tmp_path, "norm_eps: 1e-3\nprecision: 32.32\n")})
    assert options.plugins.value("norm_eps") == 0.001
    assert options.execution.precision == "32.32"


def test_the_command_line_wins_over_the_profile_and_the_profile_over_the_defaults(tmp_path):
    path = _file(tmp_path, "model: resnet50\nbatch-size: 8\n")
    options = resolve(RunOptions, {"config": path, "batch_size": "16"})
    execution = options.execution
    assert (options.network.model, execution.batch_size, execution.replicas) == ("resnet50", 16, 1)


def test_old_spellings_work_in_profiles(tmp_path):
    options = resolve(RunOptions, {"config": _file(
        tmp_path, "device_iteration: 4\nnorm_type: group\nnormalization_location: ipu\n"
                  "pipeline_splits: [layer2, layer3]\navailable_memory_proportion: 0.3\n")})
    assert options.execution.device_iterations == 4
    assert options.network.normlayer == "group"
    assert options.dataset.normalization_location == "device"
    assert options.execution.pipeline_splits == ("layer2", "layer3")
    assert options.plugins.value("available_memory_proportion") == (0.3,)


@pytest.mark.parametrize(("text", "message", "hint"), [
    ("model: resnet50\nbach_size: 4\n", "unknown option 'bach_size' (mine.yaml, line 2)",
     "batch-size"),
    ("batch_size: many\n",
     "'--batch-size': 'many' is not a whole number or 'auto' (mine.yaml, line 1)", ""),
    ("batch_size: 2.5\n", "2.5 is not a whole number or 'auto' (mine.yaml, line 1)", ""),
    ("batch_size: true\n", "True is not a whole number or 'auto' (mine.yaml, line 1)", ""),
    ("half_partial: 3\n", "3 is not true or false (mine.yaml, line 1)", ""),
    ("model: resnet18\n\nmodel: resnet50\n", "'model' is given twice (mine.yaml, line 3)", "one"),
    ("model: {a: b}\n", "'model' is a mapping (mine.yaml, line 1)", "migrate --config FILE"),
    ("- model\n", "line 1: not a mapping", "option: value"),
    ("model: [\n", "mine.yaml', line 2", "option: value"),
    ("json: true\n", "'json' is not allowed in a profile", "command line"),
    ("model:\n", "option '--model' needs a value (mine.yaml, line 1)", ""),
])
def test_a_wrong_profile_is_blamed_by_file_line_and_key(tmp_path, text, message, hint):
    with pytest.raises(UsageError) as caught:
        resolve(RunOptions, {"config": _file(tmp_path, text)})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_profile(tmp_path):
    path = _file(tmp_path, "batch_size: 8\n")
    with pytest.raises(UsageError) as caught:
        resolve(RunOptions, {"config": path, "batch_size": "none"})
    assert "mine.yaml" not in caught.value.message


def test_an_empty_profile_changes_nothing(tmp_path):
    options = resolve(RunOptions, {"config": _file(tmp_path, "# nothing\n")})
    assert options.as_dict() == build(RunOptions).as_dict()


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(UsageError, match="not UTF-8"):
        profiles.load(str(path))


@pytest.mark.parametrize("profile", profiles.available(), ids=lambda p: p.name)
def test_every_shipped_profile_is_valid_and_has_a_summary(profile):
    options = resolve(RunOptions, {"config": profile.name})
    assert profile.summary
    execution = options.execution
    assert options.plan(synthetic=False).combined_batch == (
        execution.batch_size * execution.device_iterations * execution.instances)


def test_the_names_of_the_last_release_of_the_old_application_are_known():
    assert profiles.load("resnet50").name == "resnet50-mk2"
    with pytest.raises(UnknownNameError, match="resnet50-mk9"):
        profiles.load("resnet50-mk9")


@pytest.mark.parametrize(("text", "message"), [
    ("model: !foo x\n", "'model': the tag '!foo' is not allowed (mine.yaml, line 1)"),
    ("model: !!python/object/apply:os.system [id]\n", "the tag '!!python/object/apply:os.system'"),
    ("model: !!binary aGk=\n", "the tag '!!binary' is not allowed"),
    ("batch_size: !!int abc\n", "'abc' is not a whole number or 'auto' (mine.yaml, line 1)"),
    ("data-dir: 2024-02-30\n", "'data-dir': there is no date '2024-02-30' (mine.yaml, line 1)"),
    ("data-dir: !!timestamp x\n", "there is no date 'x'"),
    ("pipeline_splits: &a [*a]\n", "'pipeline_splits' is a list of lists"),
    ("? [a, b]\n: c\n", "the name of an option is not text (mine.yaml, line 1)"),
    (f"batch_size: {'9' * 5000}\n", "is too large (mine.yaml, line 1)"),
    (f"batch_size: 0x{'f' * 5000}\n", "is not a whole number or 'auto' (mine.yaml, line 1)"),
    ("batch_size: 0x10\n", "'0x10' is not a whole number"),
    ("batch_size: 1:30\n", "'1:30' is not a whole number"),
    ("batch_size: 1e400\n", "'1e400' is not a whole number"),
    ("time_limit: 1e400\n", "'1e400' is not a finite number"),
    ("time_limit: .inf\n", "'.inf' is not a number"),
    (f"model: {'[' * 3000}\n", "it is nested too deeply"),
    ("seed: 1\n" + "# \n" * 400_000, "it is larger than 1,048,576 bytes"),
])
def test_what_yaml_makes_of_hostile_text_is_one_short_line(tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        resolve(RunOptions, {"config": _file(tmp_path, text)})
    assert message in caught.value.message
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


def test_numbers_are_decimal_and_exact_and_texts_stay_as_they_are_written(tmp_path):
    options = resolve(RunOptions, {"config": _file(
        tmp_path, f"seed: {2 ** 62 + 1}\nbatch_size: 010\nreplicas: 1_000\ndata-dir: 2024-06-01\n"
                  "weights: 16.10\npredictions: 007\n")})
    assert options.dataset.seed == 2 ** 62 + 1
    assert (options.execution.batch_size, options.execution.replicas) == (10, 1000)
    assert options.dataset.data_dir == "2024-06-01"
    assert (options.network.weights, options.results.predictions) == ("16.10", "007")


def test_a_pipe_is_no_profile_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(UsageError, match="it is a FIFO"):
        resolve(RunOptions, {"config": str(tmp_path / "x.yaml")})


def test_the_home_folder_is_expanded_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(
        "data-dir: ~/photos\npipeline_splits: [~/no-path]\ndevice_iterations: 2\n")
    options = resolve(RunOptions, {"config": "~/mine.yaml", "weights": "~/w.pt"})
    assert options.dataset.data_dir == str(tmp_path / "photos")
    assert options.network.weights == str(tmp_path / "w.pt")
    assert options.execution.pipeline_splits == ("~/no-path",)


def test_the_home_folder_of_an_unknown_user_is_a_name():
    assert resolve(RunOptions, {"weights": "~nobody-here/w.pt"}).network.weights == \
        "~nobody-here/w.pt"
    with pytest.raises(UsageError, match="there is no profile '~nobody-here/mine"):
        resolve(RunOptions, {"config": "~nobody-here/mine.yaml"})


@pytest.mark.parametrize(("profile", "further"), [
    *((name, {}) for name in ("fine-tune", "cpu", "train-py", "resnet50-gpu")),
    *(("fine-tune", further) for further in (
        {"data_dir": "photos"}, {"data": "cifar10"}, {"data_dir": "photos", "momentum": 0.5}))])
def test_a_copy_of_a_shown_profile_has_the_same_options(profile, further, tmp_path, monkeypatch,
                                                        capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").touch()
    assert invoke(["config", "show", profile, "--command", "train"]) == 0
    (tmp_path / "copy.yaml").write_text(capsys.readouterr().out)
    original, copy = (resolve(TrainOptions, {"config": name, **further}, "train")
                      for name in (profile, "copy.yaml"))
    assert copy.as_dict() == original.as_dict()


@pytest.mark.parametrize(("content", "option"), [
    ("model: resnet18\nepoch: 3\noptimizer: adam\n", "optimizer: adam"),
    ("model: resnet18\nbatch_size: 4\n", "iterations: null"),
    ("precision: 16.16\ntarget: onnxruntime\ndynamic_batch: true\n", "dynamic_batch: true"),
    ("vipu_partition: p\n", "vipu_partition: p"),
])
def test_a_file_is_shown_with_the_options_of_its_command(content, option, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    assert invoke(["config", "show", str(path)]) == 0
    assert option in capsys.readouterr().out.splitlines()


def test_an_unknown_option_of_a_shown_file_is_compared_with_those_of_its_command(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("epoch: 3\noptimiser: adam\n")
    assert invoke(["config", "show", str(path)]) == 2
    assert "did you mean 'optimizer'" in capsys.readouterr().err


def test_shown_defaults_that_depend_on_other_options_are_comments(capsys):
    assert invoke(["config", "show", "fine-tune"]) == 0
    lines = capsys.readouterr().out.splitlines()
    comments = lines[lines.index("# Defaults that depend on other options:"):]
    assert {"# data: image_folder", "# optimizer: sgd", "# momentum: 0.9"} <= set(comments)
    assert "model: resnet18" in lines  # the profile sets it
    assert invoke(["config", "show", "fine-tune", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["optimizer"], shown["data"], shown["model"]) == (
        "sgd", "image_folder", "resnet18")
