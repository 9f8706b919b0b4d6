"""The logger of MLflow, on a stand-in for its client."""

from __future__ import annotations

import functools
import sys
import time
import types
from types import SimpleNamespace

import pytest

from ipucnn.core.loggers import COMPLETED, RunInfo
from ipucnn.plugins.loggers._sending import ATTEMPTS, Sender
from ipucnn.plugins.loggers.mlflow import MlflowLogger


class Server:
    """A tracking server whose calls fail a number of times."""

    def __init__(self):
        self.failures, self.begun, self.parameters, self.steps = {}, [], {}, []

    def _call(self, name):
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise ConnectionError(f"{name} is refused")

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="1")

    def create_run(self, experiment, run_name):
        self._call("create_run")
        self.begun.append(run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(self.begun)}"))

    def log_batch(self, run, metrics=(), params=()):
        self._call("params" if params else "metrics")
        assert run == "run1"
        assert len(params) <= 100
        self.parameters.update(params)
        self.steps += [step for _, _, _, step in metrics]

    def log_text(self, run, text, place):
        """Accept a text."""

    def set_terminated(self, run, status):
        """Accept the end of the run."""


@pytest.fixture
def server(monkeypatch):
    found = Server()
    tracking, entities = types.ModuleType("mlflow.tracking"), types.ModuleType("mlflow.entities")
    tracking.MlflowClient = lambda tracking_uri: found
    entities.Param, entities.Metric = (lambda *given: given,) * 2
    for module in (types.ModuleType("mlflow"), tracking, entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("ipucnn.plugins.loggers.mlflow.Sender",
                        functools.partial(Sender, pause=0.001))
    return found


def recorded(server, folder, options):
    """Record two rows, and return the note at the end."""
    logger = MlflowLogger()
    logger.start(RunInfo(options, folder))
    for update in (1, 2):
        logger.row({"kind": "train", "update": update, "loss": 1.0})
    until = time.monotonic() + 10
    while server.steps != [1, 2] and time.monotonic() < until:
        time.sleep(0.01)  # after the end, there is one more attempt only
    assert server.steps == [1, 2]
    return logger.finish(COMPLETED, {})


def test_all_options_are_parameters(server, tmp_path):
    options = {f"option_{number}": number for number in range(230)}
    assert recorded(server, tmp_path, options) is None
    assert len(server.parameters) == 230


def test_a_failure_after_the_start_of_a_run_starts_no_second_one(server, tmp_path):
    server.failures["params"] = 2
    assert recorded(server, tmp_path, {"lr": 0.1}) is None
    assert server.begun == [tmp_path.name]
    assert server.parameters == {"lr": "0.1"}


def test_rows_are_recorded_when_the_server_was_away_at_the_start(server, tmp_path):
    server.failures["create_run"] = ATTEMPTS + 1
    note = recorded(server, tmp_path, {"lr": 0.1})
    assert "could not record 1 records: create_run is refused" in note
