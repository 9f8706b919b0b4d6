"""Completion of the values of options that have names."""

from __future__ import annotations

import pytest
import typer

from ipucnn.cli import app


@pytest.mark.parametrize(("command", "option", "begun", "wanted"), [
    ("train", "--config", "resnet50-p", ["resnet50-pod4", "resnet50-pod64"]),
    ("run", "--config", "resnet50", ["resnet50-mk1", "resnet50-mk2"]),
    ("plan", "--launch", "pod", ["pod16", "pod64"]),
    ("run", "--weights", "pretrained:", ["pretrained:v1", "pretrained:v2"]),
    ("train", "--precision", "16", ["16.16", "16.32", "16"]),
    ("train", "--pipeline-splits", "auto:1", ["auto:16"]),
    ("train", "--resume", "", ["auto"]),
    ("run", "--model", "resnet101-", ["resnet101-cifar"]),
    ("bench", "--model", "resnet101-", ["resnet101-cifar"]),
    ("bench", "--backend", "onnx", ["onnxruntime"]),
    ("bench", "--against", "torch", ["torchvision", "torch-compile"]),
    ("train", "--validation-mode", "d", ["during"])])
def test_values_with_names_are_completed(command, option, begun, wanted):
    one = typer.main.get_command(app).commands[command]
    context = one.make_context(command, [], resilient_parsing=True)
    (parameter,) = [found for found in one.get_params(context) if option in found.opts]
    found = [item.value for item in parameter.shell_complete(context, begun)]
    assert found == wanted
