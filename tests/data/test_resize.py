import numpy
import pytest
import torch
from PIL import Image

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset, resize
from ipucnn.data.host_loader import HostLoader


def photograph(width=60, height=40):
    """A smooth, coloured, asymmetric picture."""
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    channels = [255 * x / width, 255 * y / height, 127 + 120 * numpy.sin((x + 2 * y) / 25)]
    return Image.fromarray(numpy.stack(channels, -1).astype(numpy.uint8))


def assert_close(pixels, reference, tolerance):
    expected = numpy.asarray(reference).astype(int)
    assert pixels.dtype == numpy.uint8
    assert pixels.shape == expected.shape
    assert numpy.abs(pixels.astype(int) - expected).max() <= tolerance


def reference_transform(image, size):
    """Resize the shorter side, crop the middle: by Pillow alone."""
    short = size * 256 // 224
    width, height = image.size
    shorter = min(width, height)
    resized = image.resize((short * width // shorter, short * height // shorter), Image.BILINEAR)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


class TestEvalTransform:
    @pytest.mark.parametrize("input_size", [224, 240, 64])
    @pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (90, 61), (1023, 300)])
    def test_agrees_with_pillow(self, size, input_size):
        image = photograph(*size)
        result = resize.eval_transform(numpy.array(image), Preprocessing(input_size))
        assert_close(result, reference_transform(image, input_size), 2)

    @pytest.mark.parametrize("size", [(2000, 3), (3, 2000), (1, 1), (5000, 400)])
    def test_extreme_shapes(self, size):
        image = photograph(*size)
        result = resize.eval_transform(numpy.array(image), Preprocessing(32))
        assert_close(result, reference_transform(image, 32), 2)

    def test_extreme_shape_costs_no_memory(self):
        # 60,000 pixels long at 600 pixels across would be 5.5 million when resized: 10 GB
        result = resize.eval_transform(numpy.full((4, 60_000, 3), 7, dtype=numpy.uint8),
                                       Preprocessing(528))
        assert result.shape == (528, 528, 3)
        assert numpy.unique(result).tolist() == [7]


class TestResizedCrop:
    @pytest.mark.parametrize("size", [16, 60, 150])
    @pytest.mark.parametrize("place", [(0, 0, 90, 120), (10, 25, 64, 48), (89, 119, 1, 1)])
    def test_agrees_with_pillow(self, place, size):
        image = photograph(120, 90)
        top, left, height, width = place
        expected = image.crop((left, top, left + width, top + height)).resize(
            (size, size), Image.BILINEAR)
        assert_close(resize.resized_crop(numpy.array(image), top, left, height, width, size),
                     expected, 2)


def test_mirrored():
    pixels = numpy.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=numpy.uint8)
    for part in (pixels, pixels[1:4, 2:6]):
        assert numpy.array_equal(resize.mirrored(part), part[:, ::-1])


class TestRulesOfNetworks:
    """Other interpolations, squashed images, and channels of Caffe's order."""

    PIXELS = numpy.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=numpy.uint8)

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
    @pytest.mark.parametrize("resize_rule", ["shortest", "squash"])
    def test_they_are_those_of_pillow(self, interpolation, resize_rule):
        rule = Preprocessing(24, 24 / 30, resize=resize_rule, interpolation=interpolation)
        found = resize.eval_transform(self.PIXELS, rule)
        size = (30, 30) if resize_rule == "squash" else (45, 30)
        whole = Image.fromarray(self.PIXELS).resize(size, getattr(Image, interpolation.upper()))
        expected = resize.center_crop(numpy.array(whole), 24)
        assert found.shape == (24, 24, 3)
        difference = numpy.abs(found.astype(int) - expected.astype(int))
        assert difference.mean() < 1.5

    def test_a_whole_image_is_left_as_it_is(self):
        square = self.PIXELS[:, :40]
        assert numpy.array_equal(resize.eval_transform(square, Preprocessing(40, 1.0)), square)

    def test_channels_are_in_the_order_of_the_network(self):
        class One(ImageDataset):
            def __len__(self):
                return 1

            def image(self, index):
                return torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)

            def name(self, index):
                return "one"

        (batch,) = HostLoader(One(), Preprocessing(8, 1.0, channel_order="bgr"), 1, [0], workers=1)
        assert batch.images[0, :, 0, 0].tolist() == [3, 2, 1]
