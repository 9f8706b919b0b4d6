"""The predictions of a run in the columns of a terminal."""

from types import SimpleNamespace

import pytest

from ipucnn.terminal.layout import cells
from ipucnn.terminal.run_tables import answers


def row(path, name, probability, **others):
    return {"path": path, "class": 0, "name": name, "probability": probability, **others}


def result(rows, classes, images):
    return SimpleNamespace(answers=rows, classes=classes, images=images)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


def test_files_names_probabilities_and_verdicts():
    text = answers(result(
        [row("photos/cat/1.jpg", "cat", 0.975, label_name="cat", correct=True),
         row("photos/dog/2.jpg", "cat", 0.5, label_name="dog", correct=False),
         row("photos/eel/3.jpg", "dog", None, label_name=None, correct=None),
         row("photos/4.jpg", "cat", 0.5, label_name="", correct=False)],
        [{"class": 0, "name": "cat", "images": 1200, "correct": 7},
         {"class": 1, "name": "dog", "images": 1, "correct": 0}], 1201), 80)
    assert text == """\
the first 4 of 1,201 images
file              class  probability
photos/cat/1.jpg  cat         97.5 %  right
photos/dog/2.jpg  cat         50.0 %  wrong: dog
photos/eel/3.jpg  dog
photos/4.jpg      cat         50.0 %  wrong

predicted class  images  right
cat               1,200      7
dog                   1      0"""


@pytest.mark.parametrize("width", [80, 200])
def test_long_names_fit_the_terminal(width):
    long = "holidays/" * 30 + "\x1b[31mIMG.jpg"
    text = answers(result(
        [row(long, "a class with a very long name " * 9, 0.1, label_name="写真" * 40,
             correct=False)] * 2,
        [{"class": number, "name": "x" * 300, "images": 1, "correct": 1}
         for number in range(12)], 12), width)
    lines = text.split("\n")
    assert max(map(cells, lines)) <= width
    assert cells(lines[2]) > width - 3
    assert "\x1b" not in text
    assert "1mIMG.jpg" in lines[2]
    assert lines[-1] == "and 2 other classes"


def test_images_without_labels_have_no_verdict():
    text = answers(result([row("a.jpg", "cat", 1.0)], [
        {"class": 0, "name": "cat", "images": 1}], 1), 80)
    assert text == "file   class  probability\na.jpg  cat        100.0 %"


@pytest.mark.parametrize("width", [32, 40])
def test_narrow_terminals_have_several_lines_per_image(width):
    text = answers(result(
        [row("photographs/golden_retriever/1.jpg", "golden retriever", 0.975, label_name="cat",
             correct=False)] * 2, [{"class": 0, "name": "golden retriever", "images": 2,
                                    "correct": 0}], 2), width)
    assert max(map(cells, text.split("\n"))) <= width
    assert ("97.5 %  wrong: cat" in text) is (width == 40)
    assert "wrong: cat" in text
