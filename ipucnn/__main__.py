"""`ipucnn` and `python -m ipucnn`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import Any, Sequence

from ipucnn.core.collection import collect_rarely
from ipucnn.core.exit_codes import INTERRUPTED, ending_signals


def main() -> int:
    """Run the command line and return the exit code of the process."""
    atexit.register(_answer_signals, signal.SIG_IGN)  # registered first, called last
    collect_rarely()
    _ready_streams()
    try:
        code = invoke(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        if sys.stderr is not None:
            print("interrupted", file=sys.stderr)
        code = INTERRUPTED.get(str(interrupt), INTERRUPTED["SIGINT"])
    if code in INTERRUPTED.values():
        # Leave at once: an interrupt that passed through `exec` of a text makes CPython end the
        # process by SIGINT however it was answered, and no thread may hold an impatient user up.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError):  # of a terminal that was closed
                    stream.flush()
        os._exit(code)
    # The work is done, and a signal must not make it look as if it were not. Threads and exit
    # functions may still be cut short; after them Python would restore what kills the process.
    _answer_signals(lambda *_: os._exit(code))
    return code


def invoke(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    from ipucnn.cli import application  # inside, so that Ctrl-C during the import is quiet too
    from ipucnn.terminal import edge

    return edge.invoke(argv, application)


def _ready_streams() -> None:
    """Make standard streams that take any text, and keep files away from closed ones.

    A file that is opened while a standard stream is closed gets its number, and what a library
    prints would end in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not a closed stream, nor a replaced one
            stream.reconfigure(errors="backslashreplace")


def _answer_signals(answer: Any) -> None:
    for number in ending_signals():
        signal.signal(number, answer)


if __name__ == "__main__":
    sys.exit(main())
