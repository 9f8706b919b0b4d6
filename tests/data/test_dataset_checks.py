"""What a dataset plugin returns: images, files and orders of the wrong kind are errors."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

import ipucnn
from ipucnn.core.errors import PluginError
from ipucnn.data import ImageDataset
from ipucnn.data.balanced import BalancedImages
from ipucnn.data.dataset_checks import box_of, file_of, image_of, opened, order_of
from ipucnn.data.labels import id_of, label_of

SMALL = {"model": "resnet8-cifar", "input_size": 32, "batch_size": 2, "epoch": 1, "precision":
         "full", "no_validation": True, "progress": False, "augmentation": "none", "lr": 0.01}

PLUGIN = """
import ipucnn
from ipucnn.plugin import ImageDataset

class Six(ImageDataset):
    class_names = ("a", "b")

    def __init__(self, request):
        pass

    def __len__(self):
        return 6

    def name(self, index):
        return f"six/{{index}}"

    def label(self, index):
        return index % 2

    def image(self, index):
        import torch
        image = torch.full((3, 32, 32), index, dtype=torch.uint8)
        return {image}

    def order(self, seed, epoch):
        return {order}

@ipucnn.hookimpl
def ipucnn_datasets():
    return [ipucnn.DatasetSpec(name="six", summary="six images", target=Six, labelled=True)]
