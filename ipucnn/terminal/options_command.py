"""Typer commands with declared options: parsing, help and completion."""

from __future__ import annotations

import inspect
import os
import textwrap
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Optional, Sequence, Tuple

import typer
from typer.core import TyperCommand

from ipucnn.core.errors import UsageError
from ipucnn.terminal.completion import of_plugins, of_profiles, of_words
from ipucnn.terminal.flags import Flag, FlagTable, flag_table
from ipucnn.terminal.help import sections
from ipucnn.terminal.spellings import expanded, open_list

JSON = typer.Option(False, "--json", help="Print JSON instead of text.")
"""The option of commands that print rows or a result."""

HELP_ALL = "--help-all"
_TABLE, _ALL, _OPEN = "ipucnn.flags", "ipucnn.help_all", "ipucnn.open_list"

_HYPHEN = "\N{NON-BREAKING HYPHEN}"
"""Stands for a hyphen where lines are wrapped."""


def home(path: Optional[str]) -> Optional[str]:
    """Return a path with `~` at its beginning expanded, which shells do not do after a `=`."""
    return None if path is None else os.path.expanduser(path)


class OptionsCommand(TyperCommand):
    """A command that creates its flags on use, from declarations and selected plugins."""

    options_classes: ClassVar[Tuple[type, ...]] = ()
    body: ClassVar[Callable[[Dict[str, Any]], Any]]

    def parse_args(self, ctx: Any, args: List[str]) -> List[str]:
        """Parse arguments; lists may be space-separated (`--pipeline-splits a b`)."""
        if HELP_ALL in args:
            ctx.meta[_ALL] = True
            args = ["--help" if word == HELP_ALL else word for word in args]
        table = self._table(ctx, args)
        ctx.meta[_OPEN] = open_list(args, table.lists())
        ctx.allow_extra_args = True  # reported below, with the option that they may belong to
        words = expanded(args, table.lists())
        if not ctx.resilient_parsing:
            table.require_values(words)
        try:
            rest: List[str] = super().parse_args(ctx, words)
        except Exception as error:
            unknown = getattr(error, "option_name", None)
            if type(error).__name__ != "NoSuchOption" or not unknown:
                raise
            raise (table.problem or self._unknown(unknown)) from None
        if rest and not ctx.resilient_parsing:
            raise self._unexpected(rest[0], table)
        return rest

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete a further value of a list (`--logger files ten`), or an option."""
        spelling, given = ctx.meta.get(_OPEN) or ("", ())
        if not spelling or incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [item for parameter in self.get_params(ctx) if spelling in parameter.opts
                for item in parameter.shell_complete(ctx, incomplete) if item.value not in given]

    def _unexpected(self, word: str, table: FlagTable) -> Exception:
        """Return the error for an argument without an option, which names the option it needs."""
        from ipucnn.core.registry.kinds import KINDS
        from ipucnn.core.registry.listing import kinds_of

        flags = {flag.name: flag.spellings[0] for flag in table.flags}
        named = [KINDS[kind].selector for kind in kinds_of(word)]
        named += _path_options(word)
        option = next((flags[name] for name in named if name in flags), None)
        return UsageError(
            f"unexpected argument {word!r}",
            f"did you mean '{option} {word}'?" if option else
            "values follow the option they are for; '--help' lists the options")

    def _unknown(self, flag: str) -> Exception:
        """Return the error for a flag that neither the command nor a plugin has."""
        from ipucnn.core.options.refusals import unknown_option
        from ipucnn.core.registry.registry import registry

        return unknown_option(flag, self.options_classes[0], registry())

    def _table(self, ctx: Any, arguments: Sequence[str] = ()) -> FlagTable:
        from ipucnn.core.registry.registry import registry

        name = f"{_TABLE}.{self.name}"
        if name not in ctx.meta:
            ctx.meta[name] = flag_table(self.options_classes, arguments, registry())
        table: FlagTable = ctx.meta[name]
        return table

    def get_params(self, ctx: Any) -> List[Any]:
        """Return typer's parameters for the flags, and the help option."""
        name = f"{_TABLE}.{self.name}.parameters"
        if name not in ctx.meta:
            command = getattr(self.options_classes[0], "command", "")
            ctx.meta[name] = [*_parameters(self._table(ctx).flags, command),
                              *super().get_params(ctx)]
        parameters: List[Any] = ctx.meta[name]
        return parameters

    def invoke(self, ctx: Any) -> Any:
        """Call the command with the options that were given, by name."""
        names = {flag.identifier: flag.name for flag in self._table(ctx).flags}
        return type(self).body({names[name]: list(value) if isinstance(value, tuple) else value
                                for name, value in ctx.params.items()
                                if name in names and value is not None and len_of(value)})

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in sections: the basic ones, or all with `--help-all`."""
        explained = bool(ctx.meta.get(_ALL))
        for heading, rows, further in sections(self._table(ctx), explained):
            with formatter.section(heading):
                if rows:
                    _write_rows(formatter, rows)
                for line in textwrap.wrap(further, formatter.width - formatter.current_indent,
                                          break_on_hyphens=False):
                    formatter.write(" " * formatter.current_indent + line + "\n")
        with formatter.section("Help"):
            rows = [("-h, --help", "Show this message and exit.")]
            if not explained:
                rows.append((HELP_ALL, "Explain every option, those of all built-in plugins too."))
            formatter.write_dl(rows)


def _write_rows(formatter: Any, rows: Sequence[Tuple[str, str]]) -> None:
    """Write flags and their help; unlike `write_dl`, do not break a line within '--data-dir'."""
    written = len(formatter.buffer)
    formatter.write_dl([(flag, text.replace("-", _HYPHEN)) for flag, text in rows])
    formatter.buffer[written:] = [part.replace(_HYPHEN, "-") for part in formatter.buffer[written:]]


def _path_options(word: str) -> List[str]:
    """Return the options that accept an existing file or folder, best first."""
    path = Path(word)
    suffix = path.suffix.lower()
    if path.is_dir():
        trained = any(path.glob("*.pt"))
        return ["checkpoint_path", "data_dir"] if trained else ["data_dir", "checkpoint_path"]
    if suffix == ".onnx":
        return ["onnx"]
    return ["weights", "checkpoint_path"] if suffix in (".pt", ".pth", ".safetensors") else [
        "data_dir"] if path.is_file() else []


def len_of(value: Any) -> int:
    """Return the number of items of a list, and 1 of any other value."""
    return len(value) if isinstance(value, (list, tuple)) else 1


def add_command(app: typer.Typer, function: Callable[[Dict[str, Any]], Any],
                *options_classes: type) -> None:
    """Add a command with declared options to an application.

    Args:
        app: the application.
        function: the command of this name; it is called with the options that were given, by name,
            and returns the exit code or None. Its docstring is the help text.
        options_classes: the classes that declare the options.
    """
    def registered() -> None:
        """Act as a placeholder: `OptionsCommand.invoke` calls the function itself."""

    registered.__doc__ = function.__doc__
    made = type("Command", (OptionsCommand,), {
        "options_classes": options_classes, "body": staticmethod(function)})
    app.command(function.__name__, cls=made)(registered)


def _parameters(flags: Sequence[Flag], command: str = "") -> List[Any]:
    """Return typer's parameters for the flags of a command."""
    def template(**_: Any) -> None:
        """Provide the signature from which typer creates parameters."""

    signature = [_parameter(flag, command) for flag in flags]
    template.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    template.__annotations__ = {p.name: p.annotation for p in signature}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(template)
    return list(typer.main.get_command(app).params)


