"""Pages in a real browser: they render, load nothing, and can be used with keys alone."""

from __future__ import annotations

import io
import json
import os

import numpy
import pytest
from made_runs import HOSTILE, training
from PIL import Image

from ipucnn.reports.contact_sheet import write_sheet
from ipucnn.reports.job import report
from ipucnn.reports.sheet import Sheet, Shown

pytest.importorskip("websocket", reason="websocket-client is not installed")
from browser import Browser, program

pytestmark = pytest.mark.skipif(program() is None, reason="Chromium is not installed")

SHOTS = os.environ.get("IPUCNN_SCREENSHOTS")
"""Folder for the screenshots, to be looked at."""

TEXTS = "[...document.querySelectorAll('{} tbody tr')].map(row => row.cells[{}].textContent.trim())"
BROKEN = ("[...document.querySelectorAll('.facts .word')].map(word => [word.textContent, "
          "word.offsetHeight]).filter(([text, height]) => text.length < 20 && height > 30)")
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


def look(browser, name):
    """Return the pixels of the screen; a page that is not drawn has few colours."""
    content = browser.screenshot()
    if SHOTS:
        with open(os.path.join(SHOTS, f"{name}.png"), "wb") as file:
            file.write(content)
    return numpy.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_report_is_drawn_at_every_width_in_light_and_dark(browser, tmp_path):
    pages = {"training": report([str(training(tmp_path / "one"))]),
             "compared": report([str(training(tmp_path / "a")), str(training(
                 tmp_path / "b", lr=0.2))], str(tmp_path / "compared.html"))}
    for name, page in pages.items():
        for width, dark in ((1280, name == "compared"), (390, name == "training")):
            browser.open(page, width, dark)
            assert browser.complaints() == []
            assert not browser.run(WIDER), "the page scrolls sideways"
            assert browser.run(BROKEN) == [], "a short word of the command is broken"
            tops = "new Set([...document.querySelectorAll('.tiles li')].map(one => one.offsetTop))"
            assert width > 390 or name == "compared" or browser.run(f"{tops}.size") <= 4
            pixels = look(browser, f"{name}-{width}-{'dark' if dark else 'light'}")
            assert (pixels[0, 0].mean() < 60) == dark
            assert len(numpy.unique(pixels.astype(int) @ (1, 256, 65536))) > 50
        assert browser.run("document.querySelectorAll('.plot svg path.line').length") >= 8
        assert browser.run("[...document.images].every(one => one.naturalWidth > 0)")
        assert browser.run("document.scripts.length") == 1  # that of the page: no name became one


def test_tables_and_curves_are_used_with_keys(browser, tmp_path):
    page = report([str(training(tmp_path / name, lr=lr)) for name, lr in (
        ("b", 0.2), ("a", 0.1), ("c", 0.3))], str(tmp_path / "three.html"))
    browser.open(page)
    names = TEXTS.format("#runs", 0)
    assert browser.run(names) == ["b", "a", "c"]
    browser.run("document.querySelector('#runs th button').focus()")
    browser.press("Enter", 13)
    assert browser.run(names) == ["a", "b", "c"]
    browser.press("Enter", 13)
    assert browser.run(names) == ["c", "b", "a"]
    assert browser.run("document.querySelector('#runs th').getAttribute('aria-sort')") \
        == "descending"
    recall = TEXTS.format("#classes-1", 3)
    browser.run("document.querySelectorAll('#classes-1 th button')[3].click()")
    found = [float(value) for value in browser.run(recall)]
    assert found == sorted(found, reverse=True)
    assert len(found) == 3
    # a curve shows its values at the epoch selected with the arrow keys
    browser.run("document.querySelector('.plot').focus()")
    at = "document.querySelector('.plot').parentElement.querySelector('.values-at').textContent"
    assert browser.run(at).startswith("epoch 5: b: training 0.5")
    browser.press("ArrowLeft", 37)
    assert browser.run(at).startswith("epoch 4: b: training 0.6, b: validation 0.7")
    # only the options that differ, or all
    visible = "[...document.querySelectorAll('#options tbody tr')].filter(" \
              "row => row.offsetParent).map(row => row.cells[0].textContent)"
    assert browser.run(visible) == ["lr"]
    browser.run("document.querySelector('[data-differs=options]').focus()")
    browser.press(" ", 32)
    assert browser.run(visible) == ["lr", "data_dir", "epoch"]
    # what the Tab key reaches, in order of the page
    assert browser.run("[...document.querySelectorAll('button, summary, input, [tabindex]')]"
                       ".every(one => one.tabIndex === 0)")
    assert browser.complaints() == []


OUTSIDE = """[...document.querySelectorAll("svg text")].filter(text => {
  const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
  return own.left < all.left - 1 || own.right > all.right + 1;
}).map(text => text.textContent)"""

