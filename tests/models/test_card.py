"""Model cards: what outputs mean, and files without damage."""

from __future__ import annotations

import json

import pytest
import torch

from ipucnn.core.errors import DataError, PluginError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data.normalisation import normalise
from ipucnn.models.card import PROBABILITIES, ModelCard


def test_logits_become_probabilities_once():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    card = ModelCard(model="m", num_outputs=3)
    found = card.probabilities(logits)
    assert torch.allclose(torch.from_numpy(found), logits.softmax(1))
    ready = ModelCard(model="m", num_outputs=3, outputs=PROBABILITIES)
    assert (ready.probabilities(found) == found).all()


def test_several_labels_have_a_probability_each():
    card = ModelCard(model="m", num_outputs=2, multi_label=True)
    assert torch.allclose(torch.from_numpy(card.probabilities(torch.tensor([[0.0, 9.0]]))),
                          torch.tensor([[0.5, 0.9999]]), atol=1e-4)


def test_what_are_no_probabilities_is_refused():
    card = ModelCard(model="m", num_outputs=2, preprocessing=Preprocessing(8),
                     outputs="probabilities")
    nearly = torch.tensor([[1.004, -0.004], [float("nan"), 1.0]])  # rounded, and counted elsewhere
    assert card.probabilities(nearly)[0].tolist() == nearly[0].tolist()
    with pytest.raises(DataError, match="range from 1 to 99"):
        card.probabilities(torch.tensor([[1.0, 99.0]]))


@pytest.mark.parametrize(("outputs", "value"), [("logits", 0.0), ("probabilities", 0.5)])
def test_one_output_is_the_second_of_two_classes(outputs, value):
    card = ModelCard(model="m", num_outputs=1, outputs=outputs, class_names=("no", "yes"))
    assert card.probabilities(torch.tensor([[value]])).tolist() == [[0.5, 0.5]]
    assert ModelCard(model="m", num_outputs=1).names == ["class 0", "class 1"]


def test_a_card_survives_json():
    card = ModelCard(
        model="m", num_outputs=2, options={"groups": 8}, norm_layer="group", multi_label=True,
        class_names=("a", "b"), preprocessing=Preprocessing(32, 1.0, interpolation="bicubic"),
        precision="16.32", provenance={"weights": "random"}, metrics={"top1": 12.5})
    stored = json.loads(json.dumps(card.as_plain()))
    assert ModelCard.from_plain({**stored, "from the future": 1}) == card


@pytest.mark.parametrize(("change", "reason"), [
    ({"class_names": ["a"]}, "2 outputs and names 1 classes"),
    ({"num_outputs": "2"}, "num_outputs"),
    ({"outputs": "vibes"}, "logits or probabilities"),
    ({"preprocessing": {"mean": [1, 2]}}, "mean"),
    ({"preprocessing": {"std": [1, 0, 1]}}, "std"),
    ({"preprocessing": 5}, "preprocessing"),
    ({"model": None}, "model"),
    ({"options": {1: 2}}, "options"), ({"metrics": {"top1": b"1"}}, "metrics"),
    ({"provenance": {"a": [[[[[[[[[[1]]]]]]]]]]}}, "provenance"),
])
def test_damage_is_named(change, reason):
    stored = {**ModelCard(model="m", num_outputs=2).as_plain(), **change}
    with pytest.raises(PluginError, match=reason):
        ModelCard.from_plain(stored)


def test_images_are_normalised_as_the_network_expects():
    pixels = torch.tensor([0, 100, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    caffe = Preprocessing(mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0),
                          value_range=(0.0, 255.0), channel_order="bgr")
    found = normalise(pixels, preprocessing=caffe)
    assert torch.allclose(found[0, 0, 0], torch.tensor([-104.0, -4.0, 151.0]))
    usual = Preprocessing()
    assert torch.allclose(normalise(pixels, preprocessing=usual)[0, 1, 0],
                          (pixels[0, 1, 0] / 255 - 0.456) / 0.224)
    plain = normalise(pixels, preprocessing=usual.without_normalisation())
    assert torch.equal(plain, pixels.float())


@pytest.mark.parametrize(("size", "fraction", "resized"), [
    (224, 0.875, 256), (224, 224 / 232, 232), (299, 0.875, 341), (32, 1.0, 32),
    (600, 600 / 632, 632)])
def test_resize_size_is_not_rounded_down(size, fraction, resized):
    assert Preprocessing(size, fraction).resize_size == resized


@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4, 2, 2), ()])
def test_another_number_of_outputs_is_blamed_on_the_model(shape):
    card = ModelCard(model="mynet", num_outputs=2)
    with pytest.raises(PluginError) as caught:
        card.probabilities(torch.zeros(shape))
    assert caught.value.message == (f"model 'mynet' returned outputs of shape {shape}, "
                                    "expected (n, 2)")


def test_half_a_character_in_a_name_is_escaped():
    """JSON can state one; neither UTF-8 nor a file of predictions can."""
    card = ModelCard(model="mynet", num_outputs=2, class_names=("\ud800", "f\u00fcnf"))
    assert card.class_names == ("\\xed\\xa0\\x80", "f\u00fcnf")
