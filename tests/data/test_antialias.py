"""Resizing with numpy gives the pixels of torch."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipucnn.data import antialias, resize

pytestmark = pytest.mark.skipif(not resize.native_resize(),
                                reason="this torch resizes uint8 images in float")


def by_torch(pixels, height, width, interpolation):
    images = torch.from_numpy(pixels[None].transpose(0, 3, 1, 2))
    resized = torch.nn.functional.interpolate(images, (height, width), mode=interpolation,
                                              antialias=True)
    return resized.numpy()[0].transpose(1, 2, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.integers(1, 200),
       st.sampled_from(["bilinear", "bicubic"]), st.booleans(), st.integers(0, 99))
def test_every_pixel_is_that_of_torch(rows, columns, height, width, interpolation, extreme, seed):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=numpy.uint8)
    if extreme:  # the cubic filter overshoots at edges, and is clipped
        pixels = (pixels > 127).astype(numpy.uint8) * 255
    found = antialias.resized(pixels, height, width, interpolation)
    assert numpy.array_equal(found, by_torch(pixels, height, width, interpolation))


def test_a_photograph_of_a_telephone():
    pixels = numpy.random.default_rng(0).integers(0, 256, (1512, 2016, 3), dtype=numpy.uint8)
    found = antialias.resized(pixels, 256, 341, "bilinear")
    assert numpy.array_equal(found, by_torch(pixels, 256, 341, "bilinear"))
