"""Labels of datasets are classes in built-in types, or an error that names the image."""

import numpy
import pytest
import torch

from ipucnn.core.errors import PluginError
from ipucnn.data import ImageDataset
from ipucnn.data.labels import class_counts, id_of, label_array, label_of


class Given(ImageDataset):
    """One image with a given label."""

    class_names = ("cat", "dog")

    def __init__(self, label, several=False):
        self._label, self.multi_label = label, several

    def __len__(self):
        return 1

    def image(self, index):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def name(self, index):
        return f"given/{index}"

    def label(self, index):
        return self._label

    def labels(self, index):
        return self._label

    def image_id(self, index):
        return self._label


@pytest.mark.parametrize("label", [1, numpy.int64(1), torch.tensor(1)])
def test_labels_become_built_in_numbers(label):
    for found in (label_of(Given(label), 0), label_of(Given([label], True), 0)[0],
                  id_of(Given(label), 0)):
        assert found == 1
        assert type(found) is int
    assert label_array(Given(label)).tolist() == [1]
    assert class_counts(Given([label], True), 2) == [0, 1]
    assert label_of(Given(None), 0) is None


@pytest.mark.parametrize("label", [-1, 2, 0.5, "dog", torch.zeros(2)])
def test_a_label_that_is_no_class_is_refused(label):
    for read in (lambda: label_of(Given(label), 0), lambda: label_of(Given([0, label], True), 0),
                 lambda: label_array(Given(label)), lambda: class_counts(Given(label), 2)):
        with pytest.raises(PluginError) as caught:
            read()
        assert "for 'given/0', expected a number from 0 to 1" in caught.value.message
