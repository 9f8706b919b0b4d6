"""Reads JPEG headers and decodes JPEG files.

Reading the few header bytes here costs microseconds, prevents allocation for a malicious size, and
makes orientation independent of the decoder and its version. Pixels are decoded by `simplejpeg`
(libjpeg-turbo), which releases the GIL.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Tuple

if TYPE_CHECKING:
    from ipucnn.data.resize import Pixels

MAGIC = b"\xff\xd8\xff"

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})  # the others are arithmetic or without loss
_SEQUENTIAL = frozenset({0xC0, 0xC1})  # baseline and extended, with Huffman codes
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN = 0xDA
_RESTART_INTERVAL = 0xDD
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_END = frozenset({0xD9, 0xDA})  # end of image, start of the pixels
_APP1 = 0xE1
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112

_DAMAGE = "Corrupt JPEG data: "
"""Prefixes of libjpeg's messages on corrupt pixel data from which it recovers."""

_OTHER_ROWS = "extraneous bytes before marker 0xd9"
"""Suffix of libjpeg's message on extra bytes between the pixels and the end of the file."""


@dataclass(frozen=True)
class Part:
    """The part of an image that a random crop needs.

    Attributes:
        rows: of the whole image, from its top.
        by: largest factor by which height and width may be reduced: 1, 2, 4 or 8.
    """

    rows: int
    by: int = 1


Wanted = Callable[[int, int], Part]
"""Given height and width of an image in pixels, returns the part that is needed."""


class ComplaintError(Exception):
    """A warning or error of libjpeg about a file."""

    @property
    def damage(self) -> str:
        """The message on corrupt pixel data; empty for any other problem."""
        text = str(self)
        return text[len(_DAMAGE):] if text.startswith(_DAMAGE) else ""


@dataclass(frozen=True)
class Header:
    """The header of a JPEG file.

    Attributes:
        width: in pixels, as the file has them.
        height: in pixels, as the file has them.
        channels: per pixel.
        orientation: of EXIF; 1 is upright.
        least_bytes: minimum number of bytes for its pixels.
        height_at: offset of the two bytes of the height in a file that stores its pixels from the
            first row to the last; 0 in all others.
        coefficients: number of values that a decoder stores until the last scan, in progressive
            files; 0 in files with a single scan.
    """

    width: int
    height: int
    channels: int
    orientation: int
    least_bytes: int = 0
    height_at: int = 0
    coefficients: int = 0

    @property
    def turned(self) -> bool:
        """Whether the orientation exchanges height and width."""
        return self.orientation >= 5


def read_header(data: bytes) -> Optional[Header]:
    """Return the header of a JPEG file, or None when it has no valid one.

    Source: ITU-T T.81, annex B (marker segments).
    """
    orientation = 1
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        if marker in _END:
            return None
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4:position + 2 + length]
        if marker in _START_OF_FRAME:
            if len(body) < 6:
                return None
            height, width, channels = struct.unpack_from(">HHB", body, 1)
            scanned, restarts = _first_scan(data, position + 2 + length)
            plain = marker in _SEQUENTIAL and scanned == channels and not restarts
            several = marker in _PROGRESSIVE or 0 < scanned < channels
            blocks = _blocks(width, height, body[6:])
            return Header(width, height, channels, orientation,
                          blocks // 8 if marker in _HUFFMAN else 0,
                          position + 5 if plain else 0, 64 * blocks if several else 0)
        if marker == _APP1 and body.startswith(_EXIF):
            orientation = exif_orientation(body)
        position += 2 + length
    return None


def _blocks(width: int, height: int, components: bytes) -> int:
    """Return the number of blocks of 8x8 values; each has a code of a bit at least."""
    factors = [divmod(factor, 16) for factor in components[1::3]]
    widest = max((h for h, _ in factors), default=0)
    highest = max((v for _, v in factors), default=0)
    if not all(h and v for h, v in factors) or not factors:
        return 0
    return sum(-(-width * h // (8 * widest)) * -(-height * v // (8 * highest))
               for h, v in factors)


def _first_scan(data: bytes, position: int) -> Tuple[int, bool]:
    """Return the channels of the first scan after `position`, and whether it may have restarts.

    Without a scan there are 0 channels.
    """
    restarts = False
    while position + 5 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            return data[position + 4], restarts
        restarts = restarts or marker == _RESTART_INTERVAL
        position += 2 + int.from_bytes(data[position + 2:position + 4], "big")
    return 0, restarts


def shortened(data: bytes, header: Header, rows: int) -> bytearray:
    """Return the file with its height in the header set to `rows`; `height_at` must be known."""
    short = bytearray(data)
    short[header.height_at:header.height_at + 2] = rows.to_bytes(2, "big")
    return short


def decode(data: bytes, header: Header, wanted: Optional[Wanted] = None,
           ) -> Tuple[Pixels, Tuple[int, int]]:
    """Return the upright pixels of an RGB or grey file, or a part of them, and the full size.

    Args:
        data: the whole file.
        header: its header.
        wanted: the part that is needed; colours are then upsampled without interpolation.

    Returns:
        uint8 `(height, width, 3)`, and height and width of the whole image.

    Raises:
        ComplaintError: libjpeg reports a problem.
    """
    import simplejpeg

    height, width = header.height, header.width
    size = (width, height) if header.turned else (height, width)
    part = wanted(*size) if wanted else Part(size[0])
    if part.rows < height and header.height_at and header.orientation == 1:
        pixels = _first_rows(data, header, part)
        if pixels is not None:
            return pixels, size
    try:
        # simplejpeg picks the smallest scaled size not below the minimum, which is this one
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", fastupsample=wanted is not None,
            min_height=-(-height // part.by) if part.by > 1 else 0,
            min_width=-(-width // part.by) if part.by > 1 else 0)
    except ValueError as error:
        raise ComplaintError(str(error)) from None
    return upright(pixels, header.orientation), size


def _first_rows(data: bytes, header: Header, part: Part) -> Optional[Pixels]:
    """Return the wanted rows; None on any error except trailing data.

    The decoder reads a header with a smaller height. It decodes the same pixels as in the whole
    image, reports the remaining rows as extraneous bytes, and skips them.
    Of several problems libjpeg reports the first.
    """
    import numpy
    import simplejpeg

    height, width = -(-part.rows // part.by), -(-header.width // part.by)
    pixels = numpy.empty((height, width, 3), dtype=numpy.uint8)
    try:
        simplejpeg.decode_jpeg(
            shortened(data, header, part.rows), "RGB", fastupsample=True, buffer=pixels,
            min_height=height if part.by > 1 else 0, min_width=width if part.by > 1 else 0)
    except ValueError as error:
        if not str(error).endswith(_OTHER_ROWS):
            return None
    return pixels


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1 when it states none or is damaged."""
    return stated_orientation(exif) or 1


def stated_orientation(exif: bytes) -> Optional[int]:
    """Return the orientation in EXIF data, 1 to 8, or None if there is none.

    Source: Exif 2.32 (CIPA DC-008), 4.6.4 A: tag 0x0112 of the first directory.
    """
    tiff = exif[len(_EXIF):] if exif.startswith(_EXIF) else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION:
                value = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)[0]
                return int(value) if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate and mirror pixels according to an EXIF orientation."""
    import numpy

    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flipped: Tuple[int, ...] = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(
        orientation, ())
    # an image that is one pixel wide is contiguous even when flipped, which torch does not support
    return numpy.flip(pixels, flipped).copy() if flipped else numpy.ascontiguousarray(pixels)
