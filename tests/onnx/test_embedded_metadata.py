"""The metadata in a file."""

from __future__ import annotations

import json

import pytest
from graphs import classifier

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.models.card import ModelCard
from ipucnn.onnx.embedded_metadata import Metadata


def card(model="resnet18", **fields):
    return ModelCard(model=model, num_outputs=5, class_names=("cat", "Hündin, weiß", "c", "d", "e"),
                     preprocessing=Preprocessing(8, interpolation="bicubic"), **fields)


def properties(proto):
    return {entry.key: entry.value for entry in proto.metadata_props}


def test_it_is_read_as_it_was_written():
    written = Metadata(card(provenance={"weights": {"source": "x"}}, multi_label=True), "device",
                       card().class_names)
    proto = classifier()
    written.embed(proto)
    assert Metadata.of(properties(proto), 5) == written
    stored = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(stored["ipucnn.class_names"])[1] == "Hündin, weiß"  # the first version's


def test_files_of_the_first_version_get_a_card():
    proto = classifier()
    for key, value in {"model": "old", "input_size": 8, "mean": [0.5, 0.5, 0.5],
                       "class_names": list("abcde"), "normalisation": "none"}.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = f"ipucnn.{key}", json.dumps(value)
    found = Metadata.of(properties(proto), 5)
    assert (found.card.model, found.card.class_names) == ("old", tuple("abcde"))
    assert found.card.preprocessing == Preprocessing(8, mean=(0.5, 0.5, 0.5))
    assert found.normalisation == "none"


def test_writing_again_replaces_it_and_keeps_what_others_wrote():
    proto = classifier()
    entry = proto.metadata_props.add()
    entry.key, entry.value = "author", "somebody"
    Metadata(card("one"), "host").embed(proto)
    Metadata(card("two"), "host").embed(proto)
    keys = [entry.key for entry in proto.metadata_props]
    assert sorted(keys) == sorted({*keys})
    assert "author" in keys
    assert Metadata.of(properties(proto), 5).card.model == "two"


@pytest.mark.parametrize(("key", "value"), [
    ("names", "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e'}"), ("labels", '["a","b","c","d","e"]'),
    ("classes", "a, b,c,d,e"), ("model.class_names", "a\nb\nc\nd\ne\n"),
    ("Class-Labels", "a,b,c,d,e"), ("categories", '["a", "b", "c", "d", "e"]'),
    ("id2label", '{"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}'),
    ("label2id", '{"e": 4, "a": 0, "b": 1, "c": 2, "d": 3}')])
def test_class_names_that_other_programs_wrote_are_read(key, value):
    proto = classifier()
    entry = proto.metadata_props.add()
    entry.key, entry.value = key, value
    assert Metadata.of(properties(proto), 5) == Metadata(class_names=tuple("abcde"))


@pytest.mark.parametrize(("key", "value"), [
    ("ipucnn.class_names", "not json"), ("ipucnn.class_names", '"cat"'),
    ("ipucnn.class_names", "[1, 2]"), ("ipucnn.input_size", '"224"'), ("ipucnn.input_size", "-1"),
    ("ipucnn.input_size", "true"), ("ipucnn.model", "7"), ("ipucnn.normalisation", '"elsewhere"'),
    ("ipucnn.mean", "[0.5]"), ("ipucnn.std", '["a", "b", "c"]'), ("ipucnn.provenance", "[]"),
    ("ipucnn.unheard_of", "1"), ("class_names", '["cat"]'), ("model", '"x"'),
    ("id2label", "{0: 'LABEL_0', 1: 'LABEL_1', 2: 'LABEL_2', 3: 'LABEL_3', 4: 'LABEL_4'}"),
    ("label2id", '{"a": 0, "b": 0, "c": 1, "d": 2, "e": 3}')])
def test_foreign_or_broken_metadata_is_ignored(key, value):
    proto = classifier()
    entry = proto.metadata_props.add()
    entry.key, entry.value = key, value
    found = Metadata.of(properties(proto), 5)
    assert (found.class_names, found.normalisation) == ((), "")


def test_class_names_that_contradict_each_other_are_not_used():
    properties = {"names": "['a', 'b']", "labels": "['b', 'a']"}
    assert Metadata.of(properties, 2).class_names == ()
    assert Metadata.of({**properties, "labels": "a,b"}, 2).class_names == ("a", "b")
