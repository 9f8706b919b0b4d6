"""Class names in the files of other programs."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ipucnn.core.registry.registry import registry
from ipucnn.models.foreign_names import class_names_in, naming_fields
from ipucnn.models.weights_card import names_in_file

WEIGHTS = {"weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(("content", "names"), [
    ({"state_dict": WEIGHTS, "class_names": ["dog", "cat"]}, ("dog", "cat")),
    ({"model_state_dict": WEIGHTS, "class_to_idx": {"cat": 1, "dog": 0}}, ("dog", "cat")),
    ({"state_dict": WEIGHTS, "hyper_parameters": {"lr": 0.1, "classes": ("dog", "cat")}},
     ("dog", "cat")),
    ({"state_dict": WEIGHTS, "idx2class": {0: "dog", 1: "cat"}}, ("dog", "cat")),
    ({"state_dict": WEIGHTS, "classes": ["a", "b"], "hyper_parameters": {"classes": ["b", "a"]}},
     ()),
    ({"state_dict": WEIGHTS, "labels": ["cat", "dog", "cat"]}, ()),  # of three images
    ({"state_dict": WEIGHTS, "classes": 2}, ()),
    ({"state_dict": WEIGHTS, "args": {"labels": "labels.csv"}}, ()),  # name of a file
    ({"state_dict": WEIGHTS, "model_name": "ours", "options": {}, "class_names": None}, ()),
    (WEIGHTS, ())])
def test_checkpoints_name_their_classes(tmp_path, content, names):
    torch.save(content, str(tmp_path / "net.pth"))
    assert names_in_file(str(tmp_path / "net.pth"), registry()) == names


def test_safetensors_name_their_classes(tmp_path):
    path = str(tmp_path / "net.safetensors")
    save_file(WEIGHTS, path, {"format": "pt", "classes": '["dog", "cat"]'})
    assert names_in_file(path, registry()) == ("dog", "cat")
    assert names_in_file(path, registry(), 3) == ()
    assert names_in_file(path, registry(), 1) == ("dog", "cat")  # one output decides
    save_file(WEIGHTS, path)
    assert names_in_file(path, registry()) == ()


@pytest.mark.parametrize("text", [
    "dog\ncat", "dog\r\ncat\r\n", "dog, cat\n", '["dog", "cat"]', "{0: 'dog', 1: 'cat'}",
    '{"dog": 0, "cat": 1}'])
def test_lists_of_names_as_text(text):
    key = "class_to_idx" if '": 0' in text else "names"
    assert class_names_in(naming_fields({key: text}), 2) == ("dog", "cat")


def test_commas_and_escapes_in_names():
    lines = "tench, Tinca tinca\ngoldfish, Carassius auratus\n"
    assert class_names_in(naming_fields({"classes": lines}), 2) == (
        "tench, Tinca tinca", "goldfish, Carassius auratus")
    assert class_names_in(naming_fields({"classes": r'["\ud83d\udc31", "a\/b"]'}), 2) == (
        "\N{CAT FACE}", "a/b")
