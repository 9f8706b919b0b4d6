"""The README's walk from a folder of photographs to their names, line by line."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import onnx

from ipucnn.__main__ import invoke

README = Path(__file__).resolve().parents[1] / "README.md"
SMALL = ["--model", "resnet8-cifar", "--epoch", "2", "--batch-size", "8", "--input-size", "32"]
"""Makes a training of the walk short."""


def test_the_walk_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = README.read_text().partition("## Quick start")[2].split("```")[1]
    lines = [shlex.split(line, comments=True)[1:] for line in block.strip().splitlines()]
    assert len(lines) == 10
    printed = {}
    for line in lines:
        words = [{"60": "6", "64": "40", "101": "3", "photos/star/006.jpg": "photos/star/06.jpg"
                  }.get(word, word) for word in line]
        if words[0] == "train":
            words += SMALL if "--weights" not in words else SMALL[2:]
        code = invoke(words)
        out, err = capsys.readouterr()
        assert code == 0, (words, err)
        printed.setdefault("picture" if line[-1].endswith(".jpg") else " ".join(line[:3]),
                           out + err)
    classes = sorted(path.name for path in Path("photos").iterdir() if path.is_dir())
    assert ", ".join(classes) in printed["show model"]
    assert "ipucnn run --weights model --data-dir FOLDER" in printed["train --data-dir photos"]
    with open("names.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    for row in rows:  # folders are matched with the model's classes, and numbered as they are
        assert row["label_name"] == classes[int(row["label"])] == Path(row["path"]).parent.name
    accuracy = re.findall(r"top-1 +([\d.]+) %", printed["run --weights model"])
    assert accuracy
    assert accuracy == re.findall(r"top-1 +([\d.]+) %", printed["run --onnx model.onnx"])
    assert re.search(r"^photos/star/06.jpg +\w+ +[\d.]+ %$", printed["picture"], re.MULTILINE)
    names = {entry.key for entry in onnx.load("model.onnx").metadata_props}
    assert "ipucnn.card" in names
