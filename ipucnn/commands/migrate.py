"""`ipucnn migrate`: translate command lines and configurations of other programs."""

from __future__ import annotations

import shlex
from typing import Any, List, Optional, Tuple

import typer
from typer.core import TyperCommand

from ipucnn.core.errors import UsageError
from ipucnn.terminal import tables as render
from ipucnn.terminal.completion import of_words
from ipucnn.terminal.options_command import JSON, home
from ipucnn.terminal.spellings import foreign


class _Unquoted(TyperCommand):
    """Takes a command line without quotes, too: its options are not those of `migrate`."""

    def parse_args(self, ctx: Any, args: List[str]) -> List[str]:
        """Parse arguments; those behind a first word without spaces are of the other program."""
        first = foreign(args)
        if first < len(args):
            args = [*args[:first], "--", *args[first:]]
        rest: List[str] = super().parse_args(ctx, args)
        return rest


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("migrate", cls=_Unquoted)(migrate)


def migrate(
    command: Optional[List[str]] = typer.Argument(
        None, metavar="[COMMAND]", help="Command line of another program, in quotes: "
        "'python3 train.py --model resnet50'. Several lines are translated one by one."),
    program: str = typer.Option(
        "auto", "--from", metavar="PROGRAM",
        autocompletion=of_words("auto", "graphcore", "timm", "torchvision"),
        help="Program of the script: graphcore, timm or "
        "torchvision (default: by the script's name and options)."),
    config: Optional[str] = typer.Option(
        None, "--config", metavar="FILE", help="Convert the profiles of a configuration file "
        "(configs.yml, args.yaml) instead."),
    script: Optional[str] = typer.Option(
        None, "--script", metavar="NAME", help="Script of the file of '--config' (default: by its "
        "options)."),
    out: Optional[str] = typer.Option(None, "--out", metavar="DIR", callback=home,
                                      help="Folder for the profiles made from '--config' "
                                      "(default: the current folder)."),
    as_json: bool = JSON,
) -> int:
    """Translate a command line of Graphcore's examples, timm or torchvision.

    Print the new command and, for every option, what it becomes or why it is dropped. The exit code
    is 1 if the command needs a change first, for example because a model is not installed.
    """
    from ipucnn.migration.job import AUTO
    from ipucnn.migration.job import migrate as migrated
    from ipucnn.migration.scripts import FAMILIES

    if program not in (AUTO, *FAMILIES):
        raise UsageError(f"option '--from': {program!r} is not one of its values",
                         "values: auto, " + ", ".join(FAMILIES))
    if config is not None:
        if command:
            raise UsageError("a command line and '--config' exclude each other",
                             "migrate one of them at a time")
        return _converted(config, (program, script), out or ".", as_json)
    if out or script:
        raise UsageError(f"'{'--out' if out else '--script'}' is for '--config'", "leave it out")
    words = command or []
    found = migrated(words[0] if len(words) == 1 else shlex.join(words), program)
    if as_json:
        render.emit_json({"commands": [one.as_dict() for one in found]})
    for one in () if as_json else found:
        if one is not found[0]:
            render.emit("")
        render.emit(one.command or f"# no counterpart: {one.given}")
        if one.script:
            render.info(f"{one.script} of {one.program}")
        if one.rows:
            render.emit("\n" + render.table(("given", "becomes", "remark"),
                                            [row.cells() for row in one.rows]))
    for one in found:
        for note in one.notes:
            render.note(note)
        for problem in one.problems:
            render.note(f"before it runs: {problem}")
    return 1 if any(one.problems or not (one.command or one.notes) for one in found) else 0


def _converted(config: str, meant: Tuple[str, Optional[str]], out: str, as_json: bool) -> int:
    from ipucnn.migration.old_profiles import convert

    profiles = convert(config, meant, out)
    if as_json:
        render.emit_json({"profiles": [one.as_dict() for one in profiles]})
    for one in () if as_json else profiles:
        render.emit(f"{one.path}   (ipucnn {one.command} --config {one.path})")
        for row in one.rows:
            if not row.becomes:
                render.note(f"{one.name}: {row.given} is dropped: {row.why}")
        for problem in one.problems:
            render.note(f"{one.name}: before it runs: {problem}")
    return 1 if any(one.problems for one in profiles) else 0
