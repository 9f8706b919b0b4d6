"""Text that fits a terminal: words, paths, names and columns."""

import io

import pytest

from ipucnn.core.names import cells, shortened
from ipucnn.terminal.layout import (
    coloured,
    coloured_lines,
    columns,
    filled,
    terminal_width,
    wrapped,
)


@pytest.mark.parametrize("width", range(0, 60))
def test_a_name_is_shortened_to_the_width_in_its_middle(width):
    name = "photographs/of the summer/IMG_20240704_1200.jpg"
    short = shortened(name, width)
    assert cells(short) <= width
    if width >= len(name):
        assert short == name
    elif width > 12:
        head, _, tail = short.partition("...")
        assert name.startswith(head)
        assert name.endswith(tail)
        assert len(tail) > len(head)


@pytest.mark.parametrize(("begin", "short"), [(0, "...789"), (1, "012..."), (0.5, "0...89")])
def test_the_share_of_the_beginning_can_be_given(begin, short):
    assert shortened("0123456789", 6, begin) == short


def test_wide_characters_count_twice():
    assert cells("写真/猫.jpg") == 11
    assert cells(shortened("写真" * 20, 21)) <= 21
    assert cells("e\u0301") == 1


def test_words_are_wrapped_and_stay_whole():
    text = "error: " + "some words of a long line " * 6
    lines = wrapped(text, 40).split("\n")
    assert " ".join(line.strip() for line in lines) == text.strip()
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert wrapped(text, None) == text


@pytest.mark.parametrize("word", [
    "/a/path/that/is/longer/than/the/line/of/the/terminal.jpg",
    "'/a/path with spaces/that is longer than the line/of the terminal.jpg'",
    "'ipucnn data verify DIR'"])
def test_paths_and_commands_are_not_broken(word):
    text = f"hint: look at what the model's file is with {word}, and again"
    lines = wrapped(text, 40).split("\n")
    assert any(word in line for line in lines)
    assert len(lines) > 1


def test_lines_of_a_text_remain():
    assert wrapped("one\n  two\nthree", 5) == "one\n  two\nthree"


def test_the_last_column_is_wrapped_beside_the_others(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = columns(("check", "status", "detail"), [
        ("python", "ok", "3.11"), ("memory\x1b", "warning", "a few words " * 8)], 50)
    first, second, third, *rest = text.split("\n")
    assert first == "check       status   detail"
    assert second == "python      ok       3.11"
    assert third.startswith("memory\\x1b  warning  a few words")
    assert rest
    assert all(line.startswith(" " * 21) for line in rest)
    assert all(len(line) <= 50 for line in text.split("\n"))
    narrow = columns(("check", "detail"), [("x" * 20, "a few words " * 3)], 30).split("\n")
    assert narrow[1] == "  detail"
    assert max(map(len, narrow)) <= 30


def test_colours_can_be_disabled(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured_lines(coloured("ok", "ok")) == "\x1b[32mok\x1b[0m"
    assert coloured("bar", "bar") == "bar"
    monkeypatch.setenv("TERM", "dumb")
    assert coloured("ok", "ok") == "ok"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("ok", "ok") == "ok"


def test_a_pipe_has_no_width():
    assert terminal_width(io.StringIO()) is None
    assert terminal_width(None) is None


def test_a_long_name_in_a_table_is_shortened_in_its_middle():
    rows = [("checkpoints/" * 8 + "resnet50_7.pt", "7", "76.13"), ("a.pt", "12", "75.00")]
    lines = columns(("checkpoint", "epoch", "top-1 %"), rows, 60).split("\n")
    assert max(map(cells, lines)) == 60
    assert lines[1].startswith("checkpoints/")
    assert "resnet50_7.pt  7      76.13" in lines[1]
    assert lines[2].split() == ["a.pt", "12", "75.00"]


def test_items_are_not_broken():
    items = ["finished,", "2026-01-02 03:04,", "resnet8-cifar on image_folder,", "top-1 76.13 %"]
    assert filled(items, 40, "    ") == (
        "finished, 2026-01-02 03:04,\n    resnet8-cifar on image_folder,\n    top-1 76.13 %")
    assert filled(items, 200) == " ".join(items)
    assert max(map(cells, filled(["a few words " * 9, "b"], 30).split("\n"))) <= 30


def test_rows_whose_first_columns_do_not_fit_are_broken_between_cells():
    text = columns(("option", "default", "meaning"), [
        ("--offline-target-ipu-version", "not one of them", "a few words " * 5),
        ("--seed", "", "short")], 40)
    assert text.split("\n") == [
        "option  default", "  meaning", "--offline-target-ipu-version", "  not one of them",
        "  a few words a few words a few words a", "  few words a few words", "--seed", "  short"]
