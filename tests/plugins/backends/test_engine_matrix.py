"""A few cases of the matrix of IPU options; `make test-matrix` runs all of them."""

from __future__ import annotations

import json
from pathlib import Path

import engine_matrix as matrix
import pytest

from ipucnn.core.options.declaration import declared

RESULT = Path(__file__).parents[3] / "benchmarks" / "results" / "engine_matrix.json"

FEW = ["popart training mobilenet group 16.16 plain",
       "popart training efficientnet-b0 batch 16.32 plain",
       "popart training resnet8-cifar group 16.16 combined",
       "popart training resnet8-cifar batch 16.16 reduction",
       "popart inference resnet8-cifar batch 16.16 pipeline",
       "popart inference mobilenet-v3-small batch 16.16 plain",
       "poptorch training resnet8-cifar batch 16.32 recompute-in-a-pipeline",
       "poptorch training resnet8-cifar group 16.32 mixing",
       "poptorch inference resnet8-cifar group 16.16 IO-tiles"]
CASES = {str(case): case for case in matrix.cases()}


@pytest.fixture(autouse=True)
def doubles(popart_double, poptorch_double):
    """Both doubles can be imported."""


@pytest.mark.parametrize("name", FEW)
def test_a_few_cases_of_the_matrix(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matrix.run(CASES[name])


def test_the_matrix_has_every_option_and_every_pair():
    assert set(FEW) <= set(CASES)
    for backend, (_, place) in matrix.BACKENDS.items():
        module, _, name = place.partition(":")
        options = getattr(__import__(f"ipucnn.plugins.backends.{module}", fromlist=[name]), name)
        tried = {option for given in (*matrix.TRAINING.values(), *matrix.ONLY[backend].values())
                 for option in given}
        loader = {"dataloader_mode", "disable_async_loading", "dataloader_rebatch_size"}
        assert {item.name for item in declared(options)} - loader <= tried, backend
    for first, second in (("family", "options"), ("norm", "options"), ("precision", "options"),
                          ("family", "norm"), ("family", "precision"), ("norm", "precision")):
        pairs = {(case.backend, case.job, getattr(case, first), getattr(case, second))
                 for case in CASES.values() if case.family not in matrix.LARGE}
        for backend, job in {(case.backend, case.job) for case in CASES.values()}:
            mine = [pair[2:] for pair in pairs if pair[:2] == (backend, job)]
            assert len(mine) == len({one for one, _ in mine}) * len({two for _, two in mine})


def test_the_committed_result_has_no_failure():
    result = json.loads(RESULT.read_text())
    assert 0 < result["cases"] <= len(CASES)
    assert result["failures"] == {}
