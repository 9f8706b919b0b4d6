"""What a file says of itself."""

from __future__ import annotations

import json

import pytest
from graphs import classifier

from ipucnn.onnx.embedded_metadata import Metadata


def test_it_is_read_as_it_was_written():
    written = Metadata("resnet18", 224, "device", class_names=("cat", "Hündin, weiß"),
                       provenance={"weights": {"source": "x"}, "torch": "2"})
    proto = classifier()
    written.embed(proto)
    assert Metadata.of(proto) == written
    stored = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(stored["ipucnn.class_names"]) == ["cat", "Hündin, weiß"]


def test_writing_again_replaces_it_and_keeps_what_others_wrote():
    proto = classifier()
    entry = proto.metadata_props.add()
    entry.key, entry.value = "author", "somebody"
    Metadata("one", 8).embed(proto)
    Metadata("two", 9).embed(proto)
    keys = [entry.key for entry in proto.metadata_props]
    assert sorted(keys) == sorted({*keys})
    assert "author" in keys
    assert (Metadata.of(proto).model, Metadata.of(proto).input_size) == ("two", 9)


@pytest.mark.parametrize(("key", "value"), [
    ("ipucnn.class_names", "not json"), ("ipucnn.class_names", '"cat"'),
    ("ipucnn.class_names", "[1, 2]"), ("ipucnn.input_size", '"224"'), ("ipucnn.input_size", "-1"),
    ("ipucnn.input_size", "true"), ("ipucnn.model", "7"), ("ipucnn.normalisation", '"elsewhere"'),
    ("ipucnn.mean", "[0.5]"), ("ipucnn.std", '["a", "b", "c"]'), ("ipucnn.provenance", "[]"),
    ("ipucnn.unheard_of", "1"), ("class_names", '["cat"]'), ("model", '"x"')])
def test_what_is_foreign_or_broken_counts_as_not_said(key, value):
    proto = classifier()
    entry = proto.metadata_props.add()
    entry.key, entry.value = key, value
    assert Metadata.of(proto) == Metadata()
