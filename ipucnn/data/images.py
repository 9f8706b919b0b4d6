"""Decodes image files to uint8 pixels.

Module `jpeg` decodes JPEG files; Pillow decodes everything else. Importing this module is cheap:
torch and the decoders are imported with the first image.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Set, Tuple

from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.data import image_formats, jpeg, png
from ipucnn.data.jpeg import Wanted
from ipucnn.data.resize import Pixels, native_resize

if TYPE_CHECKING:
    import torch
    from PIL import Image

log = logging.getLogger("ipucnn.images")

MAX_PIXELS = 178_956_970
"""The largest image that is decoded, in pixels: half a gigabyte as RGB. Pillow, too, treats larger
files as decompression bombs. The limit of progressive JPEG files is a half to a third of this,
because their decoder stores two bytes per coefficient until the end."""

MAX_BYTES = 1 << 29
"""The largest file of an image that is read."""

_NOT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_PHOTOMETRIC = 262  # the tag of a TIFF file: what its samples mean

_MAX_REPORTED = 100
_reported: Set[str] = set()
"""Warnings already issued for damaged images, so that epochs do not repeat them."""

_SKIP_HINT = "'--skip-bad-samples' leaves such images out and counts them"


def cannot_skip(error: IpucnnError, instead: str = "'ipucnn data verify' finds all bad images: "
                "repair or remove them") -> None:
    """Replace the hint to skip bad images in an error, for a job that cannot skip them."""
    if "--skip-bad-samples" in error.hint:
        others = [hint for hint in error.hint.split("; ")
                  if "--skip-bad-samples" not in hint and "'ipucnn data verify'" not in hint]
        error.hint = "; ".join([*others, instead])


def read_file(path: str) -> bytes:
    """Return the content of an image file.

    Raises:
        DataError: it cannot be read; the message names it.
    """
    try:
        # opening a pipe would block until something writes to it
        file = os.open(path, os.O_RDONLY | _NOT_WAITING)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"image {path!r} is not a file", _SKIP_HINT)
            if status.st_size > MAX_BYTES:
                raise DataError(f"image {path!r} is larger than {MAX_BYTES:,} bytes", _SKIP_HINT)
            return _all_of(file, status.st_size)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:  # a name can contain a null character
        cause = (getattr(error, "strerror", "") or str(error)).lower()
        if isinstance(error, FileNotFoundError) and os.path.islink(path):
            cause = f"it is a link to {os.readlink(path)!r}, which does not exist"
        raise DataError(f"cannot read image {path!r}: {cause}", _SKIP_HINT) from error


def _all_of(file: int, size: int) -> bytes:
    """Return the content of an open file; file systems of other machines may return it in parts."""
    content = os.read(file, size)
    while content and len(content) < size:
        part = os.read(file, size - len(content))
        if not part:
            break
        content += part
    return content


def decode(data: bytes, name: str) -> torch.Tensor:
    """Return an encoded image as RGB pixels.

    The format is detected from the content, not the suffix. Grey is repeated over the channels,
    CMYK converted, 16-bit samples reduced to their high byte, transparency composited on white as
    a viewer does, the first frame of an animation used, and the EXIF orientation applied. Damage
    from which libjpeg recovers is reported as a warning.

    Args:
        data: the whole file: JPEG, PNG, WebP, GIF, BMP, PNM or TIFF.
        name: of the image, for error messages.

    Returns:
        uint8, `(3, height, width)`.

    Raises:
        DataError: it is empty, truncated, not an image, damaged beyond decoding, or larger than
            179 million pixels.
    """
    import torch

    return torch.from_numpy(decode_pixels(data, lambda: name)[0]).permute(2, 0, 1)


def decode_pixels(data: bytes, name: Callable[[], str], wanted: Optional[Wanted] = None,
                  ) -> Tuple[Pixels, Tuple[int, int]]:
    """Return an encoded image as an array, or only the part that a random crop needs.

    With `wanted`, a JPEG file is decoded only as far as the crop requires: not below the last row
    that is needed, directly to a half, a quarter or an eighth of its size (its blocks are
    transformed to fewer pixels), and with colours that are repeated, not interpolated, over
    neighbouring pixels. Damage below that row may then go unnoticed; a truncated file does not.

    Args:
        data: as in `decode`.
        name: returns the name of the image for error messages.
        wanted: returns the part that is needed.

    Returns:
        uint8 `(height, width, 3)`, at least the wanted part, and height and width of the whole
        image.

    Raises:
        DataError: as in `decode`.
    """
    pixels, size, damage = _decoded(data, name, wanted)
    if damage:
        _tell_once(f"image {name()!r} is damaged: {damage}; what can be decoded of it is used")
    return pixels, size


def decode_whole(data: bytes, name: Callable[[], str], wanted: Optional[Wanted] = None,
                 ) -> Optional[Tuple[Pixels, Tuple[int, int]]]:
    """Decode strictly, for a cache; None if libjpeg reports a problem with the file.

    Args:
        data: as in `decode`.
        name: as in `decode_pixels`.
        wanted: as in `decode_pixels`.

    Raises:
        DataError: as in `decode`.
    """
    pixels, size, damage = _decoded(data, name, wanted, strict=True)
    return None if damage else (pixels, size)


def check(data: bytes, name: Callable[[], str]) -> None:
    """Decode a whole image strictly: damage from which `decode` recovers is an error here.

    Raises:
        DataError: as in `decode`; or libjpeg found corrupt pixel data in a JPEG file.
    """
    damage = _decoded(data, name, None)[2]
    if damage:
        raise DataError(f"image {name()!r} is damaged: {damage}", _SKIP_HINT)


def decoder_versions() -> Dict[str, str]:
    """Return names and versions of the image decoders and resizers; imports torchvision."""
    import simplejpeg

    return {
        "simplejpeg": f"{simplejpeg.__version__}, libjpeg-turbo",
        "Pillow": pillow_flavour(),
        "resize": "torch, native uint8" if native_resize() else pillow_flavour(),
    }


def pillow_flavour() -> str:
    """Return the installed variant of Pillow and its version, without importing torch."""
    import PIL

    # pillow-simd numbers its releases as those of Pillow with ".postN"
    name = "pillow-simd" if ".post" in PIL.__version__ else "Pillow"
    return f"{name} {PIL.__version__}"


def _decoded(data: bytes, name: Callable[[], str], wanted: Optional[Wanted],
             strict: bool = False) -> Tuple[Pixels, Tuple[int, int], str]:
    """Return pixels, size, and a description of recovered damage; if strict, of any problem."""
    if not data:
        raise DataError(f"image {name()!r} is empty", _SKIP_HINT)
    damage = ""
    try:
        if data.startswith(jpeg.MAGIC):
            try:
                found = _decode_jpeg(data, wanted)
                if found is not None:
                    return (*found, "")
            except jpeg.ComplaintError as error:
                damage = error.damage or (str(error) if strict else "")
        pixels = _decode_with_pillow(data, name)
    except Exception as error:  # Pillow raises almost any exception on a damaged file
        unread = image_formats.unread_format(data)
        if unread:
            raise DataError(f"image {name()!r} is of format {unread}, which no installed decoder "
                            "reads", f"{image_formats.EXTRA}; {_SKIP_HINT}") from error
        raise DataError(f"cannot decode image {name()!r}: {first_line(error)}",
                        _SKIP_HINT) from error
    return pixels, (pixels.shape[0], pixels.shape[1]), damage


def _tell_once(text: str) -> None:
    if text not in _reported and len(_reported) < _MAX_REPORTED:
        _reported.add(text)
        log.warning("%s", text)


def _decode_jpeg(data: bytes, wanted: Optional[Wanted],
                 ) -> Optional[Tuple[Pixels, Tuple[int, int]]]:
    """Return pixels and size of a JPEG file; None leaves it to Pillow."""
    header = jpeg.read_header(data)
    if header is None:
        return None
    area = max(1, header.width * header.height)
    # in addition to 3 bytes per pixel
    _check_size(header.width, header.height,
                3 * MAX_PIXELS * area // (3 * area + 2 * header.coefficients))
    if len(data) < header.least_bytes:  # decoders would fill missing pixels
        raise ValueError(f"it is truncated: {len(data):,} bytes cannot hold {header.width}x"
                         f"{header.height} pixels")
    if header.channels not in (1, 3):
        return None
    return jpeg.decode(data, header, wanted)


def _silence_pillow() -> None:
    """Suppress Pillow's warnings about unusual metadata.

    Anything that makes an image unusable is raised as an error. The filter is permanent because
    `warnings.catch_warnings` is not thread-safe.
    """
    pillow = re.compile(r"PIL\.")
    if not any(rule[3] == pillow for rule in warnings.filters):
        warnings.filterwarnings("ignore", module=pillow.pattern)


def _decode_with_pillow(data: bytes, name: Callable[[], str]) -> Pixels:
    from PIL import Image

    _silence_pillow()
    formats = image_formats.formats_of(data, name)
    with Image.open(io.BytesIO(data), formats=formats) as opened:
        # the decoder of JPEG 2000 takes four times the memory
        _check_size(*opened.size, MAX_PIXELS // (4 if opened.format == "JPEG2000" else 1))
        return pixels_of(opened)


def pixels_of(image: Image.Image) -> Pixels:
    """Return an image of Pillow as RGB pixels, uint8 `(height, width, 3)`; see `decode`.

    Raises:
        Exception: it cannot be decoded, for which Pillow raises almost any, or it is of a mode
            without a defined white.
    """
    import numpy

    png.scale_transparency(image)
    image.load()
    return jpeg.upright(numpy.array(_as_rgb(image)), png.orientation(image))


def _as_rgb(image: Image.Image) -> Image.Image:
    import numpy
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        pixels: Any = numpy.asarray(image)
        # in a TIFF file, 16-bit pixels have a mode of their own; a program may convert to this one
        byte = image.format in ("TIFF", None) and image.mode == "I" and 0 < pixels.max() < 256
        if image.mode == "F" or byte or pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("its 32-bit pixels have no defined white")
        # Pillow's own conversion clips at 255 instead
        grey = (pixels >> 8).astype(numpy.uint8)
        if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
            grey = 255 - grey  # white is zero, which Pillow obeys up to 8 bits only
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[pixels == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise ValueError(f"{width}x{height} is more than {most:,} pixels")


def first_line(error: Exception) -> str:
    """Return the first line of an error of Pillow, or its type."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its message contains a memory address
        return "it is not an image, or not of a known format"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
