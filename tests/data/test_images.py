import contextlib
import io
import os
import re
import struct
import warnings

import numpy
import pytest
import torch
from PIL import Image, ImageOps, features

from ipucnn.core.errors import DataError
from ipucnn.data import images, jpeg


def photograph(width=60, height=40):
    """A smooth, coloured, asymmetric picture: JPEG keeps it within a few grey levels."""
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    channels = [255 * x / width, 255 * y / height, 127 + 120 * numpy.sin((x + 2 * y) / 25)]
    return Image.fromarray(numpy.stack(channels, -1).astype(numpy.uint8))


def encode(image, format, **options):
    buffer = io.BytesIO()
    if not features.check("webp") and format == "WEBP":
        pytest.skip("this Pillow was built without WebP")
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(tensor):
    assert tensor.dtype == torch.uint8
    assert tensor.shape[0] == 3
    return tensor.permute(1, 2, 0).numpy().astype(int)


def assert_close(tensor, reference, tolerance):
    expected = numpy.asarray(reference.convert("RGB")).astype(int)
    assert pixels(tensor).shape == expected.shape
    assert numpy.abs(pixels(tensor) - expected).max() <= tolerance


@pytest.mark.parametrize("options", [
    {}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2, "optimize": True},
    {"restart_marker_blocks": 1}])
def test_jpeg_agrees_with_pillow(options):
    data = encode(photograph(), "JPEG", quality=95, **options)
    assert_close(images.decode(data, "x.jpg"), Image.open(io.BytesIO(data)), 3)


def test_grey_jpeg_is_repeated_over_the_channels():
    grey = photograph().convert("L")
    result = images.decode(encode(grey, "JPEG", quality=95), "grey.jpg")
    assert_close(result, grey, 6)
    assert torch.equal(result[0], result[1])
    assert torch.equal(result[0], result[2])


def test_cmyk_jpeg_has_the_right_colours():
    cmyk = photograph().convert("CMYK")
    assert_close(images.decode(encode(cmyk, "JPEG", quality=98), "cmyk.jpg"), cmyk, 12)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0},
               "WEBP": {"lossless": True}}.get(format, {})
    data = encode(photograph(), format, exif=exif, **options)
    upright = photograph()
    upright.getexif()[0x0112] = orientation
    assert_close(images.decode(data, "x"), ImageOps.exif_transpose(upright), 6)


def test_the_content_decides_not_the_suffix():
    assert_close(images.decode(encode(photograph(), "PNG"), "really-a-png.jpg"), photograph(), 0)


@pytest.mark.parametrize(("format", "options", "tolerance"), [
    ("PNG", {}, 0), ("BMP", {}, 0), ("PPM", {}, 0), ("TIFF", {}, 0),
    ("WEBP", {"lossless": True}, 0), ("WEBP", {"quality": 95}, 40)])
def test_other_formats(format, options, tolerance):
    data = encode(photograph(), format, **options)
    assert_close(images.decode(data, "x"), photograph(), tolerance)


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = numpy.linspace(0, 65535, 64 * 32).astype(numpy.uint16).reshape(32, 64)
    for format in ("PNG", "TIFF"):
        result = pixels(images.decode(encode(Image.fromarray(values), format), "deep"))
        assert (result == (values >> 8)[:, :, None]).all()


def test_sixteen_bit_tiff_whose_white_is_zero():
    grey = Image.fromarray(numpy.array([[0, 256, 65535]], dtype=numpy.uint16))
    for photometric, expected in ((0, [255, 254, 0]), (1, [0, 1, 255])):
        data = encode(grey, "TIFF", tiffinfo={262: photometric})
        stored = Image.open(io.BytesIO(data))
        assert (stored.mode, stored.tag_v2[262]) == ("I;16", photometric)
        assert pixels(images.decode(data, "x.tif"))[0, :, 0].tolist() == expected


def test_sixteen_bit_pnm_keeps_its_high_byte():
    values = numpy.array([[0, 255, 256, 40000, 65535]], dtype=">u2")
    data = b"P5 5 1 65535\n" + values.tobytes()
    assert pixels(images.decode(data, "x.pgm"))[0, :, 0].tolist() == [0, 0, 1, 156, 255]


