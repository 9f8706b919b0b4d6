"""A command's options made from their declarations, for typer."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, List, Optional, Sequence

import typer
from typer.core import TyperCommand

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean
from ipucnn.core.options.declaration import Declared, declared

JSON = typer.Option(False, "--json", help="Print JSON instead of text.")
"""The option of a command that prints rows or a result."""


def _parameter(item: Declared) -> inspect.Parameter:
    rule = item.option
    text = rule.help
    if item.default not in (None, False, (), ""):
        text += f" Default: {item.default}."
    if rule.backend_option:
        text += " Not on every backend."
    metavar = rule.metavar or ("|".join(rule.choices) if rule.choices else
                               "" if item.boolean else item.type.__name__.upper())
    if item.boolean:
        names = [f"{flag}/--no-{flag[2:]}" for flag in item.flags]
        if rule.switch or not rule.negatable:
            names = list(item.flags)
    else:
        names = list(item.flags)
    # values arrive as text and are converted by the declaration, so that the command line, the
    # profiles and Python answer a wrong value alike
    annotation: Any = (Optional[bool] if item.boolean else
                       Optional[List[str]] if item.many else Optional[str])
    completion = _completion(rule.kind) if rule.kind else None
    info = typer.Option(None, *names, help=text, metavar=metavar or None, show_default=False,
                        rich_help_panel=rule.group, autocompletion=completion)
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=info,
                             annotation=annotation)


class SectionedCommand(TyperCommand):
    """Help with the options under the headings of their declarations."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of declaration."""
        sections: Dict[str, List[Any]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                heading = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _completion(kind: str) -> Callable[[str], List[str]]:
    def complete(incomplete: str) -> List[str]:
        from ipucnn.core.registry.registry import registry

        return [name for name in registry().names(kind) if name.startswith(incomplete)]

    return complete


def parsed(options_class: type, arguments: Sequence[str]) -> Dict[str, Any]:
    """Return the options in a list of arguments, by name; for commands within commands.

    Raises:
        UsageError: an unknown option, or one without its value.
    """
    known = {flag: item for item in declared(options_class) for flag in item.flags}
    given: Dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name not in known:
            raise UsageError(f"unknown option {argument!r}",
                             did_you_mean(name, known) or "'--help' lists the options")
        item = known[name]
        if item.boolean:
            given[item.name] = True
            continue
        text = value if equals else next(rest, None)
        if text is None:
            raise UsageError(f"option {name!r} needs a value")
        given[item.name] = [*given.get(item.name, []), text] if item.many else text
    return given


def with_options(*options_classes: type) -> Callable[[Callable[[Dict[str, Any]], Any]], Any]:
    """Give a command the options that dataclasses declare; it gets those the user set."""
    def decorate(command: Callable[[Dict[str, Any]], Any]) -> Callable[..., Any]:
        def wrapper(**values: Any) -> Any:
            return command({name: value for name, value in values.items()
                            if value is not None and value != []})

        parameters = [_parameter(item) for options_class in options_classes
                      for item in declared(options_class)]
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate
