"""Several host calls in flight on OpenVINO, and the measurement of how many are best."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("openvino")

from ipucnn.__main__ import invoke
from ipucnn.plugins.backends.openvino import tuning

RUN = ["run", "--backend", "openvino", "--model", "resnet8-cifar", "--weights", "random",
       "--num-classes", "5", "--data", "generated", "--iterations", "9", "--precision", "full",
       "--json", "--progress", "off"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "SECONDS", 0.05)
    monkeypatch.setattr(tuning, "thread_count", lambda: 3)
    return tmp_path / "cache" / "tuning"


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


def test_what_was_measured_is_used_from_then_on(run, cache, monkeypatch):
    assert run()[0]["session"]["requests"] == 1
    tuned = run("--tune")[0]
    assert set(tuned["session"]["tuned"]) == {"1", "2", "3"}
    best = tuned["session"]["requests"]
    assert any(f"'--requests {best}'" in note for note in tuned["notes"])
    (record,) = cache.iterdir()
    assert json.loads(record.read_text()) == {"requests": best}
    record.write_text('{"requests": 3}')
    assert run()[0]["session"]["requests"] == 3
    assert run("--batch-size", "2")[0]["session"]["requests"] == 1  # another measurement
    record.write_text("[1")
    assert run()[0]["session"]["requests"] == 1


@pytest.mark.parametrize(("words", "message"), [
    (["--tune", "--requests", "2"], "'--tune' measures what '--requests' states"),
    (["--requests", "2", "--device-iterations", "2"], "'--requests' is for one micro-batch"),
    (["--requests", "0"], "0")])
def test_options_that_contradict_each_other(words, message, capsys):
    assert invoke([*RUN, *words]) == 2
    assert message in capsys.readouterr().err
