"""Records validate themselves; names compare as people spell them."""

import dataclasses

import pytest

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.names import close_matches, did_you_mean, key, printable
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.kinds import KINDS, kind_named
from ipucnn.core.registry.records import (
    BackendSpec,
    ModelSpec,
    NormLayerSpec,
    OptimizerSpec,
    PublishedWeights,
    ScheduleSpec,
)

RECORDS = [kind.record for kind in KINDS.values()]


@pytest.mark.parametrize("record", RECORDS)
def test_records_are_frozen_and_minimal_ones_valid(record):
    spec = record(name="x", summary="s", target="a.b:c.d")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "y"
    assert spec == record(name="x", summary="s", target="a.b:c.d")
    assert spec.api_version == 1


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize(("field", "value"), [
    ("name", "Upper"), ("name", ""), ("name", "a b"), ("name", "-a"), ("name", "a:b"),
    ("name", None), ("name", 3), ("name", "a\n"), ("summary", ""), ("summary", "two\nlines"),
    ("summary", None), ("target", "no_colon"), ("target", "a:"), ("target", ":b"),
    ("target", "a-b:c"), ("target", None), ("target", "a:b\n"), ("aliases", "alias"),
    ("aliases", ["alias"]), ("aliases", (1,)), ("aliases", ("",)), ("aliases", ("a:b",)),
    ("requires", ("torch",)), ("requires", Requirement("a", "b")), ("api_version", "1"),
    ("api_version", True),
])
def test_bad_common_field_is_named_with_its_value(record, field, value):
    fields = {"name": "x", "summary": "s", "target": "a:b", field: value}
    with pytest.raises(PluginError) as caught:
        record(**fields)
    assert f"bad {record.__name__}" in caught.value.message
    assert f"{field} is {value!r}, expected" in caught.value.message


@pytest.mark.parametrize(("record", "field", "value"), [
    (ModelSpec, "input_size", 0), (ModelSpec, "input_size", "224"),
    (ModelSpec, "num_classes", -1), (ModelSpec, "weights", ({"tag": "v1"},)),
    (ModelSpec, "options", ["a"]), (NormLayerSpec, "options", "eps"),
    (OptimizerSpec, "hyperparameters", "momentum"), (ScheduleSpec, "parameters", ["epochs"]),
    (BackendSpec, "precisions", ("half",)), (BackendSpec, "precisions", "32.32"),
    (BackendSpec, "options", [1]),
])
def test_bad_field_of_a_kind(record, field, value):
    with pytest.raises(PluginError, match=f"{field} is "):
        record(name="x", summary="s", target="a:b", **{field: value})


def test_facts_are_the_fields_of_the_kind_alone():
    spec = ModelSpec(name="x", summary="s", target="a:b", family="f", weights=(
        PublishedWeights("v1", "u", "0", "MIT", "src"),))
    facts = spec.facts()
    assert facts["family"] == "f"
    assert facts["input_size"] == 224
    assert not {"name", "target", "aliases", "api_version"} & set(facts)


def test_keys_hold_every_spelling_the_canonical_first():
    spec = ModelSpec(name="my_net", summary="s", target="a:b", aliases=("MyNet", "net-1"))
    assert spec.keys == ("my-net", "mynet", "net-1")


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_kinds_are_known_by_every_spelling(kind):
    for spelling in (kind.name, kind.plural, kind.prefix, kind.name.upper(), f" {kind.plural} ",
                     *kind.former):
        assert kind_named(spelling) is kind


def test_the_schedules_kind_was_renamed():
    assert [kind_named(name).name for name in ("schedule", "Schedules", "lr_schedule")] == [
        "lr-schedule"] * 3


@pytest.mark.parametrize("name", ["timm/resnet50.a1_in1k", "a/b/c", "org/net-1"])
def test_name_may_have_a_namespace(name):
    spec = ModelSpec(name=name, summary="s", target="a:b", aliases=(f"other/{name}",))
    assert spec.keys == (key(name), key(f"other/{name}"))


@pytest.mark.parametrize("name", ["/net", "net/", "a//b", "a/-b", "Timm/net"])
def test_bad_namespace_is_refused(name):
    with pytest.raises(PluginError, match="name is"):
        ModelSpec(name=name, summary="s", target="a:b")


def test_unknown_kind_suggests_and_lists():
    with pytest.raises(UsageError, match="unknown kind 'optimiser'") as caught:
        kind_named("optimiser")
    assert "did you mean 'optimizer'" in caught.value.hint
    assert "norm-layer" in caught.value.hint


def test_names_are_compared_without_case_hyphen_and_space():
    assert key(" ResNet_50-D ") == "resnet-50-d"


def test_close_matches_are_at_most_three_best_first():
    names = ["resnet18", "resnet34", "resnet50", "resnet101", "vgg"]
    assert close_matches("resnet50x", names)[0] == "resnet50"
    assert len(close_matches("resnet", names)) == 3
    assert close_matches("zzz", names) == []
    assert did_you_mean("RESNET_18", ["resnet-18"]) == "did you mean 'resnet-18'?"
    assert did_you_mean("zzz", names) == ""


@pytest.mark.parametrize(("text", "shown"), [
    ("plain, é, 中 and a space", "plain, é, 中 and a space"),
    ("two\nlines\r\tand a tab", "two\\nlines\\r\\tand a tab"),
    ("\x1b[31mred\x1b[0m\x07", "\\x1b[31mred\\x1b[0m\\x07"),
    ("\x7f\x80\x9b\x9f", "\\x7f\\x80\\x9b\\x9f"),
    ("\u202aa\u202e", "\\u202aa\\u202e"), ("\u2066a\u2069", "\\u2066a\\u2069"),
    ("\u2028\u2029", "\\u2028\\u2029"), ("\udcff", "\\udcff"), ("", ""),
])
def test_printable_escapes_what_acts_on_a_terminal(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode()  # no lone surrogate is left
