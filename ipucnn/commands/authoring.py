"""`ipucnn new-plugin` and `check-plugin`, for authors of plugins."""

from __future__ import annotations

from typing import Dict, List, Optional

import typer

from ipucnn.core.errors import UsageError
from ipucnn.core.files import expanded_path
from ipucnn.core.registry.kinds import KINDS
from ipucnn.terminal import tables as render
from ipucnn.terminal.completion import of_words
from ipucnn.terminal.options_command import JSON, home

_KINDS = (*KINDS, "training-backend")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("new-plugin")(new_plugin)
    app.command("check-plugin")(check_plugin)


def new_plugin(
    name: str = typer.Argument(metavar="NAME", help="Name of the plugin; 'my-net' becomes "
                               "the distribution ipucnn-my-net."),
    kinds: List[str] = typer.Option(..., "--kind", metavar="KIND", autocompletion=of_words(*_KINDS),
                                    help="Kind of plugin; may be "
                                    "repeated. Kinds: " + ", ".join(_KINDS)
                                    + " ('backend' is one for inference alone)."),
    into: Optional[str] = typer.Option(None, "--into", metavar="DIR", help="Write the files into "
                                       "DIR itself, for example an empty repository (default: a "
                                       "new folder ipucnn-NAME)."),
    single_file: bool = typer.Option(False, "--single-file", help="Write one file for "
                                     "'--plugin' instead of a distribution."),
    as_json: bool = JSON,
) -> None:
    """Create a new plugin: a distribution with options, tests, README and licence, or one file.

    The new plugin works unchanged. Change its parts one by one, and check it with 'check-plugin'.
    """
    from ipucnn.scaffolding.scaffold import NewPlugin, choices_named, write

    bare = name[len("ipucnn-"):] if name.startswith("ipucnn-") else name
    plugin = NewPlugin(bare, choices_named(kinds))
    default = "." if single_file else plugin.distribution
    folder = expanded_path(default if into is None else into)
    written, kept = write(plugin.single_file() if single_file else plugin.files(), folder)
    if as_json:
        render.emit_json({"distribution": "" if single_file else plugin.distribution,
                          "written": [str(path) for path in written],
                          "kept": [str(path) for path in kept]})
        return
    render.emit("\n".join(str(path) for path in written))
    for path in kept:
        render.say(f"'{path}' exists and was kept")
    if single_file:
        words = plugin.examples()[0].partition(" ")[2]
        render.say(f"try it: ipucnn --plugin {written[0]} {words}")
        render.say(f"check it: ipucnn check-plugin {written[0]}")
    else:
        render.say(f"install it: pip install -e '{folder}[test]'")
        render.say(f"check it: pytest {folder / 'tests'}, and ipucnn check-plugin "
                   f"{plugin.distribution}")


def check_plugin(
    names: List[str] = typer.Argument(metavar="NAME|DISTRIBUTION|FILE...", help="Distributions, "
                                      "plugins ('tinynet', 'model:tinynet') or files."),
    data_dir: Optional[str] = typer.Option(None, "--data-dir", metavar="DIR", callback=home,
                                           help="Folder for datasets that read files, in "
                                           "their layout."),
    settings: List[str] = typer.Option([], "--set", metavar="OPTION=VALUE", help="Option of "
                                       "the plugins in the checks; may be repeated."),
    excluded: List[str] = typer.Option([], "--exclude", metavar="CHECK=REASON", help="Do not run "
                                       "a check; may be repeated."),
    as_json: bool = JSON,
) -> int:
    """Run the conformance checks on plugins.

    The exit code is 1 if a check fails.
    """
    from ipucnn.testing.reports import Wishes, check_all, failures, shown

    results = check_all(names, Wishes(data_dir, _pairs("--set", settings),
                                      _pairs("--exclude", excluded)))
    if as_json:
        render.emit_json(results)
    else:
        render.emit(shown(results))
    return 1 if failures(results) else 0


def _pairs(flag: str, texts: List[str]) -> Dict[str, str]:
    """Return `NAME=VALUE` texts as a mapping.

    Raises:
        UsageError: a text has no `=`.
    """
    for text in texts:
        if "=" not in text.strip("="):
            raise UsageError(f"'{flag} {text}' has no value", f"write '{flag} NAME=VALUE'")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in texts)}
