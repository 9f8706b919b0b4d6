"""`ipucnn config`: list and show named profiles."""

from __future__ import annotations

from typing import Optional

import typer

from ipucnn.core.errors import UsageError
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.planning.options import LaunchProfileOptions
from ipucnn.terminal import tables as render
from ipucnn.terminal.command_group import CommandGroup
from ipucnn.terminal.completion import of_profiles, of_words
from ipucnn.terminal.options_command import JSON
from ipucnn.training.options.train_options import TrainOptions

PROFILED = {"run": RunOptions, "train": TrainOptions, "export": ExportOptions,
            "launch": LaunchProfileOptions}
"""The commands that profiles are for, and the options they may hold."""

_app = typer.Typer(cls=CommandGroup, rich_markup_mode=None, no_args_is_help=True,
                   help="List and show the profiles for '--config' and '--launch'.")


def add_to(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    app.add_typer(_app, name="config")


@_app.command("list")
def config_list(as_json: bool = JSON) -> None:
    """List the named profiles."""
    from ipucnn.core.options.profiles import available

    profiles = [(command, p) for command in PROFILED for p in available(command)]
    if as_json:
        render.emit_json([{"name": p.name, "command": command, "summary": p.summary}
                          for command, p in profiles])
    else:
        render.emit(render.table(("profile", "command", "summary"),
                                 [(p.name, command, p.summary) for command, p in profiles]))


@_app.command("show")
def config_show(name: str = typer.Argument(metavar="NAME", help="Name of a profile, or a YAML "
                                           "file.", autocompletion=of_profiles(*PROFILED)),
                command: Optional[str] = typer.Option(
                    None, "--command", autocompletion=of_words(*PROFILED),
                    help="Command of the profile: run, train, export or "
                    "launch (default: the first one that has it, and for a file, the one that "
                    "has most of its options)."),
                as_json: bool = JSON) -> None:
    """Show a profile with all defaults.

    Defaults that depend on other options, such as the folder of images, are comments.
    """
    import yaml

    from ipucnn.core.options.profiles import command_of, described

    chosen = command or command_of(name, PROFILED)
    if chosen not in PROFILED:
        raise UsageError(f"command {chosen!r} has no profiles", "commands: " + ", ".join(PROFILED))
    kind = PROFILED[chosen]
    options, dependent = described(kind, name, chosen)
    if as_json:
        render.emit_json(options)
        return
    fixed = {name: value for name, value in options.items() if name not in dependent}
    lines = yaml.safe_dump(fixed, sort_keys=False).splitlines()
    if dependent:
        lines.append("# Defaults that depend on other options:")
        lines += [f"# {line}" for line in yaml.safe_dump(dependent, sort_keys=False).splitlines()]
    render.emit("\n".join(lines))
