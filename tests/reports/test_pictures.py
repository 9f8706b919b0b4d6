"""Images with captions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ipucnn.reports.pictures import caption


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
