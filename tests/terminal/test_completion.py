"""Completion of the values of options that have names."""

from __future__ import annotations

import os

import pytest
import typer

from ipucnn.__main__ import invoke
from ipucnn.cli import application
from ipucnn.core.registry.registry import use


@pytest.fixture
def complete(monkeypatch, capsys, tmp_path):
    """Complete a command line in an empty folder as bash does; return what is printed."""
    def completed(line):
        words = ["ipucnn", *line.split(" ")]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("_IPUCNN_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setattr("sys.argv", ["ipucnn"])
        try:
            with pytest.raises(SystemExit):
                invoke([])
        finally:
            use(None)
        return capsys.readouterr()

    return completed


@pytest.mark.parametrize(("command", "option", "begun", "wanted"), [
    ("train", "--config", "resnet50-p", ["resnet50-pod4", "resnet50-pod64"]),
    ("run", "--config", "resnet50", ["resnet50-mk1", "resnet50-mk2"]),
    ("plan", "--launch", "pod", ["pod16", "pod64"]),
    ("run", "--weights", "pretrained:", ["pretrained:v1", "pretrained:v2"]),
    ("train", "--precision", "16", ["16.16", "16.32", "16"]),
    ("train", "--pipeline-splits", "auto:1", ["auto:16"]),
    ("train", "--resume", "", ["auto"]),
    ("train", "--backend", "a", ["auto"]),
    ("runs", "--sort", "la", ["last_top1"]),
    ("explain", "--model", "resnet56", ["resnet56-cifar"]),
    ("migrate", "--from", "t", ["timm", "torchvision"]),
    ("new-plugin", "--kind", "l", ["lr-schedule", "loss", "logger", "launcher"]),
    ("run", "--model", "resnet101-", ["resnet101-cifar"]),
    ("bench", "--model", "resnet101-", ["resnet101-cifar"]),
    ("bench", "--backend", "onnx", ["onnxruntime"]),
    ("bench", "--against", "torch", ["torchvision", "torch-compile"]),
    ("train", "--validation-mode", "d", ["during"])])
def test_values_with_names_are_completed(command, option, begun, wanted):
    one = typer.main.get_command(application()).commands[command]
    context = one.make_context(command, [], resilient_parsing=True)
    (parameter,) = [found for found in one.get_params(context) if option in found.opts]
    found = [item.value for item in parameter.shell_complete(context, begun)]
    assert found == wanted


@pytest.mark.parametrize(("line", "wanted"), [
    ("list-plugins l", ["lr-schedule", "loss", "logger", "launcher"]),
    ("show model resnet14", ["resnet14-cifar"]),
    ("config show pod", ["pod16", "pod64"]),
    ("config show cp", ["cpu"]),
    ("config show x --command la", ["launch"]),
    ("data fetch ", ["sample-images"]),
    ("train --backend au", ["auto"]),
    # further values of lists that are separated by spaces, without those already given
    ("train --logger tensorboard wa", ["wandb"]),
    ("train --logger files tensorboard ", ["mlflow", "wandb"]),
    ("bench --model resnet18 resnet101-", ["resnet101-cifar"]),
    ("plan --pipeline-splits layer2 auto:1", ["auto:16"]),
    ("train --logger files --model resnet101-", ["resnet101-cifar"]),
    # bash divides words at colons and equals signs, and inserts an answer behind them
    ("run --weights pretrained : v", ["v1", "v2"]),
    ("run --weights pretrained :", ["v1", "v2"]),
    ("run --weights = pretrained : v1", ["v1"]),
    ("train --precision = 16.", ["16.16", "16.32"])])
def test_a_command_line_is_completed_in_bash(line, wanted, complete):
    assert complete(line).out.split() == wanted
    assert os.environ["COMP_WORDS"] == "\n".join(["ipucnn", *line.split(" ")])


@pytest.mark.parametrize(("line", "wanted"), [
    ("run --plugin ours.py --model heron", ["heron-net"]),
    ("--plugin=ours.py run --model heron", ["heron-net"]),
    ("run --plugin ours.py --model heron-net --heron", ["--heron-width"]),
    ("run --no-plugins --model resnet14", ["resnet14-cifar"])])
def test_plugins_of_the_command_line_are_completed(line, wanted, complete, tmp_path):
    (tmp_path / "ours.py").write_text("""
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class Options:
    heron_width: int = ipucnn.option(1, "How wide.")

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="heron-net", summary="s", target="x:y", options=Options)]
""")
    assert complete(line).out.split() == wanted


@pytest.mark.parametrize("line", ["run --plugin gone.py --model resnet50-", "trian --model res"])
def test_a_completion_prints_no_error(line, complete):
    assert complete(line) == ("", "")