def test_pixels_without_a_defined_white_are_refused():
    data = encode(Image.new("F", (4, 4), 0.5), "TIFF")
    with pytest.raises(DataError, match=r"'float\.tif'.*no defined white"):
        images.decode(data, "float.tif")
    whole = Image.fromarray(numpy.arange(256, dtype=numpy.int32).reshape(16, 16))
    with pytest.raises(DataError, match="no defined white"):  # each high byte would be black
        images.decode(encode(whole, "TIFF"), "whole.tif")
    with pytest.raises(ValueError, match="no defined white"):
        images.pixels_of(photograph().convert("L").convert("I"))  # by a program


def test_palette_png():
    palette = photograph().convert("P", palette=Image.ADAPTIVE, colors=32)
    assert_close(images.decode(encode(palette, "PNG"), "x.png"), palette, 0)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_transparent_palette_lies_on_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200] + [0] * 762)
    image.putpixel((1, 0), 1)
    result = pixels(images.decode(encode(image, "PNG", transparency=transparency), "x.png"))
    assert result.tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_alpha_lies_on_white():
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (0, 0, 0, alpha))
    result = pixels(images.decode(encode(image, "PNG"), "x.png"))
    assert result[0, :, 0].tolist() == [255, 127, 0]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert_close(images.decode(data, "x.gif"), frames[0], 0)


def with_size(data, width, height):
    """Overwrite the size in a JPEG's frame header."""
    start = data.index(b"\xff\xc0")
    return data[:start + 5] + struct.pack(">HH", height, width) + data[start + 9:]


@pytest.mark.parametrize(("data", "cause"), [
    (b"", "is empty"),
    (b"\0" * 400, "not an image"),
    (b"this is text\n" * 20, "not an image"),
    (b"\xff\xd8\xff", "cannot decode"),
    (encode(photograph(), "JPEG")[:-2], "truncated"),
    (encode(photograph(), "JPEG", progressive=True)[:300], "cannot decode"),
    (encode(photograph(), "PNG")[:200], "truncated"),
    (b"RIFF\x24\x01\0\0WEBPVP8 \x18\x01\0\0" + b"\x30" * 60, "cannot decode|not an image"),
    (encode(photograph(), "GIF")[:200], "cannot decode"),
    (with_size(encode(photograph(), "JPEG"), 65500, 65500), "more than 178,956,970 pixels"),
    (b"P6 50000 50000 255\n", "pixels"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
], ids=["empty", "zeros", "text", "magic only", "no end", "half progressive", "half png",
        "half webp", "half gif", "huge jpeg", "huge ppm", "program"])
def test_bad_data_is_a_clear_error(data, cause):
    with pytest.raises(DataError, match=cause) as caught:
        images.decode(data, "photos/bad.jpg")
    assert "'photos/bad.jpg'" in caught.value.message
    assert "\n" not in caught.value.message
    assert " object at 0x" not in caught.value.message
    assert "--skip-bad-samples" in caught.value.hint


def test_damaged_files_never_raise_anything_else():
    random = numpy.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        good = encode(photograph(), format)
        for _ in range(25):
            data = bytearray(good)
            for place in random.integers(0, len(data), 12):
                data[place] = random.integers(0, 256)
            with contextlib.suppress(DataError):
                assert images.decode(bytes(data), "x").shape[0] == 3


def test_pillow_does_not_warn():
    damaged = bytearray(encode(photograph(), "TIFF"))
    damaged[-40:] = b""
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3] * 256)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images.decode(encode(palette, "PNG", transparency=bytes([0, 9])), "x.png")
        with pytest.raises(DataError):
            images.decode(bytes(damaged), "x.tif")
        with pytest.raises(DataError):
            images.decode(b"P6 10000 10000 255\n", "x.ppm")  # Pillow warns of this size
    assert [str(warning.message) for warning in caught] == []


