"""Classes of a dataset and of a model: by name, by number, by ImageNet's identifiers."""

from __future__ import annotations

import pytest

from ipucnn.core.errors import DataError
from ipucnn.models.class_names import ClassMatch, imagenet_names, match_classes, similar_names


@pytest.mark.parametrize(("dataset", "model", "outputs"), [
    (["a", "b"], ["b", "a"], (1, 0)),
    (["Zebra", "polar_bear"], ["polar bear", "x", "zebra"], (2, 0)),
    (["b"], ["a", "b", "c"], (1,)),
    (["2", "0"], ["0", "1", "2"], (2, 0)),
    (["1", "2"], ["2", "1"], (1, 0)),
    (["01", "02"], ["1", "2", "3"], (0, 1)),
    (["0", "10"], ["010", "000"], (1, 0)),
    (["cafe\u0301", "b"], ["b", "Caf\xe9"], (1, 0)),
])
def test_classes_are_matched_by_name(dataset, model, outputs):
    match = match_classes(dataset, model, len(model))
    assert (match.outputs, match.note) == (outputs, "")


def test_imagenet_folders_are_known_by_their_identifiers():
    names = imagenet_names()
    assert (names[340], names[954]) == ("zebra", "banana")
    match = match_classes(["n02391049", "n01440764", "n07753592"], names, 1000)
    assert match.outputs == (340, 0, 954)


def test_unknown_classes_are_named_and_not_scored():
    match = match_classes(["a", "y", "z"], ["a", "b"], 2, what="the photographs")
    assert match.outputs == (0, None, None)
    assert match.note == ("2 of the 3 classes of the photographs are unknown to the model and are "
                          "not scored: 'y', 'z'")


def test_no_class_in_common_is_an_error_that_lists_both():
    with pytest.raises(DataError) as error:
        match_classes(["car", "tree"], ["cat", "dog"], 2, what="the dataset")
    assert "has 'car', 'tree', the model 'cat', 'dog'" in error.value.message
    assert "--match-classes position" in error.value.hint
    assert match_classes(["car", "tree"], ["cat", "dog"], 2, "position").outputs == (0, 1)


def test_a_model_without_names_takes_those_of_the_dataset_with_a_note():
    assert "assumed" in match_classes(["a", "b"], [], 2).note
    with pytest.raises(DataError, match="3 classes and the model 2, which it does not name"):
        match_classes(["a", "b", "c"], [], 2)


def test_numbers_of_some_classes_are_noted():
    names = [f"name {number}" for number in range(11)]
    match = match_classes(["10", "2"], names, 11, what="the photographs")
    assert match.outputs == (10, 2)
    assert match.note == ("the classes of the photographs are taken for numbers of the model's "
                          "classes: '10' is 'name 10'")
    assert match_classes(["10", "2"], [], 11) == ClassMatch((10, 2))


@pytest.mark.parametrize("model", [[], ["a", "b", "c"]])
def test_numbers_that_begin_with_1_are_refused(model):
    with pytest.raises(DataError, match="up to 3, and those of the model are numbered from 0 to 2"):
        match_classes(["1", "2", "3"], model, 3)
    assert match_classes(["1", "2", "3"], model, 4).outputs == (1, 2, 3)


def test_positions_need_enough_outputs():
    with pytest.raises(DataError, match="3 classes and the model 2"):
        match_classes(["a", "b", "c"], ["a", "b"], 2, "position")


def test_names_that_differ_in_case_alone_stay_apart():
    assert match_classes(["crane", "Crane"], ["Crane", "crane"], 2).outputs == (1, 0)


def test_a_name_that_two_classes_have_is_ambiguous():
    match = match_classes(["crane", "zebra"], ["crane", "zebra", "crane"], 3)
    assert match.outputs == (None, 1)
    assert "'crane'" in match.note


def test_more_outputs_than_classes_without_names_are_explained():
    with pytest.raises(DataError) as raised:
        match_classes(["a", "b"], [], 4)
    assert "--num-classes" not in raised.value.hint
    assert "'--match-classes position'" in raised.value.hint
    with pytest.raises(DataError) as raised:
        match_classes(["a", "b"], [], 1)
    assert "--match-classes" not in raised.value.hint


def test_a_new_model_can_have_as_many_outputs_as_classes():
    with pytest.raises(DataError) as raised:
        match_classes(["a", "b"], [], 4, new=True)
    assert "'--num-classes 2'" in raised.value.hint
    assert "'--match-classes position'" in raised.value.hint


def test_classes_that_match_the_same_output_are_noted():
    match = match_classes(["Cat", "cat", "dog"], ["cat", "dog"], 2, what="the photographs")
    assert match.outputs == (0, 0, 1)
    assert match.note == "'Cat', 'cat' of the photographs are one class of the model: 'cat'"
    assert "'0', '00' of the dataset are one class of the model: 0" in match_classes(
        ["0", "00", "1"], [], 2).note


@pytest.mark.parametrize("names", [
    ["dog", "Cat", "cat"], ["1", "01", "2"], ["a b", "a_b", "c"], ["cafe\u0301", "b", "caf\xe9"]])
def test_classes_of_a_training_with_similar_names_are_noted(names):
    note, = similar_names(names, match_classes(names, names, 3))
    alike = [name for name in names if name not in ("dog", "2", "c", "b")]
    assert note.startswith(f"{alike[0]!r}, {alike[1]!r} are 2 classes of the model")
    assert similar_names(["a", "b"], match_classes(["a", "b"], ["a", "b"], 2)) == []
    # they are one class of the model
    assert similar_names(["Cat", "cat"], match_classes(["Cat", "cat"], ["cat", "dog"], 2)) == []
