"""Texts from outside reach a terminal only with its control characters escaped."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.errors import IpucnnError
from ipucnn.core.names import without_secrets
from ipucnn.core.registry.registry import registry, use
from ipucnn.data.remote import transfer
from ipucnn.terminal import layout, tables


@pytest.fixture(autouse=True)
def _own_plugins():
    before = registry()
    yield
    use(before)


PACKAGE = Path(ipucnn.__file__).parent
EVIL = "\x1b[31mred\x07\x9b2J\u202eabc\r\x00"
"""Turns a terminal red, rings, clears, reverses, overwrites."""

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]")

# modules that may write to a stream, and what they write there
WRITERS = {
    "terminal/tables.py": "the functions that escape",
    "__main__.py": "a word of its own",
    "core/registry/deprecations.py": "a warning of Python with escaped names",
    "api/reporting.py": "escaped texts, without the terminal's modules",
    "inference/bulk/parent.py": "escaped lines of its processes",
    "inference/bulk/child.py": "a log file",
    "training/records/folder_lock.py": "a file that is locked",
    "data/pixel_store.py": "files of pixels"}

WRITING = re.compile(r"^(print|typer\.echo|click\.echo|traceback\.print_\w+|warnings\.warn|"
                     r"sys\.(stdout|stderr)\.write|os\.write)$")


def test_only_the_functions_that_escape_write_to_a_stream():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and WRITING.match(ast.unparse(node.func)
                                                            if hasattr(ast, "unparse") else
                                                            getattr(node.func, "id", "")):
                found.add(str(path.relative_to(PACKAGE)))
    assert {path for path in found if not path.startswith("testing/")} <= set(WRITERS)


def test_every_sink_escapes(capsys, monkeypatch):
    tables.say(EVIL)
    tables.note(f"{EVIL}\nnote: another")
    tables.info(EVIL)
    tables.emit(EVIL)
    tables.emit(tables.table(("a",), [(EVIL,)]))
    tables.emit(tables.facts([("a", EVIL)]))
    tables.report_error(IpucnnError(EVIL, EVIL))
    try:
        raise ValueError(EVIL)
    except ValueError:
        tables.say_traceback()
    shown = capsys.readouterr()
    assert not CONTROL.findall(shown.out + shown.err)
    assert shown.err.count("\nnote: ") == 1
    assert "\\x1b[31mred" in shown.out


def test_the_log_has_a_line_per_message():
    stream = io.StringIO()
    log = logging.getLogger("escaping")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(tables.LogFormatter("%(levelname)s: %(message)s"))
    log.addHandler(handler)
    log.propagate = False
    log.warning("a file is called %s", f"{EVIL}\nERROR: not so")
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("it failed")
    assert not CONTROL.findall(stream.getvalue())
    assert stream.getvalue().startswith("WARNING: a file is called \\x1b[31mred")
    assert "\nERROR: not so" not in stream.getvalue()


@pytest.mark.parametrize(("handlers", "printed"), [
    ([], False), ([logging.NullHandler()], False), ([logging.StreamHandler()], True)])
def test_messages_that_a_library_prints_are_recognised(handlers, printed):
    library = logging.getLogger("a-library")
    library.handlers[:] = handlers
    record = library.makeRecord(library.name, logging.WARNING, "file", 1, "message", (), None)
    assert tables.printed_by_its_library(record) is printed
    record.name = "root"
    assert not tables.printed_by_its_library(record)


def test_colours_are_kept_and_nothing_else(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert layout.coloured_lines(f"{layout.coloured('ok', 'fine')} {EVIL}\n") \
        == f"\x1b[32mfine\x1b[0m {layout.printable(EVIL)}\n"


def test_a_message_with_a_value_of_any_length_stays_short():
    error = IpucnnError(f"unknown model {'9' * 5000!r} (x.yaml)")
    assert len(error.message) < 2000
    assert error.message.endswith("9' (x.yaml)")


def test_each_line_of_a_hint_is_escaped():
    assert IpucnnError("m", ["a\nb", "", "c\x1b"]).hint == "a\\nb\nc\\x1b"


def test_an_error_is_escaped_wherever_it_is_shown():
    error = IpucnnError(EVIL, EVIL)
    for text in (str(error), error.message, error.hint, str(error.args)):
        assert not CONTROL.findall(text)


@pytest.mark.parametrize("arguments", [
    ["run", "--model", EVIL], ["run", f"--{EVIL}"], ["run", EVIL], [EVIL], ["show", EVIL, EVIL],
    ["run", "--data-dir", EVIL], ["run", "--weights", EVIL], ["run", "--config", EVIL],
    ["run", "--config", f"{EVIL}.yaml"], ["run", "--plugin", EVIL], ["run", "--batch-size", EVIL],
    ["list-plugins", "--filter", EVIL], ["data", "verify", EVIL], ["data", "fetch", EVIL],
    ["validate", "--checkpoint-path", EVIL], ["config", "show", EVIL], ["test-plugin", EVIL],
    ["run", "--onnx", EVIL], ["data", "shapes", "--out", "x", "--per-class", EVIL],
], ids=range(19))
def test_arguments_are_shown_escaped(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("\x00", "") for word in arguments]  # no argument can hold one
    assert invoke(words) != 0 or arguments[0] == "list-plugins"
    shown = capsys.readouterr()
    assert not CONTROL.findall(shown.out + shown.err)
    assert "this is a bug" not in shown.err


def test_names_of_files_are_shown_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / EVIL.replace("\x00", "") / "a"
    folder.mkdir(parents=True)
    (folder / "\x1b[31m.jpg").write_bytes(b"no image")
    (folder / "\x1b[31m.psd").write_bytes(b"unread")
    assert invoke(["data", "verify", str(folder.parent)]) == 1
    assert invoke(["data", "partition", "--data-dir", str(folder.parent), "--partitions", "1",
                   "--output", "\x1b[31mout"]) == 0
    shown = capsys.readouterr()
    assert not CONTROL.findall(shown.out + shown.err)
    assert "\\x1b[31m.jpg" in shown.out


URL = "https://me:s3cr@et@host.invalid/x.pt?sig=s3cr"

SECRETS = [
    (URL, "https://host.invalid/x.pt"), (f"a '{URL}', b", "a 'https://host.invalid/x.pt', b"),
    ("memory://me:s3cr@/x?s3cr", "memory:///x"),
    (f"--x={URL}", "--x=https://host.invalid/x.pt"), ("https:/me:s3cr@h/x?y", "https:/h/x"),
    ("C:/a@b/c?", "C:/a@b/c?"), ("file:///a/what?.jpg", "file:///a/what?.jpg"),
    ("(see https://h/x?a=1), and https://h/y?b=2.", "(see https://h/x), and https://h/y."),
    ("is it https://h/x?", "is it https://h/x?"),
    ("is it so? a", "is it so? a"), ("a" * 10 ** 6, "a" * 10 ** 6)]


@pytest.mark.parametrize(("text", "shown"), SECRETS, ids=range(len(SECRETS)))
def test_urls_are_shown_without_user_password_and_query(text, shown):
    assert without_secrets(text) == shown
    assert without_secrets({"a": [text, (text, 1)]}) == {"a": [shown, (shown, 1)]}


@pytest.mark.parametrize("arguments", [
    ["run", "--model", URL], ["run", "--weights", URL], ["run", "--onnx", URL], ["run", URL],
    ["run", "--weights", "memory://me:s3cr@/x.pt"], ["run", "--config", URL], ["show", URL],
    ["run", "--predictions", f"{URL}.csv"], ["runs", URL], ["watch", "--once", URL],
    ["report", URL],
    ["train", "--checkpoint-path", URL], ["restore", "--checkpoint-path", URL],
    ["validate", "--checkpoint-path", URL], ["average", "--checkpoint-path", URL],
    ["data", "verify", URL], ["plan", "--data-dir", URL, "--weights", URL],
], ids=range(17))
def test_messages_have_no_credentials(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    invoke(arguments)
    shown = capsys.readouterr()
    assert "s3cr" not in shown.out + shown.err


def test_a_log_has_no_credentials():
    record = logging.LogRecord("x", logging.WARNING, "file", 1, "cannot fetch %s", (URL,), None)
    assert "s3cr" not in tables.LogFormatter().format(record)


def test_the_error_of_a_failed_plugin_is_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text(f"raise ValueError({EVIL!r})\n")
    invoke(["--plugin", "bad.py", "list-plugins"])
    invoke(["--plugin", "bad.py", "run", "--model", "of-the-plugin"])
    shown = capsys.readouterr()
    assert not CONTROL.findall(shown.out + shown.err)
    assert "\\x1b[31mred" in shown.out + shown.err


def test_the_reason_of_a_server_is_shown_escaped():
    class Answer:
        status_code, reason, headers = 404, EVIL, {}

    with pytest.raises(IpucnnError) as caught:
        raise IpucnnError(str(transfer._refused(Answer())))
    assert not CONTROL.findall(caught.value.message)


def process(shell, **environment):
    return subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=60, check=False)


def test_what_a_stream_cannot_encode_is_written_with_escapes(tmp_path):
    (tmp_path / "\u5199").mkdir()
    (tmp_path / "\u5199" / "status.json").write_text("{}")
    found = process(f'"$0" -m ipucnn runs {tmp_path}', PYTHONIOENCODING="ascii", PYTHONUTF8="0",
                    LC_ALL="C.UTF-8")
    assert (found.returncode, found.stderr) == (0, "")
    assert "\\u5199" in found.stdout


def test_closed_streams_are_outputs_that_cannot_be_written():
    for shell in ('"$0" -m ipucnn list-plugins models >&-', '"$0" -m ipucnn run --help >&-'):
        found = process(shell)
        assert found.returncode == 1
        assert found.stderr == "error: cannot write to standard output: it is closed\n"
    found = process('"$0" -m ipucnn run --model nothing 2>&-')
    assert (found.returncode, found.stdout) == (2, "")


@pytest.mark.parametrize("arguments", [
    ["--batch-size", "100000000"], ["--device-iterations", "2000000000", "--data", "synthetic"],
    ["--iterations", "1" + "0" * 25], ["--dataloader-worker", "100000"], ["--seed", "9" * 5000],
    ["--num-classes", "2000000000"], ["--input-size", "1000000"], ["--time-limit", "1e400"]],
    ids=lambda words: words[0])
def test_numbers_that_no_machine_has_room_for_are_refused(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", "--model", "resnet8-cifar", "--weights", "random", "--backend", "torch",
                   "--precision", "full", "--data", "generated", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert arguments[0] in shown
    assert all(len(line) < 300 for line in shown.splitlines())
