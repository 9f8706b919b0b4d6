"""Runs one command line: handles signals, exit codes, and errors in one line."""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from typing import Any, Callable, List, Optional, Sequence

import typer

from ipucnn.core import exit_codes
from ipucnn.core.errors import IpucnnError, PluginError, UnavailableError, UsageError
from ipucnn.core.files import name_too_long
from ipucnn.core.names import did_you_mean
from ipucnn.core.registry.discovery import Provider
from ipucnn.core.registry.loading import cause_of, describe, remedy_for
from ipucnn.core.registry.registry import registry
from ipucnn.terminal import launch, signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.completion import completing
from ipucnn.terminal.spellings import command_in, normalise

_HELP = {"--help", "-h", "--help-all"}
_NO_MEMORY = re.compile("not enough memory|can't allocate memory|out of memory", re.IGNORECASE)
"""Text in torch's error when an allocation fails."""

_PERMISSION = "grant permission there, or choose another place"
_SPACE = "free disk space, or choose another place"
_NO_TEMPORARY = "No usable temporary directory"
"""Text in the error of `tempfile`, for example in a container whose file system is read-only."""

_DISK = "check the disk or the network file system"
_OPEN = "allow more open files with 'ulimit -n', or use fewer workers"
_OF_SYSTEM = {
    errno.EACCES: _PERMISSION, errno.EPERM: _PERMISSION, errno.EROFS: _PERMISSION,
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EIO: _DISK, errno.ESTALE: _DISK,
    errno.EMFILE: _OPEN, errno.ENFILE: _OPEN}
"""Errors of files that are no bugs, and hints for them."""

_OF_IMPORTS = (PluginError, UnavailableError)
"""Exceptions of a failed import, which may have failed because of an interrupt."""


def invoke(argv: Sequence[str], application: Callable[[str], typer.Typer]) -> int:
    """Run one command line and return its exit code; only bugs in ipucnn show a traceback.

    Args:
        argv: the arguments.
        application: returns the application, with at least the command of a given name.
    """
    show_traceback = "--traceback" in argv
    signals.install()
    launch.remember(argv)
    click_error = typer.BadParameter.__mro__[2]  # newer versions of typer bundle click
    try:
        _check_help(argv)
        _check_working_folder(argv)
        with completing():
            return _execute(application(command_in(argv)), normalise(argv))
    except IpucnnError as error:
        if isinstance(error, _OF_IMPORTS) and signals.raised():
            return _interrupted(signals.raised())
        launch.leave_to_first(error)
        if show_traceback:
            render.say_traceback()
        render.report_error(error)
        return error.exit_code
    except (KeyboardInterrupt, SystemExit) as leaving:
        return _left(leaving)
    except BrokenPipeError:
        render.abandon_output()
        return exit_codes.BROKEN_PIPE
    except MemoryError:
        return _out_of_memory()
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename \
                and _plugin_of(error) is None:
            render.abandon_output()  # typer was writing help
            render.report_error(IpucnnError(f"cannot write to standard output: {error.strerror}"))
            return exit_codes.FAILED
        if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)):
            return _out_of_memory()
        if isinstance(error.__cause__, KeyboardInterrupt):  # during `__set_name__`, Python < 3.12
            return _interrupted(str(error.__cause__))
        if not isinstance(error, click_error):
            return _unexpected(error, show_traceback)
        if show_traceback:
            render.say_traceback()
        return _wrong_usage(error)


def _check_help(argv: Sequence[str]) -> None:
    """Raise an error if help cannot be written, which typer ignores."""
    if sys.stdout is None and _HELP & set(argv):
        raise IpucnnError("cannot write to standard output: it is closed")


def _check_working_folder(argv: Sequence[str]) -> None:
    """Raise an error for a command in a folder that was removed, which would fail later."""
    if {*_HELP, "--version"} & set(argv):
        return
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the working folder does not exist any more",
                         "go to another one with 'cd'") from error


def _wrong_usage(error: Any) -> int:
    """Report an error of click."""
    kind, message = type(error).__name__, str(error.format_message())
    if kind == "NoArgsIsHelpError":
        render.say(message)
    elif kind == "NoSuchOption":
        render.report_error(_unknown_option(error))
    else:
        render.report_error(UsageError(message[:1].lower() + message[1:].rstrip("."),
                                       "'--help' lists the options"))
    return exit_codes.USAGE


