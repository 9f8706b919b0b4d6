"""The progress of runs and trainings."""

import io
import os
import signal
import sys
import time

import pytest

from ipucnn.core.exit_codes import ending_signals
from ipucnn.core.progress import Status
from ipucnn.terminal import signals, tables
from ipucnn.terminal.progress import (
    COMPILING,
    PREPARING,
    RunProgress,
    TrainProgress,
    brief,
    busy,
    counted,
    describe,
)

STATUS = Status("training", 12, 100, 1234, 5004, 2.08123, 13.8, 0.0125, 1234.4, 0.012, 45296.0)


def test_the_bar_has_everything_in_eighty_columns():
    text = brief(STATUS)
    assert text == ("12/100 1234/5004 loss 2.081 acc 13.8% lr 0.0125 1234 img/s data 1% "
                    "12:34:56 left")
    assert len(text) <= 80


def test_the_line_has_what_old_scripts_parse():
    assert describe(STATUS) == (
        "epoch 12/100, call 1234/5004 | Loss:2.0812 | Accuracy:13.80% | lr 0.0125 | "
        "1234.4 img/s | waiting for data 1% | 12:34:56 left")
    assert describe(Status("validating", 3, done=8, total=24)) == \
        brief(Status("validating", 3, done=8, total=24)) == "validating epoch 3: 8 of 24 images"
    assert describe(Status("preparing")) == "preparing"


def test_lines_without_a_bar_are_rare_and_can_be_left_out(monkeypatch, capsys):
    for choice, lines in (("auto", 1), ("on", 1), ("off", 0)):
        monkeypatch.setattr(tables, "LINE_INTERVAL", 0.0)  # the first is due
        training, running = TrainProgress(choice), RunProgress(choice)
        monkeypatch.setattr(tables, "LINE_INTERVAL", 600.0)
        with running as report:
            for done in range(3):
                report("run", done, 9)
                training.status(Status("preparing"))
        assert capsys.readouterr().err.splitlines() == ["0 of 9 images", "preparing"] * lines


def test_an_unknown_total_is_a_count():
    assert counted(3, 8) == "3 of 8 images"
    assert counted(3, None) == counted(3, 0) == "3 images"
    status = Status("training", 1, 0, 5, 0)
    assert (describe(status), brief(status)) == ("epoch 1, call 5", "1 5")
    assert describe(Status("validating", 3, done=8)) == "validating epoch 3: 8 images"


@pytest.mark.parametrize(("phase", "total", "line"), [
    ("run", None, "7 images"), ("run", 9, "7 of 9 images"), ("compile", None, COMPILING)])
def test_lines_without_a_terminal(monkeypatch, capsys, phase, total, line):
    monkeypatch.setattr(tables, "LINE_INTERVAL", -1.0)
    with RunProgress("auto") as update:
        update(phase, 7, total)
    assert capsys.readouterr().err.splitlines() == [line]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal of 80 columns when it is called, and return it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def make():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return make


def test_a_run_on_a_terminal_shows_its_phase_and_counts(terminal):
    screen = terminal()
    with RunProgress("auto") as update:
        assert PREPARING in screen.getvalue()
        for phase, done, total in (("compile", 0, None), ("run", 0, None), ("run", 5, 7)):
            update(phase, done, total)
            time.sleep(0.15)
    text = screen.getvalue()
    assert COMPILING in text
    assert "classifying" in text
    assert "0 images" in text
    assert "5 of 7 images" in text
    assert "None" not in text
    assert "?" not in text.replace("\x1b[?25", "")


def test_a_training_on_a_terminal_shows_its_phase(terminal):
    screen = terminal()
    with TrainProgress("auto") as listener:
        listener.preparing()
        listener.note("a note in between")
        listener.status(Status("preparing"))
        time.sleep(0.15)
        listener.status(STATUS)
    text = screen.getvalue()
    assert text.index(PREPARING) < text.index("note: a note in between")
    assert text.index("a note in between") < text.index(COMPILING) < text.index("loss 2.081")


@pytest.mark.parametrize(("variable", "value"), [("CI", "1"), ("TERM", "dumb")])
def test_no_spinner_where_it_would_be_noise(terminal, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    screen = terminal()
    with busy("compiling"), RunProgress("auto") as update:
        update("run", 3, None)
    assert screen.getvalue() == ""


@pytest.fixture
def handlers():
    """The handlers of signals, which are set back after the test."""
    before = {number: signal.getsignal(number) for number in ending_signals()}
    signals.install()
    yield
    signals.install()
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(name):
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(5)


def test_a_signal_interrupts_the_preparation_and_ends_a_training_after_a_step(handlers):
    with TrainProgress("off"), pytest.raises(KeyboardInterrupt, match="SIGINT"):
        interrupted("SIGINT")
    signals.install()
    with TrainProgress("off") as listener:
        assert listener.stop() == ""
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert listener.stop() == "SIGINT"
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            interrupted("SIGTERM")


@pytest.mark.usefixtures("heeded_sighup")
def test_the_signals_of_a_closed_terminal_save_once_and_do_not_abort(handlers):
    with TrainProgress("off") as listener:
        listener.stop()
        for name in ("SIGHUP", "SIGHUP", "SIGTERM"):  # of the system, a shell, a login manager
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(0.01)
        assert listener.stop() == "SIGHUP"
    signals.install()
    with pytest.raises(KeyboardInterrupt, match="SIGHUP"):
        interrupted("SIGHUP")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_an_ignored_signal_stays_ignored(handlers, number):
    signal.signal(number, signal.SIG_IGN)  # as `nohup` does
    signals.install()
    with signals.graceful():
        os.kill(os.getpid(), number)
    assert signals.pending() == ""


def test_a_closed_terminal_does_not_end_the_work(monkeypatch):
    master, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream, monkeypatch.context() as changed:
        changed.setattr(sys, "stderr", stream)
        with TrainProgress("on") as training, RunProgress("on") as update, busy("b", "on"):
            training.status(STATUS)
            update("run", 1, 2)
            os.close(master)
            with pytest.raises(OSError, match="Input/output"):
                os.write(terminal, b"x")
            training.status(STATUS)
            training.note("n")
            update("run", 2, 2)
