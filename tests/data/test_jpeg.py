import dataclasses
import io

import pytest
from PIL import Image

from ipucnn.core.errors import DataError
from ipucnn.data import images, jpeg


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
    data = encoded(mode=mode, progressive=progressive)
    header = jpeg.read_header(data)
    assert header == jpeg.Header(12, 7, channels, 1, header.least_bytes, header.height_at,
                                 header.coefficients)
    assert bool(header.coefficients) == progressive
    assert bool(header.height_at) != progressive
    if header.height_at:
        assert data[header.height_at:][:4] == b"\0\x07\0\x0c"
        lower = jpeg.read_header(bytes(jpeg.shortened(data, header, 5)))
        assert (lower.width, lower.height) == (12, 5)


def test_files_with_restarts_are_known():
    header = jpeg.read_header(encoded(size=(64, 64), restart_marker_rows=1))
    assert (header.width, header.height, header.height_at) == (64, 64, 0)


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
    filled = jpeg.read_header(data[:2] + b"\xff\xff\xff" + data[2:])
    expected = jpeg.read_header(data)
    assert filled == dataclasses.replace(expected, height_at=expected.height_at + 3)


def test_every_truncation_is_survived():
    data = encoded(orientation=6)
    for length in range(len(data)):
        header = jpeg.read_header(data[:length])
        assert header is None or (header.width, header.height) == (12, 7)


@pytest.mark.parametrize("exif", [
    b"", b"Exif\0\0", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"not exif"])
def test_damaged_exif_is_upright(exif):
    assert jpeg.exif_orientation(exif) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_an_image_of_one_pixel_width_is_turned(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 90, 10)).save(buffer, "JPEG", exif=exif)
    wanted = size if orientation >= 5 else size[::-1]
    assert images.decode(buffer.getvalue(), "x").shape == (3, *wanted)


def sized(data, width, height):
    """The file with another size in its header."""
    header = jpeg.read_header(data)
    at = data.index(header.height.to_bytes(2, "big") + header.width.to_bytes(2, "big"))
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4:]


@pytest.mark.parametrize(("mode", "options", "each"), [
    ("L", {"progressive": True}, 1), ("RGB", {"progressive": True, "subsampling": 0}, 3),
    ("RGB", {"progressive": True, "subsampling": 2}, 1.5), ("RGB", {"subsampling": 2}, 0),
    ("RGB", {"subsampling": 2, "restart_marker_rows": 1}, 0)])
def test_the_buffer_of_a_progressive_file_counts_to_the_limit_of_memory(mode, options, each):
    data = encoded((64, 64), mode, **options)
    assert jpeg.read_header(data).coefficients == 64 * 64 * each
    # 3 bytes for each pixel, and 2 for each coefficient
    limit = int((images.MAX_PIXELS * 3 / (3 + 2 * each)) ** 0.5) // 16 * 16
    for size, cause in ((limit, "is truncated"),
                        (limit + 16, rf"{limit + 16}x{limit + 16} is more than [0-9,]+ pixels")):
        with pytest.raises(DataError, match=cause):
            images.decode(sized(data, size, size), "x")


def test_a_file_with_a_scan_for_each_channel_is_buffered_like_a_progressive_one():
    data = encoded((64, 64), subsampling=0)
    start = data.index(b"\xff\xda\0\x0c\x03")  # one scan of three channels
    several = data[:start] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[start + 14:]
    assert jpeg.read_header(several).coefficients == 3 * 64 * 64