def _unknown_option(error: Any) -> UsageError:
    """Return the error for an option that a command with typer's own options does not have."""
    name, context = error.option_name, error.ctx
    parameters = context.command.params
    folder = any("DIR" in (item.metavar or "") for item in parameters
                 if item.param_type_name == "argument")
    if folder and name.endswith(("-dir", "-path")):
        hint = f"the folder is an argument: '{context.command_path} DIR'"
    else:
        hint = did_you_mean(name, [spelling for item in parameters
                                   if item.param_type_name == "option"
                                   for spelling in (*item.opts, *item.secondary_opts)])
    return UsageError(f"unknown option {name!r}", hint or "'--help' lists the options")


def _unexpected(error: BaseException, show_traceback: bool = False) -> int:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        render.report_error(name_too_long(str(error.filename)))
        return exit_codes.USAGE
    if isinstance(error, FileNotFoundError) and _NO_TEMPORARY in str(error):
        render.report_error(IpucnnError(f"no temporary folder can be written: {error.strerror}",
                                        "export TMPDIR=FOLDER, with a folder that can be written"))
        return exit_codes.FAILED
    plugin = _plugin_of(error)
    if plugin is None and isinstance(error, OSError) and error.errno in _OF_SYSTEM:
        place = f"cannot use {os.fsdecode(error.filename)!r}: " if error.filename else ""
        render.report_error(IpucnnError(f"{place}{error.strerror}", _OF_SYSTEM[error.errno]))
        return exit_codes.FAILED
    if plugin is None and isinstance(error, ImportError) and not _is_own(error.name):
        if signals.raised():
            return _interrupted(signals.raised())
        if show_traceback:
            render.say_traceback()
        unusable = UnavailableError(f"a required package cannot be imported: {cause_of(error)}",
                                    "'ipucnn doctor --deep' checks the installation, and "
                                    "'--traceback' shows where it is imported")
        render.report_error(unusable)
        return unusable.exit_code
    render.say_traceback()
    if plugin is None:
        render.say("error: this is a bug in ipucnn or a plugin; please report it with the "
                   "traceback above\nhint: run with '--no-plugins' to see whether a plugin causes "
                   "it")
    else:
        render.report_error(PluginError(f"{describe(plugin)} failed: {cause_of(error)}; the "
                                        "traceback is above", remedy_for(plugin)))
    return exit_codes.FAILED


def _is_own(module: Optional[str]) -> bool:
    """Return whether a module that could not be imported is one of ipucnn, or not known."""
    return not module or module.partition(".")[0] == "ipucnn"


def _left(leaving: BaseException) -> int:
    """Return the exit code after an exception that ends the process.

    That of a plugin is an error: an exit code of 0 would mean that the work is done.
    """
    if isinstance(leaving, KeyboardInterrupt):
        if signals.raised() or _plugin_of(leaving) is None:
            return _interrupted(str(leaving))
    elif "_IPUCNN_COMPLETE" in os.environ:  # click's way to end it
        raise leaving
    return _unexpected(leaving)


def _plugin_of(error: BaseException) -> Optional[Provider]:
    """Return the third-party plugin in whose code an exception was raised, or None."""
    with suppress(IpucnnError):  # of an installation without built-in plugins
        return registry().raised_by(error)
    return None


def _out_of_memory() -> int:
    render.report_error(IpucnnError("this machine is out of memory",
                                    "use a smaller batch or model, or fewer workers"))
    return exit_codes.FAILED


def _interrupted(name: str) -> int:
    render.say("interrupted")
    return exit_codes.INTERRUPTED.get(name, exit_codes.INTERRUPTED["SIGINT"])


def _execute(app: typer.Typer, argv: List[str]) -> int:
    command = typer.main.get_command(app)
    if "_IPUCNN_COMPLETE" in os.environ:  # set by the shell's completion script
        command.main(prog_name="ipucnn")
    # not `main()`, which handles interrupts and closed pipes differently
    try:
        with command.make_context("ipucnn", argv) as context:
            code = command.invoke(context)
    except typer.Exit as leaving:
        code = leaving.exit_code
    return code if isinstance(code, int) else 0
