"""Images with captions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ipucnn.reports.pictures import caption, encoded, sheet_picture, side_by_side
from ipucnn.reports.sheet import Sheet, Shown


def drawn(text):
    picture = Image.new("RGB", (200, 24), "white")
    caption(ImageDraw.Draw(picture), (4, 4), text)
    return np.asarray(picture)


def test_captions_are_legible():
    assert (drawn("cat") != 255).any()
    assert (drawn("cat") != drawn("cot")).any()
    assert (drawn("na\u00efve") != drawn("naive")).any()


def test_other_alphabets_are_drawn_with_a_font_of_the_system():
    try:
        ImageFont.truetype("DejaVuSans.ttf", 13)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    # letters that a font lacks are all drawn as the same box
    cat, mouse = "\u043a\u043e\u0448\u043a\u0430", "\u043c\u044b\u0448\u043a\u0430"
    assert (drawn(cat) != drawn(mouse)).any()


def test_letters_that_no_font_has_are_drawn_as_boxes():
    assert (drawn("a \ue123") == drawn("a \ue124")).all()
    assert (drawn("a \ue123") != drawn("a")).any()


def test_captions_of_images_side_by_side_do_not_meet():
    black = np.zeros((32, 32, 3), np.uint8)
    for text in ("W" * 60, "a name of a class with some words, and more of them"):
        drawn = np.asarray(side_by_side([(text, text, black)] * 2))
        assert (drawn[336:, 328:336] == 255).all()
        assert (drawn[336:, 300:328] != 255).any()


def test_a_sheet_of_very_many_classes_is_no_larger_than_its_images():
    shown = Shown("a.jpg", np.zeros((8, 8, 3), np.uint8), [])
    sheet = Sheet("photos", [], {str(number): 1 for number in range(3000)}, {"0": [shown]}, "", [])
    assert Image.open(io.BytesIO(encoded(sheet_picture(sheet), ".jpg"))).height < 400
