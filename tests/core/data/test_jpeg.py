import io

import pytest
from PIL import Image

from ipucnn.core.data import jpeg


def encoded(size=(12, 7), mode="RGB", orientation=None, endian="<", **options):
    exif = Image.Exif()
    exif.endian = endian
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "JPEG", exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_header_of_every_kind_of_jpeg(mode, channels, progressive):
    header = jpeg.read_header(encoded(mode=mode, progressive=progressive))
    assert header == jpeg.Header(12, 7, channels, 1)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_both_byte_orders(orientation, endian):
    assert jpeg.read_header(encoded(orientation=orientation, endian=endian)).orientation \
        == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_upright(orientation):
    assert jpeg.read_header(encoded(orientation=orientation)).orientation == 1


def test_fill_bytes_between_segments_are_allowed():
    data = encoded()
    assert jpeg.read_header(data[:2] + b"\xff\xff\xff" + data[2:]) == jpeg.read_header(data)


def test_every_truncation_is_survived():
    data = encoded(orientation=6)
    for length in range(len(data)):
        header = jpeg.read_header(data[:length])
        assert header is None or (header.width, header.height) == (12, 7)


@pytest.mark.parametrize("exif", [
    b"", b"Exif\0\0", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"not exif"])
def test_damaged_exif_is_upright(exif):
    assert jpeg.exif_orientation(exif) == 1