"""


class Three(ImageDataset):
    """Three images of 4 x 4 pixels, and what a test makes of them."""

    def __init__(self, image=None, file=None, order=None):
        self._image, self._file, self._order = image, file, order

    def __len__(self):
        return 3

    def name(self, index):
        return f"three/{index}"

    def label(self, index):
        return index % 2

    def image(self, index):
        return self._image

    def encoded(self, index):
        return self._file

    def order(self, seed, epoch):
        return self._order


BYTES = torch.zeros(3, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(("image", "described"), [
    (torch.zeros(3, 4, 4, dtype=torch.float64), r"a tensor of torch.float64 \(3, 4, 4\)"),
    (torch.zeros(3, 4, 4, dtype=torch.int8), r"a tensor of torch.int8 \(3, 4, 4\)"),
    (torch.zeros(3, 4, 4, dtype=torch.bool), r"a tensor of torch.bool \(3, 4, 4\)"),
    (torch.zeros(4, 4, 3, dtype=torch.uint8), r"a tensor of torch.uint8 \(4, 4, 3\)"),
    (torch.zeros(4, 4, dtype=torch.uint8), r"a tensor of torch.uint8 \(4, 4\)"),
    (torch.zeros(1, 4, 4, dtype=torch.uint8), r"a tensor of torch.uint8 \(1, 4, 4\)"),
    (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"a tensor of torch.uint8 \(1, 3, 4, 4\)"),
    (torch.zeros(3, 0, 4, dtype=torch.uint8), r"a tensor of torch.uint8 \(3, 0, 4\)"),
    (BYTES.to("meta"), r"a tensor of torch.uint8 \(3, 4, 4\) on meta"),
    (BYTES.to_sparse(), r"a tensor \(torch.sparse_coo\) of torch.uint8 \(3, 4, 4\)"),
    (BYTES.numpy(), r"'numpy.ndarray' of uint8 \(3, 4, 4\)"),
    (numpy.empty(2, dtype=object), r"'numpy.ndarray' of object \(2,\)"),
    (Image.new("RGB", (4, 4)), "an object of type 'PIL.Image.Image'"),
    (b"\xff\xd8", "an object of type 'bytes'"),
    ("a.jpg", "'a.jpg' of type 'str'"),
    (None, "None"),
])
def test_an_image_of_another_kind_is_described(image, described):
    with pytest.raises(PluginError, match=f"'Three' returned {described} for 'three/1', expected "
                       r"a tensor of torch, uint8 \(3, height, width\)"):
        image_of(Three(image), 1)
    with pytest.raises(PluginError, match=described):
        Three(image)[1]


def test_an_image_of_the_right_kind_is_returned_as_it_is():
    image = BYTES.permute(0, 2, 1)
    assert image_of(Three(image), 0) is image
    assert image_of(Three(torch.nn.Parameter(BYTES, requires_grad=False)), 0).shape == (3, 4, 4)


@pytest.mark.parametrize("file", ["a.jpg", 7, [1], object()])
def test_a_file_is_its_content(file):
    with pytest.raises(PluginError, match="as the file of 'three/0', expected its content"):
        file_of(Three(file=file), 0)


@pytest.mark.parametrize("file", [None, b"x", bytearray(b"x"), memoryview(b"x")])
def test_content_is_bytes_of_any_type(file):
    assert file_of(Three(file=file), 0) is file


@pytest.mark.parametrize(("order", "problem"), [
    ([0, 1, 1], "it lacks 2 and repeats another number"),
    ([0, 1], "it has 2 numbers"),
    ([0, 1, 2, 0], "it has 4 numbers"),
    ([1, 2, 3], "it contains 3"),
    ([-1, 0, 1], "it contains -1"),
    (numpy.array([0.0, 1.0, 2.0]), r"it is 'numpy.ndarray' of float64 \(3,\)"),
    ([True, False, True], "it is an object of type 'list'"),
    (["0", "1", "2"], "it is an object of type 'list'"),
    (numpy.array([[0, 1, 2]]), r"it is 'numpy.ndarray' of int64 \(1, 3\)"),
    ([[0], [1, 2]], "it is an object of type 'list'"),
    (iter([0, 1, 2]), "it is an object of type 'list_iterator'"),
    (None, "it is None"),
    (numpy.array([0, 1, None], dtype=object), r"it is 'numpy.ndarray' of object \(3,\)"),
])
def test_an_order_that_is_no_permutation_is_refused(order, problem):
    with pytest.raises(PluginError, match="the order of epoch 4 of a dataset of type 'Three' is no "
                       f"permutation of its 3 images: {problem}, expected"):
        order_of(Three(order=order), 0, 4)


@pytest.mark.parametrize("order", [
    [2, 0, 1], (2, 0, 1), range(3), torch.tensor([2, 0, 1]), numpy.array([2, 0, 1], numpy.uint8)])
def test_a_permutation_of_any_type_is_an_array_of_whole_numbers(order):
    found = order_of(Three(order=order), 0, 0)
    assert found.dtype == numpy.int64
    assert found.tolist() == list(order)


def test_orders_that_repeat_images_have_numbers_of_their_own():
    balanced = BalancedImages(Three(BYTES))
    assert sorted(order_of(balanced, 0, 3) % 3) != [0, 1, 2]  # class 1 has one image


@pytest.mark.parametrize(("attributes", "message"), [
    ({"class_names": "ab"}, "'class_names' of dataset 'd' is 'ab', expected a tuple of texts"),
    ({"class_names": (0, 1)}, "'class_names' of dataset 'd' is"),
    ({"class_names": None}, "'class_names' of dataset 'd' is None"),
    ({"notes": "hello"}, "'notes' of dataset 'd' is 'hello'"),
    ({"notes": ["hello", 3]}, "'notes' of dataset 'd' is"),
    ({"name": lambda self, index: index}, "returned 0 of type 'int' as the name of an image"),
    ({"__len__": lambda self: 8.0}, "dataset 'd' has no length"),
    ({"__len__": lambda self: -1}, "dataset 'd' has no length"),
    ({"class_names": property(lambda self: ["a", "b"])},
     "'class_names' of dataset 'd' cannot be set: "),
    ({"plugin": property(lambda self: "mine")}, "'plugin' of dataset 'd' cannot be set: "),
])
def test_an_opened_dataset_is_checked(attributes, message):
    with pytest.raises(PluginError, match=message):
        opened(type("Wrong", (Three,), attributes)(), "dataset 'd'")


@pytest.mark.parametrize(("made", "described"), [
    ("None", "None"), ("[1, 2]", "an object of type 'list'"), ("len", "an object of type 'builtin"),
    ("ImageDataset", "the class 'ImageDataset'")])
def test_a_target_returns_a_dataset(made, described, cli, tmp_path):
    (tmp_path / "wrong.py").write_text(f"""
