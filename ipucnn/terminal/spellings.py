"""Rewrites old spellings of arguments before they are parsed.

The older applications used argparse: lists were given space-separated (`--pipeline-splits a b`),
and one of them used underscores in option names (`--batch_size`). Both are still accepted.
"""

from __future__ import annotations

from typing import Collection, List, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import GLOBAL_OPTIONS, GLOBAL_SWITCHES, RESERVED

# one of the old applications used absl flags, which have no hyphen after `no`
_ABSL = {"--nosynthetic": "--no-synthetic", "--nohide-output": "--no-hide-output",
         "--nohalf-partials": "--no-half-partials"}

MIGRATE = "migrate"
"""The command whose arguments may be a command line of another program."""

_OF_MIGRATE = ("--from", "--config", "--script", "--out")
"""The options of `migrate` that take a value."""


def normalise(argv: Sequence[str]) -> List[str]:
    """Return arguments, without the program name, in current spelling, global options first."""
    front, rest = _hoisted([_spelt(argument) for argument in argv])
    return front + rest


def command_in(argv: Sequence[str]) -> str:
    """Return the argument that names the command; empty if an option or nothing is in its place."""
    rest = _hoisted([_spelt(argument) for argument in argv])[1]
    return rest[0] if rest and not rest[0].startswith("-") else ""


def _spelt(argument: str) -> str:
    if argument == "-help":  # absl's flags have one dash or two
        return "--help"
    if not argument.startswith("--") or argument == "--":
        return argument
    name, equals, value = argument.partition("=")
    name = name.replace("_", "-")
    if name == "--no-plugins" and equals:
        name = "--disable-plugins"
    return _ABSL.get(name, name) + equals + value


def _hoisted(argv: List[str]) -> Tuple[List[str], List[str]]:
    """Move global options to the front; they are accepted before and after the command's name."""
    front: List[str] = []
    rest: List[str] = []
    arguments = iter(argv)
    for argument in arguments:
        name = argument.partition("=")[0]
        if argument == "--":
            rest += [argument, *arguments]
        elif argument == MIGRATE and not rest:
            others = list(arguments)
            place = foreign(others)
            of_ipucnn, own = _hoisted(others[:place])
            front += of_ipucnn
            rest += [argument, *own, *others[place:]]
        elif argument in GLOBAL_SWITCHES or (name in GLOBAL_OPTIONS and "=" in argument):
            front.append(argument)
        elif argument in GLOBAL_OPTIONS:
            front += [argument, *[next(arguments, "")]]
        else:
            rest.append(argument)
    return front, rest


def foreign(argv: Sequence[str]) -> int:
    """Return where a command line without quotes begins in the arguments of `migrate`.

    Without one, it is the end: a command line in quotes, which has spaces, is one argument, and
    options of `migrate` may follow it.
    """
    place = 0
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "--":
        place += 2 if argv[place] in (*_OF_MIGRATE, *GLOBAL_OPTIONS) else 1
    unquoted = place < len(argv) and argv[place] != "--" and not set(argv[place]) & set(" \t\n")
    return place if unquoted else len(argv)


def expanded(argv: Sequence[str], lists: Collection[str]) -> List[str]:
    """Return arguments with `--option a b` as `--option a --option b` for each of `lists`."""
    result: List[str] = []
    current = ""
    first = True
    for argument in argv:
        if argument.startswith("--") or (argument.startswith("-") and not _number(argument)):
            name = argument.partition("=")[0]
            current, first = (name, "=" not in argument) if name in lists else ("", True)
            result.append(argument)
        elif current:
            result += [argument] if first else [current, argument]
            first = False
        else:
            result.append(argument)
    return result


def require_values(argv: Sequence[str], valued: Collection[str],
                   options: Collection[str]) -> None:
    """Raise an error if an option is in the place of another one's value, or a value is empty.

    A value that is the name of an option can still be given as `--option=VALUE`. An empty value
    is that of an unset variable, for example.

    Args:
        argv: the arguments of a command.
        valued: the options that take a value.
        options: all options of the command, but those of every command.

    Raises:
        UsageError: names the option without a value.
    """
    valued, options = set(valued), {*options, *RESERVED}
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            return
        name, equals, value = argument.partition("=")
        if name not in valued:
            continue
        if not equals:
            value = next(arguments, argument)  # the last one is refused like an option
            if value.partition("=")[0] in options:
                raise UsageError(f"option {argument!r} requires an argument",
                                 "'--help' lists the options")
        if not value:
            raise UsageError(f"option '{name}' is empty", "give it a value, or leave it out")


def open_list(argv: Sequence[str], lists: Collection[str]) -> Tuple[str, List[str]]:
    """Return the option of `lists` to which a further argument would belong, and its values.

    The option is empty where the last one takes a single value or none.
    """
    current = ""
    values: List[str] = []
    for argument in argv:
        if argument.startswith("--") or (argument.startswith("-") and not _number(argument)):
            name, _, value = argument.partition("=")
            current, values = (name, [value] if value else []) if name in lists else ("", [])
        else:
            values.append(argument)
    return current, values


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
