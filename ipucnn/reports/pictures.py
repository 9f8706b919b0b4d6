"""Draws images with captions: contact sheets and class activation maps as PNG or JPEG files."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any, List, Sequence, Tuple

from ipucnn.core.names import printable
from ipucnn.reports.page import counted

if TYPE_CHECKING:
    from PIL import Image

    from ipucnn.reports.sheet import Sheet

_SIDE, _GAP, _LINE = 96, 8, 18
_BACK, _INK, _SOFT = (255, 255, 255), (27, 32, 39), (90, 100, 114)
_MISSING = (217, 222, 229)
_LETTERS = 13
"""Size of the letters in pixels."""

_SYSTEM_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf", "NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf",
    "wqy-zenhei.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf", "PingFang.ttc", "arial.ttf",
    "msyh.ttc", "malgun.ttf", "Nirmala.ttf")
"""Fonts of Linux, macOS and Windows for letters that Pillow's own font lacks."""

_ROW = 12
"""Images beside each other."""


def encoded(picture: Image.Image, suffix: str) -> bytes:
    """Return an image as the content of a file with a suffix."""
    content = io.BytesIO()
    if suffix == ".png":
        picture.save(content, "PNG", optimize=True)
    else:
        picture.save(content, "JPEG", quality=90)
    return content.getvalue()


def sheet_picture(sheet: Sheet) -> Image.Image:
    """Return a contact sheet as an image: for each class a line of text and rows of images."""
    from PIL import Image, ImageDraw

    blocks: List[Tuple[str, List[Any]]] = [
        (sheet.title + ": " + ", ".join(f"{name} {value}" for name, value in sheet.summary), []),
        (f"each stored image, then what the network sees ({sheet.prepared})", [])]
    for name, images in sheet.classes.items():
        pixels = [one for shown in images
                  for one in ([None] if shown.problem else (shown.stored, *shown.prepared))]
        blocks.append((f"{name}: {counted(sheet.counts[name])}", pixels))
    others = len(sheet.counts) - len(sheet.classes)
    if others:
        blocks.append((f"and {others:,} other class{'' if others == 1 else 'es'}", []))
    rows = [-(-len(pixels) // _ROW) for _, pixels in blocks]
    height = sum(_LINE + _GAP + lines * (_SIDE + _GAP) for lines in rows) + _GAP
    picture = Image.new("RGB", (_GAP + _ROW * (_SIDE + _GAP), height), _BACK)
    draw, y = ImageDraw.Draw(picture), _GAP
    for (title, pixels), lines in zip(blocks, rows):
        caption(draw, (_GAP, y), title)
        y += _LINE
        for place, one in enumerate(pixels):
            left, top = _GAP + place % _ROW * (_SIDE + _GAP), y + place // _ROW * (_SIDE + _GAP)
            if one is None:
                draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), _MISSING)
                caption(draw, (left + 4, top + _SIDE // 2 - 8), "unreadable", soft=True)
                continue
            small = fitted(one, _SIDE)
            picture.paste(small, (left + (_SIDE - small.width) // 2, top))
        y += lines * (_SIDE + _GAP) + _GAP
    return picture


def fitted(pixels: Any, side: int) -> Image.Image:
    """Return pixels as an image whose longer side has `side` pixels."""
    from PIL import Image

    from ipucnn.data.resize import to_pillow

    picture = to_pillow(pixels)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.BICUBIC)  # type: ignore[attr-defined]


def caption(draw: Any, place: Tuple[int, int], text: str, soft: bool = False,
            room: int = 0) -> None:
    """Write a line of text into an image; its middle is left out if it is longer than `room`."""
    shown = printable(text)
    own = _font("")
    font = next((font for font in map(_font, ("", *_SYSTEM_FONTS))
                 if font is not None and _has_letters(font, shown)), own)
    if not hasattr(font, "path"):  # of Pillow before 10.1: a bitmap font of Latin-1
        shown = shown.encode("latin-1", "replace").decode("latin-1")
    whole, kept = shown, min(len(shown), room)  # no letter is narrower than a pixel
    while room and draw.textlength(shown, font=font) > room:
        kept -= 1  # most of the end remains, as of the path of a file
        shown = f"{whole[:kept // 3]}...{whole[kept // 3 - kept:]}"
    draw.text(place, shown, fill=_SOFT if soft else _INK, font=font)


@lru_cache(maxsize=None)
def _font(name: str) -> Any:
    """Return a font of the system, or None; Pillow's own for an empty name."""
    from PIL import ImageFont

    try:
        if name:
            return ImageFont.truetype(name, _LETTERS)
        return ImageFont.load_default(size=_LETTERS)
    except OSError:
        return None
    except TypeError:
        return ImageFont.load_default()


@lru_cache(maxsize=128)
def _has_letters(font: Any, text: str) -> bool:
    """Return whether a font has all letters of a text."""
    if not hasattr(font, "path"):
        return text.isascii()
    missing = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text))


def side_by_side(columns: Sequence[Tuple[str, str, Any]], side: int = 320) -> Image.Image:
    """Return images beside each other, each with two lines of text below.

    Args:
        columns: the two lines, and uint8 pixels `(height, width, 3)`.
        side: longer side of each image in pixels.
    """
    from PIL import Image, ImageDraw

    pictures = [fitted(pixels, side) for _, _, pixels in columns]
    width = _GAP + len(columns) * (side + _GAP)
    picture = Image.new("RGB", (width, side + 2 * _LINE + 3 * _GAP), _BACK)
    draw = ImageDraw.Draw(picture)
    for place, ((first, second, _), one) in enumerate(zip(columns, pictures)):
        left = _GAP + place * (side + _GAP)
        picture.paste(one, (left + (side - one.width) // 2, _GAP + (side - one.height) // 2))
        caption(draw, (left, side + 2 * _GAP), first, room=side)
        caption(draw, (left, side + 2 * _GAP + _LINE), second, soft=True, room=side)
    return picture
