"""Groups of commands, with suggestions for unknown commands and unabridged summaries."""

from __future__ import annotations

from typing import Any, List

from typer.core import TyperCommand, TyperGroup

from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.names import did_you_mean
from ipucnn.terminal.spellings import require_values


class CommandGroup(TyperGroup):
    """A typer group whose error for an unknown command suggests and lists its commands."""

    def resolve_command(self, ctx: Any, args: List[str]) -> Any:
        """Return the command that the first argument names, and the other arguments.

        Raises:
            UnknownNameError: there is no such command.
            UsageError: an option of the command has no value, or it or an argument is empty.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            suggestion = did_you_mean(name, known)
            raise UnknownNameError(f"unknown command {name!r}", (
                suggestion + " " if suggestion else "") + "commands: " + ", ".join(known))
        found, command, rest = super().resolve_command(ctx, args)
        # a command with declared options, or with those of another program, checks its own
        if type(command) is TyperCommand and not ctx.resilient_parsing:
            options: List[Any] = [item for item in command.params
                                  if item.param_type_name == "option"]
            taking = [flag for item in options if not item.is_flag for flag in item.opts]
            require_values(rest, taking, [flag for item in options
                                          for flag in (*item.opts, *item.secondary_opts)])
            if "" in rest:
                raise UsageError("an argument is empty", "give it a value, or leave it out")
        return found, command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their summaries, wrapped instead of cut off."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                paragraph = (command.help or "").partition("\n\n")[0]
                rows.append((name, " ".join(paragraph.split())))
        with formatter.section("Commands"):
            formatter.write_dl(rows)