def _parameter(flag: Flag, command: str) -> inspect.Parameter:
    item = flag.item
    names = list(flag.spellings)
    if flag.negatable:
        names = [f"{name}/--no-{name[2:]}" for name in names]
    # values arrive as text and are converted by the declaration, so that the command line, the
    # profiles and Python report an invalid value alike
    annotation: Any = (Optional[bool] if item.boolean else
                       Optional[List[str]] if item.many else Optional[str])
    info = typer.Option(None, *names, show_default=False,
                        autocompletion=_completion(flag, command))
    return inspect.Parameter(flag.identifier, inspect.Parameter.KEYWORD_ONLY, default=info,
                             annotation=annotation)


def _completion(flag: Flag, command: str) -> Optional[Callable[[str], List[str]]]:
    """Return the function that completes the values of a flag; None where values have no names."""
    kind, words = flag.item.option.kind, [*flag.item.option.choices, *flag.item.option.words]
    words += _WORDS.get(flag.name, [])
    profiles = _PROFILED.get(flag.name)
    if profiles is not None:
        return of_profiles(profiles or command)
    if kind:
        return of_plugins(kind, *words)
    return of_words(*words) if words else None


_WORDS = {"backend": ["auto"],
          "weights": ["pretrained", "pretrained:v1", "pretrained:v2", "random"],
          "pipeline_splits": ["auto:2", "auto:4", "auto:8", "auto:16"], "resume": ["auto"],
          "device": ["cpu", "cuda"]}
"""Completion of options with named values that are neither plugins nor choices."""

_PROFILED = {"config": "", "launch": "launch"}
"""Options that name profiles, and the command of the profiles; if empty, that of the option."""
