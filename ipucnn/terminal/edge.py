"""The edge of the process: signals, exit codes, and errors told in one line.

Exit codes: 0 ok, 1 the work failed or a check found a problem, 2 wrong usage, 130 and 143
interrupted, 141 the reader of standard output has gone.
"""

from __future__ import annotations

import errno
import os
import traceback
from typing import List, Sequence

import typer

from ipucnn.core.errors import IpucnnError, PluginError, UnavailableError, UsageError
from ipucnn.core.options import COMMANDS
from ipucnn.core.options.declaration import declared
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.spellings import normalise

_OF_IMPORTS = (PluginError, UnavailableError)
"""What a failed import is told as; it may have failed because of an interrupt."""

BROKEN_PIPE = 141
"""128 + SIGPIPE, as a shell reports it when the reader of a pipe has gone."""


def invoke(argv: Sequence[str], app: typer.Typer) -> int:
    """Run one command line and return its exit code; only our own bugs leave a traceback."""
    # '--dataloader-worker' takes several values in 'data bench' only
    lists = {flag for name, command in COMMANDS.items() if set(name.split()[1:]) <= set(argv)
             for item in declared(command) if item.many for flag in item.flags}
    show_traceback = "--traceback" in argv
    signals.install()
    click_error = typer.BadParameter.__mro__[2]  # newer typers carry a click of their own
    try:
        return _execute(app, normalise(argv, lists))
    except IpucnnError as error:
        if isinstance(error, _OF_IMPORTS) and signals.raised():
            return _interrupted(signals.raised())
        if show_traceback:
            traceback.print_exc()
        render.report_error(error)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        return _interrupted(str(interrupt))
    except BrokenPipeError:
        render.abandon_output()
        return BROKEN_PIPE
    except MemoryError:
        render.report_error(IpucnnError("this machine is out of memory",
                                        "use a smaller batch, or fewer workers"))
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
            render.abandon_output()  # typer was writing help
            render.report_error(IpucnnError(f"cannot write to standard output: {error.strerror}"))
            return 1
        if not isinstance(error, click_error):
            traceback.print_exc()
            render.say("error: this is a fault of ipucnn or of a plugin; please report it with the "
                       "lines above\nhint: '--no-plugins' tells whether a plugin is at fault")
            return 1
        if show_traceback:
            traceback.print_exc()
        message = str(error.format_message())  # type: ignore[attr-defined]
        if type(error).__name__ == "NoArgsIsHelpError":
            render.say(message)
            return 2
        render.report_error(UsageError(message[:1].lower() + message[1:].rstrip("."),
                                       "'--help' lists the options"))
        return 2


def _interrupted(name: str) -> int:
    render.say("interrupted")
    return 143 if name == "SIGTERM" else 130


def _execute(app: typer.Typer, argv: List[str]) -> int:
    command = typer.main.get_command(app)
    if "_IPUCNN_COMPLETE" in os.environ:  # set by the shell's completion script
        command.main(prog_name="ipucnn")
    # not `main()`, which answers interrupts and closed pipes in its own way
    try:
        with command.make_context("ipucnn", argv) as context:
            code = command.invoke(context)
    except typer.Exit as leaving:
        code = leaving.exit_code
    return code if isinstance(code, int) else 0
