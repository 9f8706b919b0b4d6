"""The logger of Weights & Biases, on a stand-in for its calls: its service is elsewhere."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from ipucnn.core.errors import IpucnnError
from ipucnn.core.loggers import COMPLETED, FAILED, RunInfo
from ipucnn.plugins.loggers.wandb import WandbLogger, WandbOptions

ROW = {"kind": "train", "epoch": 0.5, "update": 3, "loss": 2.5, "accuracy": None,
       "checkpoint": "x.pt"}


class Run:
    def __init__(self, settings):
        self.settings, self.id = settings, settings["id"] or "made"
        self.rows, self.summary, self.ended = [], {}, None

    def define_metric(self, name, step_metric=None):
        """Accept the axis of a metric."""

    def log(self, values):
        self.rows.append(values)

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def runs(monkeypatch):
    """The runs that were begun; without a key, none can be online."""
    made = []

    def init(**settings):
        if settings["mode"] != "offline":
            raise RuntimeError("No API key configured.\nmore")
        made.append(Run(settings))
        return made[-1]

    wandb = types.ModuleType("wandb")
    wandb.init, wandb.Settings = init, lambda **given: given
    wandb.Histogram = lambda values, num_bins: (min(values), max(values), num_bins)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return made


def test_it_goes_offline_where_there_is_no_service(runs, tmp_path):
    logger = WandbLogger(WandbOptions(wandb_project="mine"))
    logger.start(RunInfo({"lr": 0.1}, tmp_path))
    note = logger.row(ROW)
    assert note.startswith("wandb is offline: No API key configured.; 'wandb sync'")
    assert logger.row({**ROW, "kind": "validation", "weights": "ema", "top1": 50.0}) is None
    logger.best({"metric": "top1", "value": 50.0})
    logger.finish(COMPLETED, {"epochs": 1, "loss": 2.5})
    (run,) = runs
    assert (run.settings["project"], run.settings["config"]) == ("mine", {"lr": 0.1})
    assert run.rows == [
        {"train/epoch": 0.5, "train/loss": 2.5, "update": 3},
        {"validation/ema/epoch": 0.5, "validation/ema/loss": 2.5, "validation/ema/top1": 50.0,
         "update": 3}]
    assert run.summary == {"best/metric": "top1", "best/value": 50.0, "status": "completed",
                           "epochs": 1}
    assert run.ended == 0


def test_online_is_meant(runs, tmp_path):
    with pytest.raises(IpucnnError, match="wandb cannot be reached: No API key") as error:
        WandbLogger(WandbOptions(wandb_mode="online")).start(RunInfo({}, tmp_path))
    assert "--wandb-mode offline" in error.value.hint
    assert runs == []


def test_a_restored_training_continues_its_run(runs, tmp_path):
    for restored in (None, tmp_path / "x.pt"):
        logger = WandbLogger(WandbOptions(wandb_mode="offline"))
        logger.start(RunInfo({}, tmp_path, restored=restored))
        logger.finish(FAILED, {})
    assert [run.settings["id"] for run in runs] == [None, "made"]
    assert [run.settings["resume"] for run in runs] == [None, "allow"]
    assert [run.ended for run in runs] == [1, 1]


def test_histograms_of_weights(runs, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model_state_dict": {"a.weight": torch.tensor([[1.0, -2.0]]),
                                     "a.count": torch.tensor(3)}}, path)
    for selected in (False, True):
        logger = WandbLogger(WandbOptions(wandb_mode="offline", wandb_checkpoints="none",
                                          wandb_weight_histogram=selected))
        logger.start(RunInfo({}, tmp_path))
        logger.checkpoint(path, 1, 10)
        assert logger.finish(COMPLETED, {}) is None
    assert [run.rows for run in runs] == [
        [], [{"update": 10, "epoch": 1, "weights/a.weight": (-2.0, 1.0, 64)}]]
