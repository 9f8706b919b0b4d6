"""The choice of a backend by measurement."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.errors import UsageError, WeightsError
from ipucnn.core.options.building import build
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.inference import automatic_tuning, backend_choice, measured, session_rate, tuning
from ipucnn.inference.job import run
from ipucnn.inference.options import RunOptions
from ipucnn.models import batch_of_inference, batch_search

BACKENDS = Path(__file__).with_name("sleeping_backends.py")
SPRINT = {"model": "resnet8-cifar", "weights": "random", "num_classes": 5, "data": "generated",
          "iterations": 2, "precision": "full"}


class _Sleeping(Registry):
    """A registry whose built-in backends are those of this test."""

    builtin = ("tortoise", "hare", "mole", "shrew")

    def names(self, kind_name):
        return list(self.builtin) if kind_name == "backend" else super().names(kind_name)

    def rows(self, kind_name=None, pattern="*"):
        return [row for row in super().rows(kind_name, pattern)
                if row.name in _Sleeping.builtin]


class _WithoutHare(_Sleeping):
    """Some of them are third-party plugins."""

    builtin = ("tortoise",)


class _Wrecked(_Sleeping):
    """The backend of the highest rank fails when it is made."""

    builtin = ("wreck", "tortoise", "hare")


class _Flying(_Sleeping):
    """The first of them is measured while the machine is slow."""

    builtin = ("eagle", "stork")


class _Swift(_Sleeping):
    """One of several variants is left out before the machine becomes slow."""

    builtin = ("swift",)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(session_rate, "SECONDS", 0.04)
    monkeypatch.setattr(tuning, "busy", lambda: False)
    return tmp_path / "cache" / "tuning"


@pytest.fixture
def registry():
    return _Sleeping(PluginSettings(extra=(str(BACKENDS),)))


def sprint(registry, **values):
    return run(build(RunOptions, {**SPRINT, **values}, registry=registry), registry)


def taken(result):
    return result.backend, result.options.get("lanes")


def test_the_fastest_is_used_from_then_on(registry, cache):
    assert taken(sprint(registry)) == ("tortoise", None)
    first = sprint(registry, tune=True)
    assert taken(first) == ("hare", 2)
    (note,) = [note for note in first.notes if "measured on this machine" in note]
    assert re.search(r"'--backend hare --lanes 2': \S+ images/s .*\(--lanes 1 \S+, tortoise", note)
    assert "not measured: mole: the mole is underground" in first.notes
    assert any(note.startswith("not measured: shrew --holes 2: backend 'shrew' has no option")
               for note in first.notes)
    again = sprint(registry)
    assert taken(again) == ("hare", 2)
    assert note in again.notes
    assert taken(sprint(registry, tune=False)) == ("tortoise", None)
    assert taken(sprint(registry, seed=3)) == ("hare", 2)  # other weights
    assert taken(sprint(registry, precision=None)) == ("hare", 2)  # which is what it settles on
    # what is printed and what is saved repeat it without the record
    for record in cache.iterdir():
        record.unlink()
    _, backend, _, lanes = re.search("'([^']*)'", note.partition(":")[2]).group(1).split()
    assert taken(sprint(registry, backend=backend, lanes=lanes)) == ("hare", 2)
    saved = build(RunOptions, first.options, registry=registry)
    assert taken(run(saved, registry)) == ("hare", 2)


def test_weights_that_cannot_be_loaded_are_one_error(registry, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"w\.pt"):
        sprint(registry, tune=True, weights=str(tmp_path / "w.pt"))


def test_all_rates_are_returned_and_stored(registry, cache):
    found = tuning.measure(build(RunOptions, SPRINT, registry=registry), registry)
    assert [(one.backend, one.options) for one in found.rates] == [
        ("tortoise", {}), ("hare", {"lanes": 1}), ("hare", {"lanes": 2})]
    slow, one, two = (rate.images_per_second for rate in found.rates)
    assert slow < 34
    assert slow < one < 126
    assert one < two
    record = next(cache.iterdir())
    stored = json.loads(record.read_text())
    assert [rate["images_per_second"] for rate in stored["rates"]] == [slow, one, two]
    assert found.best(without=["hare"]).backend == "tortoise"


@pytest.mark.parametrize("change", ["batch", "precision", "threads", "version", "size", "pixels",
                                    "given", "card"])
def test_under_other_conditions_nothing_is_known(change, registry, monkeypatch):
    sprint(registry, tune=True)
    values = {"batch": {"batch_size": 2}, "size": {"input_size": 40},
              "precision": {"precision": "half"}, "pixels": {"normalization_location": "none"},
              "given": {"lanes": 2}}.get(change, {})
    if change == "threads":
        monkeypatch.setattr(measured, "compute_threads", lambda: 77)
    if change == "version":
        monkeypatch.setattr(measured, "__version__", "9.9")
    if change == "card":
        monkeypatch.setattr(measured, "nvidia_cards", lambda: ["NVIDIA H200"])
    options = build(RunOptions, {**SPRINT, **values}, registry=registry)
    assert backend_choice.choice(options, options.plan(False), registry, {}) is None


@pytest.mark.parametrize("damage", [
    lambda text: text[:40], lambda _: "[]", lambda _: "{}",
    lambda text: text.replace('"lanes": 2', '"lanes": -2'),
    lambda text: text.replace('"hare"', '"horse"'),
    lambda text: re.sub('"images_per_second": [0-9.]+', '"images_per_second": "many"', text),
    lambda text: re.sub('"source": "[^"]*"', '"source": "older"', text)])
def test_a_record_that_cannot_be_used_is_ignored(damage, registry, cache):
    tuning.measure(build(RunOptions, SPRINT, registry=registry), registry)
    for record in cache.iterdir():
        record.write_text(damage(record.read_text()))
    assert taken(sprint(registry)) == ("tortoise", None)


def test_given_options_stay(registry):
    found = sprint(registry, tune=True, lanes=3)
    assert taken(found) == ("hare", 3)
    assert taken(sprint(registry)) == ("tortoise", None)  # it was measured for those lanes


def test_a_named_backend_gets_its_best_options(registry):
    named = {"backend": "hare"}
    assert taken(sprint(registry, **named)) == ("hare", None)
    sprint(registry, tune=True)
    assert taken(sprint(registry, **named)) == ("hare", 2)
    assert taken(sprint(registry, lanes=1, **named)) == ("hare", 1)
    assert taken(sprint(registry, backend="tortoise")) == ("tortoise", None)
    only = tuning.measure(build(RunOptions, {**SPRINT, "backend": "tortoise"}, registry=registry),
                          registry)
    assert [one.backend for one in only.rates] == ["tortoise"]


def test_a_backend_that_lacks_an_option_is_not_chosen(registry):
    assert taken(sprint(registry, tune=True)) == ("hare", 2)
    result = sprint(registry, compile_only=True)
    assert taken(result) == ("tortoise", None)
    assert result.images == 0
    assert taken(sprint(registry)) == ("hare", 2)


def test_third_party_backends_are_measured_on_request():
    registry = _WithoutHare(PluginSettings(extra=(str(BACKENDS),)))
    options = build(RunOptions, SPRINT, registry=registry)
    assert {one.backend for one in tuning.measure(options, registry).rates} == {"tortoise"}
    assert sprint(registry, tune=True).backend == "hare"
    assert sprint(registry).backend == "hare"


def test_an_engine_that_fails_keeps_no_other_from_a_run():
    registry = _Wrecked(PluginSettings(extra=(str(BACKENDS),)))
    result = sprint(registry)
    assert taken(result) == ("tortoise", None)
    why = "wreck, which fails: RuntimeError: the wreck has sunk"
    assert any(f"(not usable here: {why})" in note for note in result.notes)
    tuned = sprint(registry, tune=True)
    assert taken(tuned) == ("hare", 2)
    assert "not measured: wreck: the wreck has sunk" in tuned.notes
    assert taken(sprint(registry)) == ("hare", 2)
    with pytest.raises(RuntimeError, match="sunk"):  # a named one is never replaced
        sprint(registry, backend="wreck")
    with pytest.raises(UsageError, match="'tortoise' does not compute in precision") as raised:
        sprint(registry, precision="int8")
    assert "wreck: RuntimeError: the wreck has sunk" in raised.value.hint


def test_the_micro_batch_is_measured_with_the_choice_of_tune(registry, monkeypatch):
    monkeypatch.setattr(batch_of_inference, "MOST", 2)
    monkeypatch.setattr(batch_search, "_FEWEST_SECONDS", 0.01)

    def automatic():
        result = sprint(registry, batch_size="auto")
        (note,) = [note for note in result.notes if note.startswith("micro-batch 2: ")]
        rate = float(re.search(r"([\d,.]+) images/s", note).group(1).replace(",", ""))
        return result.backend, rate, "in an earlier run" in note

    backend, rate, remembered = automatic()
    assert (backend, remembered) == ("tortoise", False)
    assert rate < 67  # two images in 30 ms
    assert automatic() == ("tortoise", rate, True)
    sprint(registry, batch_size=2, tune=True)
    backend, rate, remembered = automatic()
    assert (backend, remembered) == ("hare", False)
    assert rate > 67
    assert automatic() == ("hare", rate, True)


def test_a_long_run_measures_by_itself(registry, tiny_images, monkeypatch):
    photos = {"data": "real", "data_dir": str(tiny_images), "iterations": None}
    assert taken(sprint(registry, **photos)) == ("tortoise", None)
    monkeypatch.setattr(automatic_tuning, "MANY", 6)  # as many as there are
    assert taken(sprint(registry, **photos)) == ("tortoise", None)  # it would not pay
    monkeypatch.setattr(automatic_tuning, "SHARE", 200.0)
    assert taken(sprint(registry, tune=False, **photos)) == ("tortoise", None)
    result = sprint(registry, **photos)
    assert taken(result) == ("hare", 2)
    assert result.images == 6
    assert set(result.session["measured"]) == {
        "--backend tortoise", "--backend hare --lanes 1", "--backend hare --lanes 2"}
    assert taken(sprint(registry)) == ("hare", 2)  # it is remembered


def test_a_measurement_during_a_run_keeps_the_notes_of_the_run(registry, tiny_images, monkeypatch):
    monkeypatch.setattr(batch_of_inference, "MOST", 1)
    monkeypatch.setattr(batch_search, "_FEWEST_SECONDS", 0.01)
    monkeypatch.setattr(automatic_tuning, "MANY", 6)
    monkeypatch.setattr(automatic_tuning, "SHARE", 200.0)
    result = sprint(registry, data="real", data_dir=str(tiny_images), iterations=None,
                    batch_size="auto")
    assert taken(result) == ("hare", 2)
    assert len([note for note in result.notes if note.startswith("micro-batch 1: ")]) == 1


def test_other_work_during_a_measurement_does_not_decide():
    registry = _Flying(PluginSettings(extra=(str(BACKENDS),)))
    found = tuning.measure(build(RunOptions, SPRINT, registry=registry), registry)
    assert found.best().backend == "eagle"


def test_other_work_during_the_rounds_does_not_decide(monkeypatch):
    monkeypatch.setattr(tuning, "images_per_second", lambda session, _: 1 / session.seconds)
    monkeypatch.setattr(tuning, "PAUSE", 0.0)
    registry = _Swift(PluginSettings(extra=(str(BACKENDS),)))
    found = tuning.measure(build(RunOptions, SPRINT, registry=registry), registry)
    rates = {one.options["wings"]: one.images_per_second for one in found.rates}
    assert len(rates) == 4
    assert rates[4] == min(rates.values()) < 50  # it was left out with 111, before the storm
    assert found.best().options == {"wings": 1}


@pytest.mark.parametrize("tune", [True, None])
def test_a_measurement_that_cannot_be_stored_is_noted(registry, cache, tune):
    cache.parent.mkdir()
    cache.write_text("no folder")
    options = build(RunOptions, {**SPRINT, "tune": tune}, registry=registry)
    (note,) = tuning.measure(options, registry).notes
    assert note.startswith(f"the measurement is not stored for later runs: '{cache}' cannot be")
    assert taken(sprint(registry)) == ("tortoise", None)
    if tune:
        assert note in sprint(registry, tune=True).notes


def test_a_measurement_beside_other_programs_is_noted(registry, monkeypatch):
    asked = iter([False, True])
    monkeypatch.setattr(tuning, "busy", lambda: next(asked))
    note = "other programs used all processors during the measurement: '--tune' measures again"
    assert note in sprint(registry, tune=True).notes
    assert note in sprint(registry).notes
    monkeypatch.setattr(tuning, "busy", lambda: False)
    assert note not in sprint(registry, tune=True).notes
    assert note not in sprint(registry).notes


def test_what_there_was_no_time_for_is_not_remembered(registry, cache):
    options = build(RunOptions, SPRINT, registry=registry)
    found = tuning.measure(options, registry, limit=0.0)
    assert [one.backend for one in found.rates] == ["tortoise"]
    assert [line for line in found.left_out if "the time was up" in line] == [
        f"1 of the candidates with {name}: the time was up" for name in ("hare", "mole", "shrew")]
    assert not cache.exists()


def test_a_long_run_without_a_measurement_mentions_them(registry, monkeypatch):
    monkeypatch.setattr(automatic_tuning, "WORTH_A_NOTE", 0.05)
    assert any("'--tune' finds" in note for note in sprint(registry).notes)
    for values in ({"tune": False}, {"tune": True}, {},
                   {"backend": "hare", "lanes": 2}):
        assert not any("'--tune' finds" in note for note in sprint(registry, **values).notes)


def test_the_engines_are_measured(cli, monkeypatch):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    done = cli("run", "--model", "resnet8-cifar", "--weights", "random", "--data", "synthetic",
               "--iterations", 3, "--precision", "full", "--tune", "--json", "--progress", "off")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    rates = result["session"]["measured"]
    assert {name.split()[1] for name in rates} == {
        "openvino", "onnxruntime", "torch", *(["ncnn"] if importlib.util.find_spec("ncnn") else [])}
    assert result["images"] == 3
    fastest = f"--backend {result['backend']}"
    assert max(rates[name] for name in rates if name.startswith(fastest)) >= 0.98 * max(
        rates.values())


def test_several_processes_are_refused(registry, capsys):
    assert invoke(["run", "--tune", "--instances", "2"]) == 2
    assert "'--tune' measures one process, and there are 2" in capsys.readouterr().err
    with pytest.raises(UsageError, match="the whole network"):
        sprint(registry, tune=True, pipeline_splits="layer2", device_iterations=2)