import ipucnn.plugin as ipucnn
from ipucnn.plugin import ImageDataset

@ipucnn.hookimpl
def ipucnn_datasets():
    return [ipucnn.DatasetSpec(name="wrong", summary="s", target=lambda request: {made})]
""")
    done = cli("run", "--plugin", tmp_path / "wrong.py", "--model", "resnet8-cifar", "--weights",
               "random", "--data", "wrong")
    assert done.code == 2
    assert f"the target of dataset 'wrong' of wrong returned {described}" in done.err


def test_lists_of_names_become_tuples():
    dataset = Three()
    dataset.class_names = ["a", "b"]
    assert opened(dataset, "it").class_names == ("a", "b")


@pytest.mark.parametrize("labels", [None, 1])
def test_several_labels_are_a_tuple(labels):
    dataset = Three()
    dataset.multi_label, dataset.labels = True, lambda index: labels
    with pytest.raises(PluginError, match="as the labels of 'three/0', expected a tuple"):
        label_of(dataset, 0)


def test_an_id_is_a_number():
    dataset = Three()
    dataset.image_id = lambda index: "x"
    with pytest.raises(PluginError, match="returned 'x' as the id of 'three/0'"):
        id_of(dataset, 0)


def plugin(folder, image="image", order="list(range(6))"):
    path = folder / "six.py"
    path.write_text(PLUGIN.format(image=image, order=order))
    return path


@pytest.mark.parametrize(("changes", "message"), [
    ({"order": "[0, 0, 1, 2, 3, 4]"}, "the order of epoch 0 of dataset 'six' of six is no "
     "permutation of its 6 images: it lacks 5 and repeats another number"),
    ({"image": "image.double() / 255"}, "dataset 'six' of six returned a tensor of torch.float64 "
     "(3, 32, 32) for 'six/0'"),
])
def test_a_training_names_the_plugin(tmp_path, isolated_registry, changes, message):
    isolated_registry(plugin(tmp_path, **changes))
    with pytest.raises(PluginError) as caught:
        ipucnn.train(data="six", checkpoint_path=tmp_path / "model", dataloader_worker=1, **SMALL)
    assert message in caught.value.message
    assert "check-plugin" in caught.value.hint


def test_other_commands_name_the_plugin(tmp_path, cli):
    path = plugin(tmp_path, image="image[:, :, 0]")
    done = cli("run", "--plugin", path, "--data", "six", "--model", "resnet8-cifar",
               "--input-size", "32", "--weights", "random", "--batch-size", "2")
    assert done.code == 2
    assert "returned a tensor of torch.uint8 (3, 32) for 'six/0'" in done.err


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 1.0), numpy.array([0.1, 0.2, 0.5, 1.0])])
def test_boxes_are_relative_to_the_image(box):
    dataset = Three(BYTES)
    dataset.box = lambda index: box
    assert box_of(dataset, 0) == pytest.approx((0.1, 0.2, 0.5, 1.0))
    dataset.box = lambda index: None
    assert box_of(dataset, 0) is None


@pytest.mark.parametrize("box", [(10, 20, 100, 120), (0.1, 0.2), "left", 3, (0, 0, None, 1),
                                 (0, 0, float("nan"), 1)])
def test_other_boxes_are_an_error(box):
    dataset = Three(BYTES)
    dataset.box = lambda index: box
    with pytest.raises(PluginError, match="as the box of 'three/0', expected left, top, right"):
        box_of(dataset, 0)
