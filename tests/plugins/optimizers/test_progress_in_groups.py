"""Optimizer plugins that keep their progress in parameter groups resume exactly."""

from __future__ import annotations

import pytest
import torch

PLUGIN = '''
from dataclasses import dataclass

import ipucnn

@dataclass(frozen=True)
class Options:
    growing_factor: float = ipucnn.option(1.1, "growth of a step")

def build(param_groups, lr, options):
    import torch

    class Growing(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                group["count"] += 1
                rate = group["lr"] * group["factor"] ** group["count"]
                for weight in group["params"]:
                    if weight.grad is not None:
                        weight.sub_(weight.grad, alpha=rate)

    return Growing(param_groups, {"lr": lr, "weight_decay": 0.0, "count": 0,
                                  "factor": options.growing_factor})

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="growing", summary="s", target=build, options=Options)]
'''


@pytest.fixture
def trained(cli, tmp_path, monkeypatch):
    """Return a function that trains and restores, and returns the last checkpoint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "growing.py").write_text(PLUGIN)

    def run(folder, command, *words):
        done = cli("--plugin", "growing.py", command, "--checkpoint-path", folder, *words)
        assert done.code == 0, done.err
        return torch.load(sorted((tmp_path / folder).glob("*.pt"))[-1], weights_only=True)

    return run


def test_a_restored_training_equals_one_without_a_stop(trained):
    how = ("--optimizer", "growing", "--lr", "0.01", "--model", "resnet8-cifar", "--data", "shapes",
           "--batch-size", "8", "--iterations", "2", "--no-validation", "--no-report",
           "--precision", "full", "--backend", "torch", "--lr-schedule", "constant")
    whole = trained("whole", "train", *how, "--epoch", "2")
    trained("parts", "train", *how, "--epoch", "1")
    parts = trained("parts", "restore", "--epoch", "2", "--no-report")
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name
    assert {group["count"] for group in parts["session"]["optimizer"]["param_groups"]} == {4}
    changed = trained("parts", "restore", "--epoch", "3", "--growing-factor", "1.2", "--no-report")
    groups = changed["session"]["optimizer"]["param_groups"]
    assert {(group["count"], group["factor"]) for group in groups} == {(6, 1.2)}
