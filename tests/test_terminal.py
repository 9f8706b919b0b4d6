"""What people see: real processes on a pseudo-terminal of 80 and of 200 columns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

from ipucnn.terminal.layout import cells  # noqa: E402 - only where there are terminals

IPUCNN = [sys.executable, "-m", "ipucnn"]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A process on a pseudo-terminal, and what it has written to it."""

    def __init__(self, columns, argv, **environment):
        self._leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (40, columns)) if hasattr(
            termios, "tcsetwinsize") else _set_size(follower, columns)
        variables = {name: value for name, value in os.environ.items()
                     if name not in ("CI", "COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*IPUCNN, *argv], stdin=follower, stdout=follower, stderr=follower,
            env={**variables, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment})
        os.close(follower)
        self.text = ""

    def end(self):
        """Return the exit code, and the lines that stay on the screen."""
        written = b""
        with suppress(OSError):  # Linux reports the end of the process as an error
            while True:
                more = os.read(self._leader, 65536)
                if not more:
                    break
                written += more
        self.text = written.decode("utf-8")
        code = self.process.wait(60)
        os.close(self._leader)
        kept = [line.rstrip("\r").rpartition("\r")[2] for line in self.text.split("\n")]
        return code, [CONTROL.sub("", line) for line in kept]


def _set_size(descriptor, columns):
    import fcntl
    import struct

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

    folder = tmp_path_factory.mktemp("photos") / ("holidays in the mountains " * 3)
    write_made("shapes", str(folder), GeneratedFiles(per_class=2, size=32))
    return folder


@pytest.mark.parametrize("columns", [80, 200])
def test_listings_fit(columns):
    code, lines = Screen(columns, ["list-plugins"]).end()
    assert code == 0
    assert max(map(cells, lines)) <= columns
    text = "\n".join(lines)
    for name in ("efficientnet-b7", "resnext101_32x4d", "resnet152-cifar", "image_folder"):
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text)
    assert re.search(r"^  resnet +resnet18, resnet34, resnet50,", text, re.M)
    assert "'--wide' lists aliases" in text
    wide = Screen(columns, ["list-plugins", "models", "--wide"]).end()[1]
    piped = subprocess.run([*IPUCNN, "list-plugins", "models"], stdout=subprocess.PIPE,
                           universal_newlines=True, check=True)
    assert "\n".join(wide) == piped.stdout


def test_errors_and_checks_are_wrapped_at_words():
    path = "/a/path/that/is/longer/than/a/line/of/a/terminal/of/eighty/columns/profile.yaml"
    code, lines = Screen(80, ["config", "show", path]).end()
    assert code == 2
    assert any(path in line for line in lines)
    code, lines = Screen(80, ["trian"]).end()
    assert lines[0] == "error: unknown command 'trian'"
    assert lines[1].startswith("hint: did you mean 'train'? commands: train, restore,")
    assert lines[2].startswith("  bench, runs, watch, export, plan, report,")
    assert max(map(cells, lines)) <= 80
    _, lines = Screen(80, ["doctor"]).end()
    assert max(map(cells, lines)) <= 80 or "/" in max(lines, key=cells)
    assert re.search("poptorch +ok +not installed, needs the Poplar SDK", "\n".join(lines))


def test_a_run_shows_its_answers(photos):
    argv = ["run", "--data", "image_folder", "--data-dir", str(photos), "--weights", "random",
            "--model", "resnet18", "--input-size", "32", "--backend", "torch"]
    screen = Screen(80, argv, NO_COLOR="1")
    code, lines = screen.end()
    assert code == 0, screen.text
    start = lines.index("the first 10 of 16 images")
    assert re.match(r"file +class +probability$", lines[start + 1])
    rows = lines[start + 2:start + 12]
    assert all(re.search(r"\.\.\..*\d\d\.jpg  \w+ +\d+\.\d %  (right|wrong: \w+)$", row)
               for row in rows)
    assert max(map(cells, lines[start:])) <= 80
    assert any(re.match(r"predicted class +images +right$", line) for line in lines)
    for words in ("importing torch", "compiling the model", "classifying", "of 16 images"):
        assert words in screen.text
    assert "None" not in screen.text
    assert "\x1b[3" not in screen.text