OVER = """[...document.querySelectorAll("svg.wide")].flatMap(svg => {
  const boxes = [...svg.querySelectorAll("text")].map(text => [text, text.getBoundingClientRect()]);
  return boxes.filter(([one, a]) => boxes.some(([other, b]) => one !== other && a.left < b.right
    && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom));
}).map(([text]) => text.textContent)"""


def test_names_fit_into_charts_and_lie_on_no_other(browser, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"format": "ipucnn.plan/1", "pipeline": {
        "fill": 0.9, "balance": 0.9, "stages": [
            {"begins_at": name, "share": 0.5, "parameters": 24112104, "multiply_adds": 2275622912,
             "inputs": 401408} for name in ("input", "features/denseblock3/denselayer12")]}}))
    rate = {"median": 5.0}
    (tmp_path / "bench.json").write_text(json.dumps({"format": "ipucnn.bench/1", "cases": [
        {"model": "m", "job": "inference", "batch_size": 1, "precision": "32.32", "data": "files",
         "limits": [], "entries": [{"kind": kind, "name": name, "images_per_second": rate}
                                   for kind, name in (("ipucnn", "onnxruntime"),
                                                      ("peer", "openvino-throughput"))]}]}))
    training(tmp_path / "run", names=("HAMBURGER", "\u5199\u771f" * 3, "mmm"), lr=0.00125)
    for source in ("plan.json", "bench.json", "run"):
        browser.open(report([str(tmp_path / source)]))
        assert browser.run(OUTSIDE) == []
        assert browser.run(OVER) == []
        look(browser, f"names-{source}")


def test_a_training_has_values_where_it_was_and_durations_are_sorted(browser, tmp_path):
    long, short = 90, 3
    browser.open(report([str(training(tmp_path / name, epochs=epochs, seconds=seconds))
                         for name, epochs, seconds in (("a", short, 4800.0), ("b", long, 2703.0),
                                                       ("c", long, 12.3))],
                        str(tmp_path / "three.html")))
    browser.run("document.querySelector('.plot').focus()")
    browser.press("End", 35)
    at = "document.querySelector('.plot').parentElement.querySelector('.values-at').textContent"
    assert browser.run(at).startswith("epoch 90: b: training ")
    browser.press("Home", 36)
    assert browser.run(at).startswith("epoch 1: a: training ")
    browser.run("[...document.querySelectorAll('#runs button')].find("
                "button => button.textContent === 'training time').click()")
    assert browser.run(TEXTS.format("#runs", 0)) == ["a", "b", "c"]


def test_a_printed_page_shows_the_whole_matrix(browser, tmp_path):
    names = [f"a class {number}" for number in range(40)]
    browser.open(report([str(training(tmp_path / "run", names=names))]), 720)
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.run("document.querySelector('svg.matrix').getBoundingClientRect().right "
                           "<= document.documentElement.clientWidth")
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")


def test_many_epochs_and_many_predictions_are_small_and_quick(browser, tmp_path):
    long = training(tmp_path / "long", epochs=1000, rows_per_epoch=10)
    rows = "".join(f"photos/{place}.jpg,{place},{place * 7 % 1000},name {place * 7 % 1000},0.9,0,"
                   f"name 0,0.05,name {place}\n" for place in range(1000))
    (tmp_path / "many.csv").write_text(
        "path,label,class_1,name_1,probability_1,class_2,name_2,probability_2,label_name\n"
        + 100 * rows)
    for source in (long, tmp_path / "many.csv"):
        page = report([str(source)])
        assert page.stat().st_size < 5e6
        seconds = browser.open(page)
        assert 0 < seconds < 1, seconds
        assert browser.complaints() == []
    rows = "document.querySelectorAll('#classes-1 tbody tr:not([hidden])').length"
    assert browser.run(rows) == 1000
    browser.run("document.querySelector('input[type=search]').focus()")
    browser.send("Input.insertText", text="name 99")
    assert browser.run(rows) == 11


def test_a_contact_sheet_is_drawn(browser, tmp_path):
    red = numpy.full((30, 20, 3), (200, 0, 0), numpy.uint8)
    write_sheet(Sheet("photos", [("images", "2")], {HOSTILE: 2, "b": 0}, {
        HOSTILE: [Shown(HOSTILE, red, [red, red]), Shown("bad.jpg", problem=HOSTILE)], "b": []},
        "3 random draws", [HOSTILE]), str(tmp_path / "sheet.html"))
    for width in (1280, 390):
        browser.open(tmp_path / "sheet.html", width)
        assert browser.complaints() == []
        assert not browser.run(WIDER)
    assert browser.run("[...document.images].map(one => one.naturalWidth)") == [20] * 3
    assert json.dumps(browser.run("document.querySelector('h3').textContent"))
