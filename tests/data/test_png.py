"""Orientation and transparency of PNG files are treated as in other formats."""

from __future__ import annotations

import io
import struct
import zlib

import numpy
import pytest
from PIL import Image, PngImagePlugin

from ipucnn.core.errors import DataError
from ipucnn.data import images
from ipucnn.data.given_images import GivenImages

EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, kind, rows, transparent=b""):
    """Return a PNG file with any bit depth; Pillow writes only some."""
    data = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
            + (chunk(b"tRNS", transparent) if transparent else b"")
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("depth", "row", "sample", "expected"), [
    (1, b"\x40", 0, [255, 255]), (1, b"\x40", 1, [0, 255]),
    (2, b"\x60", 1, [255, 170]), (2, b"\x60", 2, [85, 255]),
    (4, b"\x3c", 3, [255, 204]), (8, b"\x30\xc0", 0x30, [255, 192]),
    (16, b"\x30\x01\xc0\x00", 0x3001, [255, 192]), (16, b"\x30\x01\xc0\x00", 0x3000, [48, 192]),
    (16, b"\xff\xff\x00\x00", 0, [255, 255]),
])
def test_the_transparent_grey_is_white_at_every_depth(depth, row, sample, expected):
    data = png(2, 1, depth, 0, [row], struct.pack(">H", sample))
    pixels = images.decode(data, "x.png")
    assert pixels[:, 0, :].tolist() == [expected] * 3


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_is_white_at_every_depth(depth):
    samples = [(1, 2, 3), (4, 5, 6)]
    form = ">3B" if depth == 8 else ">3H"
    scale = 1 if depth == 8 else 256
    row = b"".join(struct.pack(form, *(scale * value for value in colour)) for colour in samples)
    transparent = struct.pack(">3H", *(scale * value for value in samples[1]))
    pixels = images.decode(png(2, 1, depth, 2, [row], transparent), "x.png")
    assert pixels[:, 0].T.tolist() == [[1, 2, 3], [255, 255, 255]]


@pytest.mark.parametrize(("depth", "kind", "row", "transparent"), [
    (1, 0, b"\x40", (1,)), (2, 0, b"\x60", (2,)), (4, 0, b"\x3c", (3,)),
    (16, 0, b"\x30\x01\xc0\x00", (0x3001,)),
    (16, 2, bytes(range(12)), (0x0001, 0x0203, 0x0405))])
def test_an_image_of_pillow_is_read_like_its_file(depth, kind, row, transparent):
    data = png(2, 1, depth, kind, [row], struct.pack(f">{len(transparent)}H", *transparent))
    given = GivenImages([Image.open(io.BytesIO(data))])
    for _ in range(2):  # loaded by the first one
        assert given.image(0).equal(images.decode(data, "x.png"))


def test_a_damaged_image_of_pillow_is_named():
    data = png(2, 1, 8, 0, [b"ab"])
    place = data.index(b"IDAT") + 4  # before it ends, a chunk without a name
    data = data[:place - 8] + struct.pack(">I", 1) + data[place - 4:place + 1] + bytes(40)
    with pytest.raises(DataError, match="image 0 cannot be read"):
        GivenImages([Image.open(io.BytesIO(data))]).image(0)


def written(info=None, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(numpy.arange(18, dtype=numpy.uint8).reshape(2, 3, 3) * 14).save(
        buffer, form, **({"pnginfo": info} if info else {}), **options)
    return buffer.getvalue()


def text(key, value):
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, value) if key.startswith("XML") else info.add_text(key, value, zip=True)
    return info


def profile(exif):
    return f"\nexif\n{len(exif):8d}\n{exif.hex()}\n"


XMP = '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/">{}</x:xmpmeta>'


@pytest.mark.parametrize(("data", "turned"), [
    (written(), False),
    (written(exif=EXIF), True),
    (written(text("Raw profile type exif", profile(b"Exif\0\0" + EXIF))), True),
    (written(text("Raw profile type APP1", profile(b"Exif\0\0" + EXIF))), True),
    (written(text("XML:com.adobe.xmp", XMP.format('<a tiff:Orientation="6"/>'))), True),
    (written(text("XML:com.adobe.xmp",
                  XMP.format("<tiff:Orientation>6</tiff:Orientation>"))), True),
    (written(form="WEBP", lossless=True,
             xmp=XMP.format('<a tiff:Orientation="6"/>').encode()), True),
    (written(text("Raw profile type exif", "\nexif\n 9\nno digits\n")), False),
    (written(text("Raw profile type exif", "9" * 300_000)), False),
    (written(text("XML:com.adobe.xmp", XMP.format('<a tiff:Orientation="66"/>'))), False),
    # EXIF data takes precedence
    (written(text("XML:com.adobe.xmp", XMP.format('<a tiff:Orientation="6"/>')),
             exif=EXIF.replace(b"\x01\0\x06", b"\x01\0\x01")), False),
], ids=range(11))
def test_the_orientation_is_obeyed_wherever_it_is_stated(data, turned):
    plain = images.decode(written(), "x.png")
    assert images.decode(data, "x.png").equal(plain.rot90(-1, (1, 2)) if turned else plain)


def test_a_small_jpeg_file_of_an_enormous_size_takes_no_memory():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5:frame + 9] = struct.pack(">HH", 13_000, 13_000)
    with pytest.raises(DataError, match="cannot hold 13000x13000 pixels"):
        images.decode(bytes(data), "x.jpg")
    data[frame + 1] = 0xC2  # progressive: its coefficients need memory, too
    with pytest.raises(DataError, match="13000x13000 is more than 89,460,128 pixels"):
        images.decode(bytes(data), "x.jpg")


@pytest.mark.parametrize("options", [
    {}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 1},
    {"optimize": True, "quality": 1, "progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_no_whole_jpeg_file_is_taken_for_a_truncated_one(options, mode):
    buffer = io.BytesIO()
    Image.new(mode, (2000, 1500)).save(buffer, "JPEG", **options)
    assert images.decode(buffer.getvalue(), "x.jpg").shape == (3, 1500, 2000)


def test_an_enormous_file_is_not_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="is larger than 536,870,912 bytes"):
        images.read_file(str(tmp_path / "x.jpg"))
