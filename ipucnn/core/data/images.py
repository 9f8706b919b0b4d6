"""From the bytes of an image file to the pixels a model takes, in uint8 all the way.

JPEG goes through `torchvision.io` (libjpeg-turbo); everything it does not read goes through Pillow.
Importing this module is light: torch, torchvision and Pillow come with the first image.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

from ipucnn.core.data import jpeg
from ipucnn.core.errors import DataError

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_PIXELS = 178_956_970
"""The largest image that is decoded, in pixels: half a gigabyte as RGB. It is the size from which
Pillow, too, takes a file for a decompression bomb."""

# Named one by one, because some other formats of Pillow start programs (EPS runs Ghostscript).
_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "PPM", "TIFF")

_UNCHANGED = 0  # torchvision.io.ImageReadMode.UNCHANGED: the channels that the file has

# Resizing to the shorter side would make a band of an image longer than this; see `eval_transform`.
_LONGEST_RATIO = 8

_SKIP_HINT = "'--skip-bad-samples' leaves such images out and counts them"


def read_image(path: str) -> torch.Tensor:
    """Return the image in a file: RGB, uint8, `(3, height, width)`, as `decode` does.

    Raises:
        DataError: the file cannot be read or is not an image; the message names it.
    """
    return decode(read_file(path), path)


def read_file(path: str) -> bytes:
    """Return the content of an image's file.

    Raises:
        DataError: it cannot be read; the message names it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise DataError(f"image {path!r} is not a file", _SKIP_HINT)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        if isinstance(error, FileNotFoundError) and os.path.islink(path):
            cause = f"it is a link to {os.readlink(path)!r}, which does not exist"
        raise DataError(f"cannot read image {path!r}: {cause}", _SKIP_HINT) from error


def decode(data: bytes, name: str) -> torch.Tensor:
    """Return an encoded image as RGB pixels.

    What is in the file decides, not its suffix. Grey is repeated over the channels, CMYK converted,
    16-bit samples reduced to their high byte, transparent parts laid on white as a viewer would
    show them, the first frame of an animation taken, and an EXIF orientation applied.

    Args:
        data: the whole file: JPEG, PNG, WebP, GIF, BMP, PNM or TIFF.
        name: what the error message calls it.

    Returns:
        uint8, `(3, height, width)`.

    Raises:
        DataError: it is empty, truncated, damaged, not an image, or larger than `MAX_PIXELS`.
    """
    if not data:
        raise DataError(f"image {name!r} is empty", _SKIP_HINT)
    try:
        image = _decode_jpeg(data) if data.startswith(jpeg.MAGIC) else None
        return _decode_with_pillow(data) if image is None else image
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise DataError(f"cannot decode image {name!r}: {_cause(error)}", _SKIP_HINT) from error


def eval_transform(image: torch.Tensor, input_size: int) -> torch.Tensor:
    """Return the middle of an image at a model's input size.

    The shorter side becomes `input_size * 256 / 224` pixels (bilinear, antialiased), then the
    central square is cut out: the usual evaluation of ImageNet models, for every input size.

    Args:
        image: uint8, `(3, height, width)`, any size.
        input_size: pixels.

    Returns:
        uint8, `(3, input_size, input_size)`.
    """
    short = input_size * 256 // 224
    height, width = image.shape[-2:]
    if _native_resize() and max(height, width) <= _LONGEST_RATIO * min(height, width):
        from torchvision.transforms.v2 import functional

        resized = functional.resize(image, [short], antialias=True)
        result: torch.Tensor = functional.center_crop(resized, [input_size, input_size])
        return result
    return _resize_with_pillow(image, short, input_size)


def resized_crop(image: torch.Tensor, top: int, left: int, height: int, width: int,
                 size: int) -> torch.Tensor:
    """Return a part of an image at another size (bilinear, antialiased).

    Args:
        image: uint8, `(3, height, width)`.
        top: first row of the part, in pixels.
        left: its first column.
        height: its rows.
        width: its columns.
        size: height and width of the result, in pixels.

    Returns:
        uint8, `(3, size, size)`.
    """
    part = image[:, top:top + height, left:left + width]
    if _native_resize():
        from torchvision.transforms.v2 import functional

        result: torch.Tensor = functional.resize(part, [size, size], antialias=True)
        return result
    return _pillow_crop(part, (0, 0, width, height), size)


def decoder_versions() -> Dict[str, str]:
    """Return what decodes and resizes images in this environment; imports torchvision."""
    import torch
    import torchvision

    if _jpeg_decoder() is None:
        decoder = "does not decode JPEG here, Pillow does"
    else:
        asks_turbo = getattr(torch.ops.image, "_is_compiled_against_turbo", None)
        decoder = ("libjpeg (this version does not say whether it is libjpeg-turbo)"
                   if asks_turbo is None else "libjpeg-turbo" if asks_turbo() else "libjpeg")
    return {
        "torchvision.io": f"{torchvision.__version__}, {decoder}",
        "Pillow": pillow_flavour(),
        "resize": "torch, native uint8" if _native_resize() else pillow_flavour(),
    }


def pillow_flavour() -> str:
    """Return which Pillow is installed and its version, without importing torch."""
    import PIL

    # pillow-simd numbers its releases as those of Pillow with ".postN"
    name = "pillow-simd" if ".post" in PIL.__version__ else "Pillow"
    return f"{name} {PIL.__version__}"


def _decode_jpeg(data: bytes) -> Optional[torch.Tensor]:
    """Decode through `torchvision.io`; None leaves it to Pillow to decode or to say what is bad."""
    import torch

    header = jpeg.read_header(data)
    decoder = _jpeg_decoder()
    if decoder is None or header is None or header.channels not in (1, 3):
        return None
    _check_size(header.width, header.height)
    try:
        image = decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8), _UNCHANGED)
    except RuntimeError:
        return None
    if image.shape[0] == 1:
        image = image.expand(3, -1, -1).contiguous()
    return _upright(image, header.orientation)


