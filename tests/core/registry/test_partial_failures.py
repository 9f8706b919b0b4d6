"""A bad record or hook of a plugin costs that record or hook only."""

import pytest
from plugin_sources import fresh, model, of, plugin

from ipucnn.core.errors import PluginError, UnknownNameError
from ipucnn.core.registry.registry import State

GENERATOR = """
import ipucnn
@ipucnn.hookimpl
def ipucnn_models():
    yield {good}
    {bad}
    yield {late}
"""


def states(rows):
    return {r.name: r.state for r in rows}


def test_one_bad_item_among_many_costs_itself(install, caplog):
    good = [model(f"net-{i}") for i in range(20)]
    install("mixed", plugin(*good[:10], "'a string'", *good[10:]), version="3.1")
    reg = fresh()
    rows = of(reg.rows("model"), "mixed")
    assert sum(r.state is State.OK for r in rows) == 20
    (failed,) = [r for r in rows if r.state is State.FAILED]
    assert (failed.kind, failed.name, failed.spec) == ("model", "tiny", None)
    assert failed.cause == "'ipucnn_models' returned 'a string', expected ModelSpec"
    assert "pip uninstall mixed" in failed.remedy
    assert reg.get("model", "net-19").name == "net-19"
    (message,) = [r.getMessage() for r in caplog.records if "mixed" in r.getMessage()]
    assert "mixed 3.1 failed partly: its model plugins: 'ipucnn_models' returned" in message


def test_second_record_of_a_spelling_fails_and_the_first_works(install, caplog):
    install("twofold", plugin(model("x"), model("y", aliases=("X",)), model("x", input_size=9),
                              model("z")))
    reg = fresh()
    rows = of(reg.rows("model"), "twofold")
    assert [(r.name, r.state.value) for r in rows] == [
        ("x", "ok"), ("z", "ok"), ("y", "failed"), ("x", "failed")]
    assert rows[2].cause == "'ipucnn_models' returned two records with the name 'x'"
    assert reg.get("model", "x").input_size == 224
    for name in ("y", "twofold:y", "models.tiny:Y"):
        with pytest.raises(PluginError, match=r"model 'y' of twofold 1.0 is failed: 'ipucnn_mod"):
            reg.get("model", name)
    assert "model 'y': 'ipucnn_models' returned two" in caplog.text
    assert "(and 1 more)" in caplog.text


def test_record_of_another_kind_is_listed_under_its_own(install):
    record = "ipucnn.OptimizerSpec(name='lost-sgd', summary='s', target=len)"
    install("confused", plugin(model("tinynet"), record), entry_point="everything")
    reg = fresh()
    assert states(of(reg.rows("model"), "confused")) == {"tinynet": State.OK}
    (failed,) = of(reg.rows("optimizer"), "confused")
    assert (failed.name, failed.state) == ("lost-sgd", State.FAILED)
    assert "expected ModelSpec" in failed.cause


@pytest.mark.parametrize(("bad", "cause"), [
    ("1 / 0", "ZeroDivisionError: division by zero"),
    (model("Bad Name"), "bad ModelSpec 'Bad Name': name is"),
    ("raise SystemExit('no engine')", "SystemExit: no engine"),
])
def test_records_before_a_failure_are_kept(install, bad, cause):
    install("halting", GENERATOR.format(good=model("early"), bad=bad, late=model("late")))
    reg = fresh()
    rows = of(reg.rows("model"), "halting")
    assert states(rows) == {"early": State.OK, "tiny": State.FAILED}
    assert cause in rows[1].cause
    assert reg.get("model", "early").name == "early"
    with pytest.raises(UnknownNameError) as caught:
        reg.get("model", "late")
    assert "which may provide it, failed to load: " + cause in caught.value.hint


def test_hook_that_fails_leaves_the_other_hooks(install):
    optimizer = plugin("ipucnn.OptimizerSpec(name='my-opt', summary='s', target=len)",
                       hook="ipucnn_optimizers")
    install("several", plugin("1 / 0") + optimizer, entry_point="everything")
    reg = fresh()
    assert reg.get("optimizer", "my-opt").summary == "s"
    rows = of(reg.rows(), "several")
    assert [(r.kind, r.name, r.state) for r in rows] == [
        ("optimizer", "my-opt", State.OK), ("model", "everything", State.FAILED)]
    assert of(reg.rows("optimizer"), "several") == rows[:1]
    assert of(reg.rows("dataset"), "several") == []


def test_record_that_skips_its_validation_fails_alone(install):
    before = """
class Careless(ipucnn.ModelSpec):
    def __post_init__(self):
        pass
class Hostile(ipucnn.ModelSpec):
    @property
    def keys(self):
        raise RuntimeError("no keys")
"""
    fields = "summary='s', target=len"
    install("careless", plugin(f"Careless(name=None, {fields})", f"Careless(name='x y', {fields})",
                               f"Careless(name='odd', api_version=[1], {fields})",
                               f"Hostile(name='foe', {fields})", model("tinynet"), before=before))
    rows = of(fresh().rows("model"), "careless")
    assert [(r.name, r.state.value) for r in rows] == [
        ("tinynet", "ok"), ("tiny", "failed"), ("x y", "failed"), ("odd", "failed"),
        ("foe", "failed")]
    assert rows[-1].cause == "RuntimeError: no keys"


def test_long_wrong_value_is_shortened(install):
    install("wordy", plugin("'x' * 100_000", model("tinynet")))
    (failed,) = [r for r in of(fresh().rows("model"), "wordy") if r.state is State.FAILED]
    assert len(failed.cause) < 300


@pytest.mark.parametrize("source", [
    plugin(model("good"), "3"), plugin(model("x"), model("x", input_size=9)),
    GENERATOR.format(good=model("early"), bad="1 / 0", late=model("late")),
])
def test_strict_settings_raise_on_a_single_bad_record(install, source):
    install("broken-dist", source)
    reg = fresh(strict=True)
    for _ in range(2):
        with pytest.raises(PluginError, match=r"of broken-dist 1.0 failed partly"):
            reg.rows("model")
    assert reg.get("optimizer", "sgd")


def test_local_plugin_with_one_bad_record_works(tmp_path, caplog):
    path = tmp_path / "mine.py"
    path.write_text(plugin(model("tinynet", target="json:loads"), "3"))
    reg = fresh(extra=(str(path),), disable_all=True)
    assert reg.get("model", "tinynet").name == "tinynet"
    assert f"leave out '--plugin {path}'" in caplog.text
    (failed,) = [r for r in reg.rows("model") if r.state is State.FAILED and not r.spec
                 and not r.provider.builtin]
    assert failed.name == str(path)
