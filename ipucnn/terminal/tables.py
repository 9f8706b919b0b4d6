"""Prints results as tables. Data goes to standard output, messages to standard error."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import ExitStack, contextmanager, nullcontext
from typing import (
    IO,
    Any,
    Callable,
    ContextManager,
    Iterable,
    Iterator,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    cast,
)

from ipucnn.core.documents import json_text
from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.launching import is_first, own_name
from ipucnn.core.names import printable, printable_lines, without_secrets
from ipucnn.core.registry.isolation import isolated
from ipucnn.core.showing import kept, plain, plain_table
from ipucnn.terminal.layout import coloured_lines, columns, terminal_width, wrapped


def emit(text: str) -> None:
    """Write data to standard output; control characters are escaped, except colours.

    Raises:
        BrokenPipeError: the reader closed the pipe.
        IpucnnError: it cannot be written (a full disk, a closed stream).
    """
    if not is_first():
        return
    if sys.stdout is None:
        raise IpucnnError("cannot write to standard output: it is closed")
    try:
        sys.stdout.write(coloured_lines(text if text.endswith("\n") else text + "\n"))
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_output()
        raise
    except OSError as error:
        abandon_output()
        raise IpucnnError(f"cannot write to standard output: {error.strerror}") from error


def abandon_output() -> None:
    """Discard the remaining standard output, because it cannot be written."""
    if sys.stdout is not None:
        _abandon(sys.stdout)


def _abandon(stream: TextIO) -> None:
    """Discard what is written to a stream: the interpreter flushes it once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    emit(json_text(value, indent=2))


def only_data(as_json: bool) -> ContextManager[None]:
    """Return a context for a job whose result is written as JSON after it.

    What plugins print meanwhile, in Python or not, goes to standard error: readers of standard
    output parse one document.

    Args:
        as_json: whether the command prints JSON; if not, output is not redirected.
    """
    return isolated("a plugin", trusted=True) if as_json else nullcontext()


def say(text: str) -> None:
    """Print a message to standard error; on a terminal, long lines are broken between words."""
    if sys.stderr is not None:  # `print` would use standard output instead
        shown = printable_lines(without_secrets(text))
        _print_message(wrapped(shown, terminal_width(sys.stderr)) + "\n")


def say_traceback() -> None:
    """Print the traceback of the exception that is being handled to standard error."""
    if sys.stderr is not None:
        _print_message(printable_lines(without_secrets(traceback.format_exc())))


def _print_message(text: str) -> None:
    stream = _Dropping(sys.stderr)
    stream.write(text)
    stream.flush()


def console(**settings: Any) -> Any:
    """Return a console of Rich on standard error; what cannot be written is dropped.

    Args:
        **settings: of the console.
    """
    from rich.console import Console

    return Console(file=cast(IO[str], _Dropping(sys.stderr)), **settings)


_UNUSABLE = (AttributeError, ValueError)
"""Exceptions of streams by which programs replace standard error: closed, or without the methods of
files, as those that write to a log; or None, as in a program without a console."""


class _Dropping:
    """A stream whose writes may fail: a closed terminal or a full disk must not end the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            _abandon(self._stream)
        except _UNUSABLE:
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _abandon(self._stream)
        except _UNUSABLE:
            pass


class LogFormatter(logging.Formatter):
    """Formats log records, a line each; on a terminal, long lines are broken between words."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the base class
        """Return a record's message as one line."""
        record.message = printable(without_secrets(record.message))
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return wrapped(printable_lines(super().format(record)), terminal_width(sys.stderr))


def printed_by_its_library(record: logging.LogRecord) -> bool:
    """Return whether the logger of a record prints it itself, as that of PopTorch does."""
    own = logging.getLogger(record.name)
    return own is not logging.root and any(
        type(handler) is logging.StreamHandler for handler in own.handlers)


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Silence `note` and progress lines."""
    global _quiet
    _quiet = quiet


def note(text: str) -> None:
    """Print a note to standard error, on one line, unless quiet."""
    info(f"note: {printable(text)}")


def info(text: str) -> None:
    """Print a message to standard error, unless quiet."""
    if not _quiet and is_first():
        say(text)


def report_error(error: IpucnnError) -> None:
    """Print an error and its hint to standard error, in one line each unless on a terminal."""
    say(f"error: {own_name()}{error.message}")
    if error.hint:
        say(f"hint: {error.hint}")


def each_output(*outputs: Callable[[], object]) -> None:
    """Write the outputs of a command in order, each even if another one fails.

    Of several processes that share the work, only the first one writes.

    Raises:
        Exception: that of the last output that failed.
    """
    if is_first():
        with ExitStack() as stack:
            for output in reversed(outputs):
                stack.callback(output)


@contextmanager
def partial_shown(show: Callable[[Any], None],
                  found: Callable[[Any], object] = bool) -> Iterator[None]:
    """Return a context for a job: after an error, the result before it is shown.

    Args:
        show: prints and writes a result; what cannot be written is only noted.
        found: whether a result contains anything.

    Raises:
        IpucnnError: that of the job.
    """
    try:
        yield
    except IpucnnError as error:
        if error.partial is not None and found(error.partial):
            try:
                show(error.partial)
            except IpucnnError as failure:
                note(failure.message)
            except BrokenPipeError:  # the error is reported on the other stream
                pass
        raise


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as text: fitted to a terminal, or in plain columns for a pipe.

    Control characters in cells are escaped.
    """
    width = terminal_width(sys.stdout)
    if width is None:
        return plain_table(headings, rows)
    return columns(headings, list(rows), width)


def facts(pairs: Iterable[Tuple[str, Any]]) -> str:
    """Return aligned `name  value` lines without empty values; control characters are escaped.

    On a terminal, long values are wrapped beside their names.
    """
    filled = kept(pairs)
    width = max((len(name) for name, _ in filled), default=0)
    columns = terminal_width(sys.stdout)
    room = None if columns is None else max(20, columns - width - 2)
    lines = [(name, wrapped(printable(plain(value)), room, "").split("\n"))
             for name, value in filled]
    return "\n".join(f"{(first if number == 0 else '').ljust(width)}  {line}"
                     for first, parts in lines for number, line in enumerate(parts))


LINE_INTERVAL = 60.0
"""Seconds between two progress lines without a bar."""


def _is_terminal(stream: Optional[TextIO]) -> bool:
    try:
        return stream is not None and stream.isatty()
    except _UNUSABLE:
        return False


def wants_bar(choice: str) -> bool:
    """Return whether a bar or spinner is shown: on terminals that can, unless disabled or in CI.

    Elsewhere, `on` has lines as `auto` has: nothing would be seen of a bar.
    """
    able = _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
    if choice != "auto":
        return choice == "on" and able
    return able and not _quiet and is_first() and not os.environ.get("CI")
