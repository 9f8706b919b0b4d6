"""The typer application: registers commands and defines the global options."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from typing import Any, List, Sequence

import typer

from ipucnn.core.registry import discovery
from ipucnn.terminal import tables
from ipucnn.terminal.command_group import CommandGroup
from ipucnn.terminal.spellings import normalise
from ipucnn.version import __version__

COMMANDS = {
    "training": ("train", "restore", "validate", "average"), "run": ("run",), "bench": ("bench",),
    "runs": ("runs", "watch"), "export": ("export",), "plan": ("plan",), "report": ("report",),
    "explain": ("explain",), "plugins": ("list-plugins", "show"),
    "authoring": ("new-plugin", "check-plugin"), "doctor": ("doctor",), "migrate": ("migrate",),
    "data": ("data",), "config": ("config",)}
"""Names of the commands by module of `ipucnn.commands`, in the order of `--help`."""


def application(command: str = "") -> typer.Typer:
    """Return the application.

    Args:
        command: a name. If it is that of a command, only the module of this command is imported:
            all modules with their options take as long to import as a simple command.
    """
    app = typer.Typer(
        name="ipucnn", cls=_Application, rich_markup_mode=None, no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="Train and run image-classification CNNs on CPUs, GPUs and Graphcore IPUs.")
    app.callback()(_globals)
    for module in [name for name, names in COMMANDS.items() if command in names] or COMMANDS:
        import_module(f"ipucnn.commands.{module}").add_to(app)
    return app


class _Application(CommandGroup):
    """The group of all commands, which completes them with the plugins of the command line."""

    def parse_args(self, ctx: Any, args: List[str]) -> List[str]:
        """Parse global options; a completion calls no callback, so that they are used here."""
        if not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        rest = super().parse_args(ctx, normalise(args))
        given = ctx.params
        _use_plugins(given["plugin"] or (), bool(given["no_plugins"]),
                     given["disable_plugins"] or "")
        return rest


def _version(wanted: bool) -> None:
    if wanted:
        tables.emit(f"ipucnn {__version__}")
        raise typer.Exit


def _globals(  # noqa: PLR0913 - one per global option
    version: bool = typer.Option(False, "--version", help="Print the version.",
                                 is_eager=True, callback=_version),
    plugin: List[str] = typer.Option(
        [], "--plugin", metavar="FILE|MODULE", help="Load a plugin for this run; may be repeated. "
        f"Environment: {discovery.EXTRA_VARIABLE}."),
    no_plugins: bool = typer.Option(
        False, "--no-plugins", help="Do not import third-party plugins; with '--no-plugins=a,b', "
        f"do not import a and b. Environment: {discovery.DISABLE_VARIABLE}."),
    disable_plugins: str = typer.Option("", "--disable-plugins", hidden=True),
    traceback_: bool = typer.Option(False, "--traceback", help="Print the traceback of an error."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Print more messages."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print errors only."),
) -> None:
    import logging

    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(tables.LogFormatter("%(levelname)s: %(message)s"))
    handler.addFilter(lambda record: not tables.printed_by_its_library(record))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("ipucnn").setLevel(level)
    tables.be_quiet(quiet)
    _use_plugins(plugin, no_plugins, disable_plugins)


def _use_plugins(plugin: Sequence[str], no_plugins: bool, disable_plugins: str) -> None:
    from ipucnn.core.registry.registry import Registry, use

    settings = discovery.PluginSettings.from_environment()
    named = discovery.PluginSettings.from_environment(
        {discovery.DISABLE_VARIABLE: disable_plugins})
    use(Registry(replace(settings, disabled=settings.disabled | named.disabled,
                         disable_all=settings.disable_all or named.disable_all or no_plugins,
                         extra=(*settings.extra, *plugin))))
