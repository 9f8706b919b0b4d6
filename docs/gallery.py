"""Draw the pictures of the gallery: `python docs/gallery.py [--record]`.

The pictures show the runs in `docs/recorded`, so that they are the same at each drawing. `--record`
makes these runs again, with the commands that the gallery names. Pages are drawn with Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from draw_dashboard import picture_of
from PIL import Image, ImageChops

from ipucnn.__main__ import invoke
from ipucnn.core.files import write_text
from ipucnn.reports.job import report

ROOT = Path(__file__).resolve().parents[1]
PICTURES, RECORDED = ROOT / "docs" / "pictures", ROOT / "docs" / "recorded"

DASHBOARD, EXPLAINED = "dashboard.svg", "explain.png"
"""Pictures that need no browser; the second is made by `--record`."""

TRAINING = ("train --model resnet14-cifar --data-dir shapes --input-size 32 --batch-size 32 "
            "--epoch 50 --optimizer sgd --min-crop-area 0.6")
COMMANDS = (
    "data shapes --out shapes --per-class 120 --validation-per-class 20 --size 40",
    f"{TRAINING} --lr 0.15 --checkpoint-path fast --log-dir logs/fast",
    f"{TRAINING} --lr 0.01 --checkpoint-path slow --log-dir logs/slow",
    "run --weights fast --data-dir shapes/validation --result inference.json",
    "plan --model resnet50 --pipeline-splits layer2 layer3 --gradient-accumulation 16 --lr 0.1 "
    "--result plan.json",
    "explain shapes/validation/star/006.jpg --weights fast --out explain.png")
"""What `--record` runs."""

KEPT = ("logs/fast", "logs/slow", "inference.json", "plan.json")


class Shot(NamedTuple):
    """A picture of a page.

    Attributes:
        name: of the file.
        shows: the runs of a report; none for a contact sheet.
        size: width and height in pixels.
        dark: in dark mode.
    """

    name: str
    shows: Tuple[str, ...]
    size: Tuple[int, int]
    dark: bool = False


SHOTS = (
    Shot("report.png", ("fast",), (1280, 1500)),
    Shot("report-phone.png", ("fast",), (390, 1000), dark=True),
    Shot("comparison.png", ("fast", "slow"), (1280, 900)),
    Shot("inference.png", ("inference.json",), (1280, 1300), dark=True),
    Shot("plan.png", ("plan.json",), (1280, 780)),
    Shot("contact-sheet.png", (), (1280, 1100)))


def main() -> int:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/gallery.md.")
    parser.add_argument("--record", action="store_true", help="make the runs again; takes minutes")
    if parser.parse_args().record:
        record()
    return draw(PICTURES)


def draw(pictures: Path) -> int:
    """Draw the pictures into a folder; return the exit code."""
    sys.path.insert(0, str(ROOT / "tests" / "reports"))
    from browser import Browser, program

    pictures.mkdir(exist_ok=True)
    write_text(str(pictures / DASHBOARD), picture_of(RECORDED / "fast"))
    try:
        import websocket  # noqa: F401 - drives the browser
    except ImportError:
        missing = "websocket-client"
    else:
        missing = "" if program() else "Chromium"
    if missing:
        print(f"note: {missing} is not installed: the pictures of pages stay as they are",
              file=sys.stderr)
        return 0
    before = Path.cwd()
    os.chdir(str(RECORDED))  # pages state the paths of runs as given
    try:
        with tempfile.TemporaryDirectory() as folder:
            browser = Browser(Path(folder))
            for shot in SHOTS:
                browser.open(_page(shot, Path(folder)), shot.size[0], shot.dark, shot.size[1])
                _save(pictures / shot.name, browser.screenshot())
            browser.close()
    finally:
        os.chdir(str(before))
    return 0


def _page(shot: Shot, folder: Path) -> Path:
    """Return the page of a shot, without the time of its making."""
    path = folder / f"{shot.name}.html"
    if shot.shows:
        report(shot.shows, str(path))
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            _run(COMMANDS[0].replace("--out shapes", f"--out {folder / 'shapes'}"))
            _run(f"data show {folder / 'shapes'} --augmented --input-size 32 --per-class 3 "
                 f"--out {path}")
    text = path.read_text(encoding="utf-8").replace(f"{folder}{os.sep}", "")
    path.write_text(re.sub(r"(<p>ipucnn [^<,]+), [^<]*", r"\1", text, count=1), encoding="utf-8")
    return path


def _save(path: Path, content: bytes) -> None:
    """Write a picture, unless the one that is there looks the same."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    small = picture.quantize(256, dither=Image.Dither.NONE)
    if path.exists():
        with Image.open(path) as file:
            there = file.convert("RGB")
        if there.size == picture.size:
            changes = ImageChops.difference(there, small.convert("RGB")).convert("L")
            visible = sum(changes.histogram()[24:])  # other versions of fonts move edges
            if visible < 0.01 * picture.width * picture.height:
                return
    small.save(path, optimize=True)


def record() -> None:
    """Make the runs again, and keep what the pictures show of them."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for command in COMMANDS:
                _run(command)
            keep(Path(folder))
        finally:
            os.chdir(str(before))


def keep(folder: Path) -> None:
    """Copy the log folders and results of the commands, without the machine that they ran on."""
    shutil.rmtree(str(RECORDED), ignore_errors=True)
    RECORDED.mkdir()
    for name in KEPT:
        source = folder / name
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        target = RECORDED / source.name if source.is_dir() else RECORDED
        target.mkdir(exist_ok=True)
        for file in files:
            if file.suffix == ".json":
                text = file.read_text(encoding="utf-8").replace(f"{folder}/", "")
                write_text(str(target / file.name), json.dumps(_public(json.loads(text))) + "\n")
            elif file.name in ("metrics.jsonl", "options.yaml"):
                shutil.copy(str(file), str(target))
    shutil.copy(str(folder / EXPLAINED), str(PICTURES))


def _public(document: Dict[str, Any]) -> Dict[str, Any]:
    environment = document.get("environment", {})
    if environment:
        packages = environment.get("packages", {})
        document["environment"] = {
            "python": environment["python"], "command": [
                os.path.basename(environment["command"][0]), *environment["command"][1:]],
            "packages": {name: packages[name] for name in ("ipucnn", "numpy", "pillow", "torch")
                         if name in packages}}
    document.update({name: "CPU" for name in ("device",) if name in document})
    for name in ("host", "pid"):
        document.pop(name, None)
    return document


def _run(command: str) -> None:
    words: List[str] = command.split()
    sys.argv = ["ipucnn", *words]  # which reports show
    code = invoke([*words, *(["--progress", "off"] if words[0] in ("train", "run") else [])])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
