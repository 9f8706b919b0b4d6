"""`ipucnn list-plugins` and `show`: list and describe plugins."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Optional, Tuple

import typer

from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.names import did_you_mean, key, printable
from ipucnn.core.registry.kinds import KINDS, kind_named
from ipucnn.terminal import tables as render
from ipucnn.terminal.completion import of_names, of_words
from ipucnn.terminal.layout import terminal_width, wrapped
from ipucnn.terminal.listings import (
    as_markdown,
    by_family,
    problem_of,
    row_table,
    without_loader_warnings,
)
from ipucnn.terminal.options_command import JSON

_KINDS = ", ".join(KINDS)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("list-plugins")(list_plugins)
    app.command(context_settings={"ignore_unknown_options": True})(show)


def list_plugins(
    kinds: Optional[List[str]] = typer.Argument(None, metavar="[KIND]...",
                                                autocompletion=of_words(*KINDS),
                                                help="Kinds: " + _KINDS),
    pattern: str = typer.Option("*", "--filter", metavar="PATTERN",
                                help="List only names that match, for example 'resnet*'."),
    wide: bool = typer.Option(False, "--wide", help="Print a row per plugin with aliases, provider "
                              "and state instead of names by family; the default in pipes."),
    markdown: bool = typer.Option(False, "--markdown", help="Print a Markdown page with a "
                                  "section per distribution."),
    as_json: bool = JSON,
) -> None:
    """List the plugins of every kind and their state."""
    forms = [flag for flag, given in (("--wide", wide), ("--markdown", markdown),
                                      ("--json", as_json)) if given]
    if len(forms) > 1:
        raise UsageError(f"'{forms[0]}' and '{forms[1]}' exclude each other",
                         "leave one of them out")
    from ipucnn.core.registry.listing import entry
    from ipucnn.core.registry.registry import State, registry

    wanted: List[Optional[str]] = [kind_named(kind).name for kind in kinds or []] or [None]
    with without_loader_warnings():
        rows = [row for kind in wanted for row in registry().rows(kind, pattern)]
    if as_json:
        render.emit_json([entry(row) for row in rows])
        return
    if markdown:
        render.emit(as_markdown(rows))
        return
    if not rows:
        render.say(f"nothing matches {pattern!r}")
        return
    width = terminal_width(sys.stdout)
    render.emit(row_table(rows) if width is None or wide else by_family(rows, width))
    unusable = [wrapped(printable(problem_of(row)), width) for row in rows
                if row.state is not State.OK]
    if unusable:
        render.emit("\n".join(["", *unusable]))
    if width is not None and not wide:
        render.emit("\n" + wrapped(
            "'ipucnn show NAME' describes one plugin; '--wide' lists aliases and states", width))


def _plotted(kind: str, name: str, settings: List[str]) -> str:
    import shutil

    from ipucnn.core.options.profiles import resolve
    from ipucnn.core.registry.registry import registry
    from ipucnn.planning.plot import plot_schedule
    from ipucnn.terminal.flags import parsed
    from ipucnn.training.options.train_options import TrainOptions
    from ipucnn.training.setup.rates import learning_rate

    if kind_named(kind).name != "lr-schedule":
        raise UsageError("'--plot' draws learning-rate schedules only",
                         "'ipucnn list-plugins lr-schedules' lists them")
    given = parsed(TrainOptions, settings, registry())
    options = resolve(TrainOptions, {**given, "lr_schedule": name}, "train")
    size = shutil.get_terminal_size()
    return plot_schedule(learning_rate(options, registry()), options.optimisation.epochs,
                         min(size.columns or 80, 100), min((size.lines or 24) - 2, 24))


def show(
    kind: Optional[str] = typer.Argument(None, metavar="[KIND]",
                                         autocompletion=of_names(*KINDS),
                                         help="Kind of plugin, "
                                         "if several have this name: " + _KINDS),
    name: Optional[str] = typer.Argument(None, metavar="NAME", help="Name of a plugin or a file.",
                                         autocompletion=of_names()),
    splits: bool = typer.Option(False, "--splits",
                                help="List the modules that can begin a pipeline stage."),
    plot: bool = typer.Option(False, "--plot", help="Plot a learning-rate schedule; options of "
                              "'train' may follow ('--lr 0.1 --epoch 90 --warmup-epoch 5')."),
    settings: Optional[List[str]] = typer.Argument(None, metavar="[TRAIN OPTION]...",
                                                   help="Options of 'train', with '--plot'."),
    as_json: bool = JSON,
) -> None:
    """Show a plugin: its options, the size and weights of a model, the curve of a schedule.

    For a checkpoint, a folder of checkpoints or an ONNX file, the model card is shown.
    """
    if plot and (splits or as_json):
        raise UsageError(f"'--plot' and '{'--splits' if splits else '--json'}' exclude each other",
                         "leave one of them out")
    if kind and not name and _is_model(kind):
        if splits or plot:
            raise UsageError(f"'{'--splits' if splits else '--plot'}' is for plugins by name, and "
                             f"{kind!r} is a file or folder", "'ipucnn show FILE' shows its model")
        _show_card(kind, as_json)
        return
    kind, name, settings = _named([word for word in (kind, name, *(settings or [])) if word])
    if plot:
        from ipucnn.runs.dashboard import encodable

        render.emit(encodable(_plotted(kind, name, settings),
                              getattr(sys.stdout, "encoding", None)))
        return
    if settings:
        raise UsageError(f"unexpected argument {settings[0]!r}", "'--help' lists the options")
    if splits:
        with render.only_data(as_json):
            names = _splits(kind, name)
        render.emit_json(names) if as_json else render.emit("\n".join(names))
        return
    with render.only_data(as_json):
        described = _described(kind, name)
    if as_json:
        render.emit_json(described)
        return
    weights, options = described.pop("weights", []), described.pop("options")
    render.emit(render.facts((key.replace("_", " "), value) for key, value in described.items()))
    if weights:
        render.emit("\n" + render.table(
            ("weights", "top-1 %", "top-5 %", "licence", "source", "url"),
            [(w["tag"], str(w["top1"] or ""), str(w["top5"] or ""), w["licence"], w["source"],
              w["url"]) for w in weights]))
    if options:
        render.emit("\n" + render.table(
            ("option", "default", "meaning"),
            [(o["flag"], "" if o["default"] in (None, []) else str(o["default"]), o["help"])
             for o in options]))


def _is_model(word: str) -> bool:
    from ipucnn.data.remote.stores import is_store
    from ipucnn.models.checkpoint_names import NAME

    if is_store(word):
        return True
    if os.path.isdir(word):  # others may have the name of a plugin
        return any(NAME.fullmatch(name) for name in os.listdir(word))
    return os.path.isfile(word) and bool(os.path.splitext(word)[1])


def _show_card(place: str, as_json: bool) -> None:
    """Print the model card of a file, or of the chosen checkpoint in a folder.

    Raises:
        IpucnnError: it cannot be read, or has no card.
    """
    from ipucnn.core.registry.registry import registry
    from ipucnn.terminal.progress import importing_torch

    with importing_torch():
        from ipucnn.onnx.any_card import card_of_file

    path, card = card_of_file(place, registry())
    if as_json:
        render.emit_json({"file": path, **card.as_plain()})
        return
    render.emit(render.facts([("file", path), *card.facts()]))


def _named(words: List[str]) -> Tuple[str, str, List[str]]:
    """Return the kind and the name of the plugin that arguments mean, and the other arguments.

    The kind may be left out where only one has the name.

    Raises:
        UsageError: the name is missing, unknown or that of plugins of several kinds.
    """
    from ipucnn.core.registry.listing import kinds_of
    from ipucnn.core.registry.registry import registry

    if not words:
        raise UsageError("the name of a plugin is missing", "for example 'ipucnn show resnet50'; "
                         "'ipucnn list-plugins' lists them")
    first, *others = words
    if others and not others[0].startswith("-"):
        return first, others[0], others[1:]
    kinds = kinds_of(first)
    if len(kinds) == 1:
        return kinds[0], first, others
    if kinds:
        raise UsageError(f"{first!r} is the name of several plugins",
                         "add the kind: " + " or ".join(
                             f"'ipucnn show {kind} {first}'" for kind in kinds))
    if key(first) in {key(word) for kind in KINDS.values() for word in (
            kind.name, kind.plural, kind.prefix, *kind.former)}:
        kind = kind_named(first)
        raise UsageError(f"the name of the {kind.name} is missing",
                         f"'ipucnn list-plugins {kind.plural}' lists them")
    if os.path.isdir(first):
        raise UsageError(f"folder {first!r} has no checkpoints, and no plugin has this name",
                         "name a weights file, or a folder that '--checkpoint-path' of a training "
                         "wrote")
    if os.sep in first or os.path.splitext(first)[1] in (".pt", ".pth", ".onnx", ".safetensors"):
        raise UsageError(f"there is no file {first!r}, and no plugin has this name",
                         "check its name")
    suggestion = did_you_mean(first, [name for kind in KINDS for name in registry().names(kind)])
    raise UnknownNameError(f"there is no plugin {first!r}", (
        suggestion + " " if suggestion else "") + "'ipucnn list-plugins' lists all")


def _described(kind: str, name: str) -> Dict[str, Any]:
    """Return the description of one plugin, including its options, as plain types."""
    from ipucnn.core.options.declaration import declared
    from ipucnn.core.registry import listing
    from ipucnn.core.registry.records import ModelSpec
    from ipucnn.core.registry.registry import registry

    described = listing.describe(kind, name)
    spec = registry().get(kind, name)
    if isinstance(spec, ModelSpec):
        from ipucnn.models.build import describe_model

        described.update(describe_model(name))
    options = registry().options_class(spec)
    described["options"] = [] if options is None else [
        {"name": item.name, "flag": item.flag, "spellings": list(item.flags),
         "default": list(item.default) if isinstance(item.default, tuple) else item.default,
         "choices": list(item.option.choices), "help": item.option.help}
        for item in declared(options)]
    return described


def _splits(kind: str, name: str) -> List[str]:
    """Return the modules of a model that can begin a pipeline stage, in order of execution."""
    if kind_named(kind).name != "model":
        raise UsageError(f"'--splits' is for models, not for a {kind_named(kind).name}")
    from ipucnn.models.build import model_splits

    return model_splits(name)
