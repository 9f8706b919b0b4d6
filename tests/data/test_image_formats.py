"""Formats that Pillow or its plugins read, in files and in commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image, features

from ipucnn.core.errors import DataError
from ipucnn.data.image_files import list_images
from ipucnn.data.images import decode, read_file

HEIC = bytes.fromhex("0000001c6674797068656963000000006d6966316865696368657663")


def has(feature):
    return (feature in features.modules or feature in features.codecs) and features.check(feature)


@pytest.mark.parametrize(("kind", "suffix"), [
    ("TGA", ".tga"), ("ICO", ".ico"),
    pytest.param("JPEG2000", ".jp2", marks=pytest.mark.skipif(
        not has("jpg_2000"), reason="Pillow without JPEG 2000")),
    pytest.param("AVIF", ".avif", marks=pytest.mark.skipif(
        not has("avif"), reason="Pillow without AVIF"))])
def test_formats_of_pillow(tmp_path, kind, suffix):
    path = str(tmp_path / f"a{suffix.upper()}")
    Image.new("RGB", (32, 32), (250, 30, 10)).save(path, kind)
    assert list_images(str(tmp_path)) == [path]
    image = decode(read_file(path), path)
    assert image.shape == (3, 32, 32)
    assert all(abs(int(value) - wanted) < 6
               for value, wanted in zip(image[:, 9, 9], (250, 30, 10)))


def test_a_format_without_signature_is_read_by_its_name_only(tmp_path):
    Image.new("RGB", (9, 7)).save(str(tmp_path / "a.tga"), "TGA")
    data = (tmp_path / "a.tga").read_bytes()
    assert data[-18:-2] == b"TRUEVISION-XFILE"
    assert decode(data, "a.jpg").shape == (3, 7, 9)
    old = data[:-26]  # version 1 has no footer
    assert decode(old, "a.tga").shape == (3, 7, 9)
    with pytest.raises(DataError, match="not an image, or not of a known format"):
        decode(old, "a.jpg")


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    path = str(tmp_path / "IMG_0001.HEIC")
    Image.new("RGB", (64, 64), (250, 30, 10)).save(path, "HEIF")
    assert list_images(str(tmp_path)) == [path]
    assert decode(read_file(path), path)[0].float().mean() > 240


def without_heif(code, folder):
    """Run a program on `folder` in which pillow-heif cannot be imported."""
    hidden = "import sys; sys.modules['pillow_heif'] = None; "
    return subprocess.run([sys.executable, "-c", hidden + code, str(folder)], text=True,
                          capture_output=True, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}).stdout


def test_a_missing_decoder_is_named(tmp_path):
    (tmp_path / "IMG_0001.HEIC").write_bytes(HEIC)
    (tmp_path / "photo").write_bytes(HEIC)
    output = without_heif("""
from ipucnn.core.errors import DataError
from ipucnn.data.images import decode
from ipucnn import load_dataset
for attempt in (lambda: load_dataset("real", sys.argv[1]), lambda: decode(
        open(sys.argv[1] + "/photo", "rb").read(), "photo.jpg")):
    try:
        attempt()
    except DataError as error:
        print(error.message, error.hint, sep="\\n")
""", tmp_path).splitlines()
    assert output[0].endswith("but 2 images of formats that no installed decoder reads")
    assert output[1].startswith("pip install 'ipucnn[formats]'")
    assert output[2] == "image 'photo.jpg' is of format HEIF, which no installed decoder reads"
    assert output[3].startswith("pip install 'ipucnn[formats]'")
