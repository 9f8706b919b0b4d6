"""Several host calls in flight on OpenVINO."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("openvino")

from ipucnn.__main__ import invoke
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import registry
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import prepare
from ipucnn.plugins.backends.openvino import engine

RUN = ["run", "--backend", "openvino", "--model", "resnet8-cifar", "--weights", "random",
       "--num-classes", "5", "--data", "generated", "--iterations", "9", "--precision", "full",
       "--no-tune", "--json", "--progress", "off"]


@pytest.fixture
def run(capsys, tmp_path):
    def result(*words):
        code = invoke([*RUN, "--predictions", str(tmp_path / "answers.csv"), *words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out), (tmp_path / "answers.csv").read_text()

    return result


def test_answers_do_not_depend_on_the_calls_in_flight(run):
    alone, answers = run("--requests", "1")
    assert alone["session"]["requests"] == 1
    assert alone["images"] == alone["iterations"] == 9
    together, same = run("--requests", "4")
    assert together["session"]["requests"] == 4
    assert together["images"] == together["iterations"] == 9
    assert [line.split(",")[:4] for line in same.splitlines()] == [
        line.split(",")[:4] for line in answers.splitlines()]
    assert together["throughput"]["mean"] > 0


def test_without_a_number_the_engine_recommends_one(run, threads):
    threads(4)
    many = run()[0]["session"]["requests"]
    assert 1 < many <= 9
    assert run("--iterations", "1")[0]["session"]["requests"] == 1  # nothing to overlap
    assert run("--device-iterations", "2", "--iterations", "4")[0]["session"]["requests"] == 4


@pytest.mark.parametrize(("batch", "count", "expected"), [
    (1, 6, [(1, 12), (1, 4), (1, 2), (1, 1)]),
    (1, 2, [(1, 4), (1, 1)]),
    (1, 1, [(1, 1)]),
    (64, 2, [(4, 4), (1, 4), (16, 4), (4, 1), (1, 1), (16, 1), (64, 1)]),
    (200, 2, [(4, 4), (1, 4), (4, 1), (1, 1), (200, 1)])])
def test_the_numbers_worth_measuring(threads, batch, count, expected):
    threads(count)
    found = engine.OpenVinoBackend().variants(ExecutionPlan(micro_batch=batch, replicas=2))
    assert [(one["images_per_call"], one["requests"]) for one in found] == expected


@pytest.mark.parametrize(("words", "message"), [
    (["--requests", "0"], "0")])
def test_a_number_that_is_too_small(words, message, capsys):
    assert invoke([*RUN, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("iterations", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (64, 32)])
def test_of_a_short_run_not_all_calls_are_in_flight_at_once(iterations, most):
    job = prepare(build(RunOptions, {
        "model": "resnet8-cifar", "weights": "random", "data": "synthetic", "batch_size": 1,
        "backend": "openvino", "precision": "full", "iterations": iterations}), registry())
    assert job.executed.calls_in_flight == most