class TestReadFile:
    def test_file(self, tmp_path):
        photograph().save(tmp_path / "x.png")
        content = images.read_file(str(tmp_path / "x.png"))
        assert_close(images.decode(content, "x.png"), photograph(), 0)

    def test_file_that_is_read_in_parts(self, tmp_path, monkeypatch):
        (tmp_path / "x.png").write_bytes(bytes(range(256)))
        read = os.read
        # as file systems on a network may do
        monkeypatch.setattr(os, "read", lambda file, count: read(file, min(count, 100)))
        assert images.read_file(str(tmp_path / "x.png")) == bytes(range(256))

    def test_missing(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.jpg': no such file"):
            images.read_file(str(tmp_path / "none.jpg"))

    def test_dangling_link(self, tmp_path):
        (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
        with pytest.raises(DataError, match=r"link\.jpg': it is a link to '.*gone\.jpg'"):
            images.read_file(str(tmp_path / "link.jpg"))

    def test_folder(self, tmp_path):
        with pytest.raises(DataError, match="is not a file"):
            images.read_file(str(tmp_path))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(DataError, match="is not a file"):
            images.read_file(str(tmp_path / "pipe.jpg"))

    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads all")
    def test_without_permission(self, tmp_path):
        path = tmp_path / "secret.jpg"
        photograph().save(path)
        path.chmod(0)
        with pytest.raises(DataError, match=r"secret\.jpg': permission denied"):
            images.read_file(str(path))


def reduced(by):
    return lambda height, width: jpeg.Part(height, by)


class TestReduced:
    @pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
    @pytest.mark.parametrize("by", [1, 2, 4, 8])
    def test_a_jpeg_is_decoded_smaller(self, by, options):
        data = encode(photograph(208, 152), "JPEG", quality=95, **options)
        pixels, size = images.decode_pixels(data, str, reduced(by))
        assert size == (152, 208)
        assert pixels.shape == (152 // by, 208 // by, 3)
        expected = photograph(208, 152).resize((208 // by, 152 // by), Image.BOX)
        difference = numpy.abs(pixels.astype(int) - numpy.asarray(expected))
        assert difference.mean() < 2
        assert difference.max() <= 16  # colours are not interpolated

    @pytest.mark.parametrize("by", [2, 4, 8])
    def test_sizes_are_rounded_up(self, by):
        data = encode(photograph(203, 150), "JPEG")
        pixels, _ = images.decode_pixels(data, str, reduced(by))
        assert pixels.shape == (-(-150 // by), -(-203 // by), 3)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_sizes_are_those_of_the_upright_image(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(photograph(200, 100), "JPEG", quality=98, exif=exif)
        seen = []
        pixels, size = images.decode_pixels(
            data, str, lambda *size: seen.append(size) or jpeg.Part(size[0], 4))
        assert seen == [size]
        assert size == ((200, 100) if orientation >= 5 else (100, 200))
        whole = images.decode(data, "x").permute(1, 2, 0).numpy()
        expected = Image.fromarray(whole).resize(pixels.shape[1::-1], Image.BOX)
        assert numpy.abs(pixels.astype(int) - numpy.asarray(expected)).mean() < 4

    def test_other_formats_stay_whole(self):
        pixels, size = images.decode_pixels(encode(photograph(), "PNG"), str, reduced(8))
        assert pixels.shape[:2] == size == (40, 60)


def first(rows, by=1):
    return lambda height, width: jpeg.Part(rows, by)


FORMS = {"4:2:0": {}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0},
         "optimised": {"optimize": True}, "grey": {}}
"""Files that are decoded from the top to any row."""

OTHERS = {"progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1}}


def of_form(form, width=203, height=150, **more):
    picture = photograph(width, height)
    return encode(picture.convert("L") if form == "grey" else picture, "JPEG", quality=90,
                  **{**FORMS, **OTHERS}[form], **more)


class TestFirstRows:
    @pytest.mark.parametrize("by", [1, 2, 4, 8])
    @pytest.mark.parametrize("form", FORMS)
    def test_they_are_those_of_the_whole_image(self, form, by):
        data = of_form(form)
        whole, _ = images.decode_pixels(data, str, reduced(by))
        for rows in (1, 7, 8, 16, 17, 100, 143, 144, 145, 149, 150):
            pixels, size = images.decode_pixels(data, str, first(rows, by))
            assert size == (150, 203)
            assert pixels.shape[0] == -(-rows // by)
            # the last one of a smaller image may be made of rows that are wanted and others
            exact = rows // by if rows < 150 else len(pixels)
            assert numpy.array_equal(pixels[:exact], whole[:exact])

    @pytest.mark.parametrize("form", OTHERS)
    def test_other_files_are_decoded_whole(self, form):
        data = of_form(form)
        pixels, _ = images.decode_pixels(data, str, first(20))
        assert numpy.array_equal(pixels, images.decode_pixels(data, str, reduced(1))[0])

    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_turned_images_are_decoded_whole(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels, size = images.decode_pixels(of_form("4:2:0", exif=exif), str, first(20))
        assert pixels.shape[:2] == size

    @pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
    def test_a_file_that_ends_too_early_is_reported(self, kept):
        data = of_form("4:2:0", 500, 375)
        with pytest.raises(DataError, match=r"cannot decode image 'x'.*(truncated|end of)"):
            images.decode_pixels(data[:int(kept * len(data))], lambda: "x", first(60))

    def test_bytes_after_the_end_are_no_harm(self):
        data = of_form("4:2:0")
        pixels, _ = images.decode_pixels(data + b"more of it", str, first(60))
        assert numpy.array_equal(pixels, images.decode_pixels(data, str, first(60))[0])

    def test_what_lies_below_is_not_looked_at(self):
        """Here the pixels end early; of the whole file, Pillow shows the rest in grey."""
        data = bytearray(of_form("4:2:0", 500, 375))
        place = len(data) * 4 // 5
        data[place:place + 2] = b"\xff\xd9"
        pixels, _ = images.decode_pixels(bytes(data), str, first(60))
        assert len(pixels) == 60
        whole, _ = images.decode_pixels(bytes(data), str, first(360))
        assert len(whole) == 375


class TestCheck:
    @pytest.mark.parametrize("form", [*FORMS, *OTHERS])
    def test_whole_files_are_fine(self, form):
        images.check(of_form(form), str)

    @pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
    def test_other_formats_are_fine(self, format):
        images.check(encode(photograph(), format), str)

    @pytest.mark.parametrize("hole", [64, 512])
    def test_what_is_shown_all_the_same_is_damage(self, hole, caplog, monkeypatch):
        monkeypatch.setattr(images, "_reported", set())
        data = bytearray(of_form("4:2:0", 500, 375))
        place = len(data) // 2
        data[place:place + hole] = bytes(hole)
        for _ in range(2):
            assert images.decode(bytes(data), f"x{hole}").shape == (3, 375, 500)
        (text,) = caplog.messages  # once
        assert re.match(f"image 'x{hole}' is damaged: .*; what can be decoded of it is used", text)
        with pytest.raises(DataError, match="image 'x' is damaged: "):
            images.check(bytes(data), lambda: "x")

    @pytest.mark.parametrize("data", [b"", b"no image", of_form("4:2:0")[:900]])
    def test_bad_files_have_the_errors_of_decode(self, data):
        with pytest.raises(DataError) as caught:
            images.decode(data, "x")
        with pytest.raises(DataError, match=re.escape(caught.value.message)):
            images.check(data, lambda: "x")

    def test_hostile_sizes_are_not_allocated(self):
        data = bytearray(of_form("4:2:0"))
        place = jpeg.read_header(bytes(data)).height_at
        data[place:place + 4] = b"\xff\xff\xff\xff"
        with pytest.raises(DataError, match="65535x65535 is more than"):
            images.check(bytes(data), lambda: "x")


def test_decoder_versions():
    versions = images.decoder_versions()
    assert set(versions) == {"simplejpeg", "Pillow", "resize"}
    assert "libjpeg" in versions["simplejpeg"]
    assert versions["Pillow"] == images.pillow_flavour()


@pytest.mark.parametrize(("version", "flavour"), [
    ("11.0.0", "Pillow 11.0.0"), ("12.1.1.post0", "pillow-simd 12.1.1.post0")])
def test_pillow_flavour(monkeypatch, version, flavour):
    monkeypatch.setattr("PIL.__version__", version)
    assert images.pillow_flavour() == flavour


@pytest.mark.parametrize(("hint", "expected"), [
    ("'--skip-bad-samples' leaves such images out and counts them", "another"),
    ("pip install 'x'; '--skip-bad-samples' leaves such images out and counts them",
     "pip install 'x'; another"),
    ("'--skip-bad-samples' leaves such samples out; 'ipucnn data verify' checks all shards",
     "another"),
    ("check the disk", "check the disk")])
def test_only_the_hint_to_skip_images_is_replaced(hint, expected):
    error = DataError("x", hint)
    images.cannot_skip(error, "another")
    assert error.hint == expected