@lru_cache(maxsize=None)
def _jpeg_decoder() -> Optional[Callable[[torch.Tensor, int], torch.Tensor]]:
    """Return torchvision's decoder of JPEG bytes, or None where it is not built in.

    It is the operator behind `torchvision.io.decode_jpeg`, which warns with every call since
    torchvision 0.29 because decoding is to move to another package.
    """
    import torch
    import torchvision.io  # noqa: F401 - registers the operator

    return getattr(torch.ops.image, "decode_jpeg", None)


def _silence_pillow() -> None:
    """Keep Pillow's remarks on odd metadata from being printed into the middle of a run.

    What makes an image unusable is raised, not warned of. The rule stays, for
    `warnings.catch_warnings` is not for threads.
    """
    pillow = re.compile(r"PIL\.")
    if not any(rule[3] == pillow for rule in warnings.filters):
        warnings.filterwarnings("ignore", module=pillow.pattern)


def _decode_with_pillow(data: bytes) -> torch.Tensor:
    from PIL import Image

    _silence_pillow()
    with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as opened:
        _check_size(*opened.size)
        opened.load()
        orientation = jpeg.exif_orientation(opened.info.get("exif", b""))
        pixels = from_pillow(_as_rgb(opened))
    return _upright(pixels, orientation)


def _as_rgb(image: Image.Image) -> Image.Image:
    import numpy
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        pixels: Any = numpy.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("its 32-bit pixels have no defined white")
        # Pillow's own conversion clips at 255 instead
        return Image.fromarray((pixels >> 8).astype(numpy.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """Turn and mirror `(3, h, w)` pixels as an EXIF orientation says."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    flipped: Tuple[int, ...] = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(
        orientation, ())
    return image.flip(flipped) if flipped else image


def _resize_with_pillow(image: torch.Tensor, short: int, input_size: int) -> torch.Tensor:
    """Resize and crop in one: only the pixels of the crop are computed, whatever the shape."""
    height, width = image.shape[-2:]
    shorter = min(height, width)

    def side(length: int) -> Tuple[float, float]:
        """Where the crop begins and ends on a side, in pixels of the source."""
        resized = short * length // shorter
        start = round((resized - input_size) / 2)
        return start * length / resized, min((start + input_size) * length / resized, length)

    (left, right), (top, bottom) = side(width), side(height)
    return _pillow_crop(image, (left, top, right, bottom), input_size)


def _pillow_crop(image: torch.Tensor, box: Tuple[float, float, float, float],
                 size: int) -> torch.Tensor:
    """Return the part of an image in `box` (left, top, right, bottom) as `size` x `size` pixels."""
    from PIL import Image

    # antialiased; `Image.Resampling` is missing from the pillow-simd that many have
    bilinear = Image.BILINEAR  # type: ignore[attr-defined]
    return from_pillow(to_pillow(image).resize((size, size), bilinear, box=box))


def to_pillow(image: torch.Tensor) -> Image.Image:
    """Return uint8 `(3, height, width)` pixels as an image of Pillow."""
    import numpy
    from PIL import Image

    return Image.fromarray(numpy.ascontiguousarray(image.permute(1, 2, 0).numpy()))


def from_pillow(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an RGB image of Pillow, uint8 `(3, height, width)`."""
    import numpy
    import torch

    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)


@lru_cache(maxsize=None)
def _native_resize() -> bool:
    """Whether torch resizes uint8 images without going through float (torchvision 0.16)."""
    import torchvision

    major, minor = torchvision.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (0, 16)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} is more than {MAX_PIXELS:,} pixels")


def _cause(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its own text shows a memory address
        return "it is not an image, or not of a known format"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def resize(image: torch.Tensor, short: int) -> torch.Tensor:
    """Return an image whose shorter side has `short` pixels (bilinear, antialiased).

    Args:
        image: uint8, `(3, height, width)`.
        short: pixels; the longer side is cut to a whole number.
    """
    height, width = image.shape[-2:]
    if _native_resize():
        from torchvision.transforms.v2 import functional

        result: torch.Tensor = functional.resize(image, [short], antialias=True)
        return result
    shorter = min(height, width)
    from PIL import Image

    bilinear = Image.BILINEAR  # type: ignore[attr-defined]
    return from_pillow(to_pillow(image).resize(
        (short * width // shorter, short * height // shorter), bilinear))


def center_crop(image: torch.Tensor, size: int) -> torch.Tensor:
    """Return the central square of an image; where the image ends before it does, it is black.

    Args:
        image: uint8, `(3, height, width)`.
        size: height and width of the result, in pixels.
    """
    from torchvision.transforms.functional import center_crop as crop

    result: torch.Tensor = crop(image, [size, size])
    return result


def encode_jpeg(image: torch.Tensor, quality: int) -> bytes:
    """Return uint8 `(3, height, width)` pixels as a JPEG file of a quality, 1 to 100."""
    content = io.BytesIO()
    to_pillow(image).save(content, "JPEG", quality=quality)
    return content.getvalue()


_SIGNATURES = ((jpeg.MAGIC, "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"),
               (b"II*\0", "tif"), (b"MM\0*", "tif"), (b"BM", "bmp"))


def suffix_of(data: bytes) -> Optional[str]:
    """Return the suffix, without a dot, that suits the content of an image's file.

    None where its first bytes are those of no format that `decode` reads.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if re.match(rb"P[1-6]\s", data):
        return "ppm"
    return next((suffix for start, suffix in _SIGNATURES if data.startswith(start)), None)
