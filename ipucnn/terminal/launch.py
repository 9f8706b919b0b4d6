"""`--launcher NAME`: starts the processes of a command, before its work begins."""

from __future__ import annotations

import functools
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.execution.launching import launched, launched_count, launcher_named, select
from ipucnn.core.exit_codes import USAGE
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import CommandOptions, Given, part
from ipucnn.core.options.declaration import option
from ipucnn.terminal.scheduled_processes import check_shared

if TYPE_CHECKING:
    from ipucnn.core.options.owners import Owner
    from ipucnn.core.registry.registry import Registry

_ENDED = 15.0
"""Seconds that a launcher needs to end the processes of a host after one has failed."""

Command = Callable[[Dict[str, Any]], int]

_arguments: List[str] = []
"""The arguments of the command line that is being executed."""


@dataclass(frozen=True)
class LaunchPart:
    """Options of the processes that share the work of a command."""

    heading: ClassVar[str] = "Processes"

    launcher: Optional[str] = option(
        None, "Start several processes of this command, which share the work, with a launcher.",
        kind="launcher", switch=True)


@dataclass(frozen=True)
class LaunchOptions(CommandOptions):
    """The launcher and its options, which do not affect the work."""

    launch: LaunchPart = part(LaunchPart)

    kinds: ClassVar[Tuple[str, ...]] = ("launcher",)


def remember(arguments: Sequence[str]) -> None:
    """Set the arguments with which the processes are started."""
    _arguments[:] = arguments


def leave_to_first(error: IpucnnError) -> None:
    """Wait for the launcher to end this process, if another one of the host reports the same error.

    Errors in options and files usually occur in all processes of a command; the first process of a
    host reports them. If this process was not ended, it returns and reports its own error.
    """
    if error.exit_code != USAGE and not isinstance(error, DataError):
        return
    try:
        launch = launched()
    except IpucnnError:  # every process fails with this error
        return
    if launch is not None and launch.ends_all and launch.local_index:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sleep(_ENDED)


def launchable(command: Command) -> Command:
    """Decorate a command that computes: it starts processes if `--launcher` is given.

    Otherwise it computes in this process, whose memory allocator and waiting threads are set for
    this. It refuses to do so in one of several processes that would each do all of the work.
    """
    @functools.wraps(command)
    def starting(given: Dict[str, Any]) -> int:
        code = started(given)
        if code is not None:
            return code
        check_shared()
        from ipucnn.core.allocator import keep_freed_memory
        from ipucnn.core.contention import sleep_if_busy

        keep_freed_memory()
        if launched_count() == 1:  # the other processes of this command would count
            sleep_if_busy()
        return command(given)

    return starting


def started(given: Dict[str, Any]) -> Optional[int]:
    """Start the processes of `--launcher`, and wait for them.

    Args:
        given: the options of the command, from which those of the launcher are removed.

    Returns:
        The exit code; None if this process does the work.

    Raises:
        UsageError: an option of a launcher is not valid, or no launcher is named.
    """
    chosen = launcher_of(given)
    return _start(*chosen, _arguments) if chosen else None


def _start(name: str, options: Any, arguments: Sequence[str]) -> Optional[int]:
    """Start the processes of this run with a launcher, unless it is one of them already.

    Args:
        name: of the launcher.
        options: an instance of its options class; None if it has none.
        arguments: those of ipucnn's command line.

    Returns:
        The exit code of the run, or None in one of its processes.

    Raises:
        UsageError: another launcher started this process, or this one does not start processes.
        UnavailableError: it is not usable here.
    """
    launcher = launcher_named(name, options)
    if launcher.launch(os.environ) is not None:
        select(name, options)
        return None
    other = launched()
    if other is not None:
        raise UsageError(f"'--launcher {name}' would start processes in each one that "
                         f"{other.launcher} started", "leave one of the two out")
    if launcher.hosts() == 1:
        check_shared(name)
    return launcher.start([*_program(), *arguments])


def _program() -> List[str]:
    """Return the words that start this program again: the script that started it, if it was one.

    `python -m` imports modules of the working folder instead of installed ones, and the folder may
    have data from others.
    """
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "ipucnn":
        with suppress(OSError), open(script, "rb") as file:
            # not a script of a shell around it; pip writes the second form for long paths
            if b"python" in file.readline(1024) or file.readline(1024).startswith(b"'''exec'"):
                return [sys.executable, script]
    return [sys.executable, "-m", "ipucnn"]


def launcher_of(given: Dict[str, Any]) -> Optional[Tuple[str, Any]]:
    """Return the launcher in the options, and its options, or None.

    Without a launcher, its options are left to the command, which refuses those that no other
    plugin has.

    Args:
        given: the options of the command, from which those of the launcher are removed.

    Raises:
        UsageError: an option of a launcher is not valid, or also one of another plugin in use.
    """
    from ipucnn.core.options.owners import builtin_owners, having
    from ipucnn.core.options.refusals import several_owners
    from ipucnn.core.registry.registry import registry

    name = given.pop("launcher", None)
    if name is None:
        return None
    known = registry()
    mine = _owners_in({"launcher": name}, known)
    others = _owners_in(given, known)
    values = {"launcher": name}
    for option_name in list(given):
        one = Given(option_name, None)
        rivals, own = having(one, others), having(one, mine)
        if rivals and own:
            raise several_owners(one, [owner.qualified(one.bare) for owner, _ in rivals + own])
        if not rivals and (own or having(one, builtin_owners(LaunchOptions.kinds, known))):
            values[option_name] = given.pop(option_name)
    options = build(LaunchOptions, values)
    return name, next(iter(options.plugins.owned.values()), None)


def _owners_in(given: Dict[str, Any], known: Registry) -> List[Owner]:
    """Return the plugins with options that values of selecting options name."""
    from ipucnn.core.options.owners import owners_of, selected_names
    from ipucnn.core.registry.kinds import KINDS

    return [owner for kind in KINDS.values()
            for name in selected_names(kind, given.get(kind.selector))
            for owner in owners_of(kind, known.get(kind.name, name), known)]
