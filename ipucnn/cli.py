"""The command line: parse, call the core, print; nothing else.

Options of a command come from its dataclass in `ipucnn.core.options`. Everything heavy is imported
inside the commands, so that `--help`, completion and listings start in a blink.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional

import typer

import ipucnn
from ipucnn import cli_data, cli_export, cli_plan, cli_training, render, signals
from ipucnn.command import JSON, SectionedCommand, with_options
from ipucnn.core import discovery
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.instances import speaks
from ipucnn.core.options import PROFILED, RunOptions

app = typer.Typer(
    name="ipucnn", rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Train and run image-classification CNNs on IPUs, and with the same command on CPU "
         "and GPU.")
config_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True,
                         help="Named profiles for '--config' and '--launch'.")
app.add_typer(cli_data.app, name="data")
app.add_typer(config_app, name="config")

KINDS = "model, dataset, norm-layer, optimizer, schedule, backend"


def _version(wanted: bool) -> None:
    if wanted:
        render.emit(f"ipucnn {ipucnn.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    version: bool = typer.Option(False, "--version", help="Print the version.",
                                 is_eager=True, callback=_version),
    plugin: List[str] = typer.Option(
        [], "--plugin", metavar="FILE|MODULE", help="Load a plugin for this run; may be repeated. "
        f"Environment: {discovery.EXTRA_VARIABLE}."),
    no_plugins: bool = typer.Option(
        False, "--no-plugins", help="Import no third-party plugin; '--no-plugins=a,b' only not "
        f"these. Environment: {discovery.DISABLE_VARIABLE}."),
    disable_plugins: str = typer.Option("", "--disable-plugins", hidden=True),
    traceback_: bool = typer.Option(False, "--traceback", help="Show where an error came from."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say more on standard error."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Say only errors."),
) -> None:
    import logging

    from ipucnn.core.registry import Registry, use

    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    logging.getLogger("ipucnn").setLevel(level)
    render.be_quiet(quiet)
    settings = discovery.PluginSettings.from_environment()
    disabled = {name for name in disable_plugins.split(",") if name}
    use(Registry(replace(settings, disable_all=settings.disable_all or no_plugins,
                         disabled=settings.disabled | disabled,
                         extra=(*settings.extra, *plugin))))


@contextmanager
def _rows_speak() -> Iterator[None]:
    """Keep the loader's warnings out of a listing, which says the same in its rows."""
    import logging

    loader = logging.getLogger("ipucnn.plugins")

    def no_warning(record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING

    loader.addFilter(no_warning)
    try:
        yield
    finally:
        loader.removeFilter(no_warning)


cli_training.add_to(app)
cli_export.add_to(app)
cli_plan.add_to(app)

# -- commands ----------------------------------------------------------------------------------


@app.command(cls=SectionedCommand)
@with_options(RunOptions)
def run(given: Dict[str, Any]) -> int:
    """Classify images, or measure how fast that goes."""
    from ipucnn.core.files import write_json
    from ipucnn.core.profiles import resolve

    options = resolve(RunOptions, given)  # before torch, whose import takes seconds

    with signals.held():
        from ipucnn.core import bulk

    def show(result: Any) -> None:
        if options.json:
            render.emit_json(result.as_dict())
        else:
            render.emit(render.run_result(result))
        for note in [*result.notes, result.accuracy_note]:
            if note:
                render.note(note)
        if options.result and speaks():
            write_json(options.result, result.as_dict())

    try:
        with render.RunProgress(options.progress) as progress:
            result = bulk.run(options, progress=progress)
    except IpucnnError as error:
        if error.partial is not None and error.partial.images:
            show(error.partial)
        raise
    show(result)
    return {"SIGINT": 130, "SIGTERM": 143}.get(result.stopped_by or "", 0)


@app.command("list-plugins")
def list_plugins(
    kinds: Optional[List[str]] = typer.Argument(None, metavar="[KIND]...",
                                                help="Kinds: " + KINDS),
    pattern: str = typer.Option("*", "--filter", metavar="PATTERN",
                                help="Only names like this, for example 'resnet*'."),
    as_json: bool = JSON,
) -> None:
    """List the plugins of every kind and their state."""
    from ipucnn.core.listing import entry
    from ipucnn.core.registry import State, registry
    from ipucnn.core.specs import kind_named

    wanted: List[Optional[str]] = [kind_named(kind).name for kind in kinds or []] or [None]
    with _rows_speak():
        rows = [row for kind in wanted for row in registry().rows(kind, pattern)]
    if as_json:
        render.emit_json([entry(row) for row in rows])
        return
    if not rows:
        render.say(f"nothing matches {pattern!r}")
        return
    render.emit(render.table(
        ("kind", "name", "aliases", "summary", "provider", "state"),
        [(row.kind or "plugin", row.name, ", ".join(row.spec.aliases) if row.spec else "",
          row.spec.summary if row.spec else "", row.provider.label, row.state.value)
         for row in rows]))
    if any(row.state is not State.OK for row in rows):
        render.emit("")
    for row in rows:
        if row.state is not State.OK:
            render.emit(f"{row.kind or 'plugin'} '{row.name}' of {row.provider.label} "
                       f"({row.provider.entry_point}) is {row.state.value}: {row.cause}"
                       + (f"; {row.remedy}" if row.remedy else ""))


def _plotted(kind: str, name: str, settings: List[str]) -> str:
    import shutil

    from ipucnn.command import parsed
    from ipucnn.core.options import TrainOptions
    from ipucnn.core.plot import plot_schedule
    from ipucnn.core.profiles import resolve
    from ipucnn.core.registry import registry
    from ipucnn.core.specs import kind_named
    from ipucnn.core.training.rates import learning_rate

    if kind_named(kind).name != "schedule":
        raise UsageError("'--plot' draws learning-rate schedules only",
                         "'ipucnn list-plugins schedules' lists them")
    options = resolve(TrainOptions, {**parsed(TrainOptions, settings), "lr_schedule": name},
                      "train")
    width, height = shutil.get_terminal_size()
    return plot_schedule(learning_rate(options, registry()), options.epoch, min(width, 100),
                         min(height - 2, 24))


@app.command(context_settings={"ignore_unknown_options": True})
def show(
    kind: str = typer.Argument(help="Kind: " + KINDS),
    name: str = typer.Argument(help="Its name."),
    splits: bool = typer.Option(False, "--splits",
                                help="List the modules of a model that can begin a stage."),
    plot: bool = typer.Option(False, "--plot", help="Draw a learning-rate schedule; options of "
                              "'train' may follow ('--lr 0.1 --epoch 90 --warmup-epoch 5')."),
    settings: Optional[List[str]] = typer.Argument(None, metavar="[TRAIN OPTION]...",
                                                   help="With '--plot'."),
    as_json: bool = JSON,
) -> None:
    """Show one plugin; of a model size and weights, of a schedule its curve."""
    from ipucnn.core import listing

    if plot:
        render.emit(_plotted(kind, name, settings or []))
        return
    if settings:
        raise UsageError(f"unexpected argument {settings[0]!r}", "'--help' lists the options")
    if splits:
        names = listing.splits(kind, name)
        render.emit_json(names) if as_json else render.emit("\n".join(names))
        return
    described = listing.describe(kind, name)
    if as_json:
        render.emit_json(described)
        return
    weights = described.pop("weights", [])
    render.emit(render.facts((key.replace("_", " "), value) for key, value in described.items()))
    if weights:
        render.emit("\n" + render.table(
            ("weights", "top-1 %", "top-5 %", "licence", "source", "url"),
            [(w["tag"], str(w["top1"] or ""), str(w["top5"] or ""), w["licence"], w["source"],
              w["url"]) for w in weights]))


@app.command()
def doctor(
    deep: bool = typer.Option(False, "--deep", help="Also import and try the engines."),
    as_json: bool = JSON,
) -> int:
    """Check this installation and say what mends it.

    Exit code 1 when there is a problem.
    """
    from ipucnn.core.doctor import examine

    with _rows_speak():
        report = examine(deep=deep)
    if as_json:
        render.emit_json(report.as_dict())
    else:
        render.emit(render.table(("check", "status", "detail"), [
            (check.name, check.status, check.detail) for check in report.checks]))
        for check in report.checks:
            if check.status != "ok" and check.remedy:
                render.say(f"{check.name}: {check.remedy}")
    return 0 if report.ok else 1


@app.command("check-plugin")
def check_plugin(
    name: str = typer.Argument(metavar="DISTRIBUTION|KIND:NAME",
                               help="A distribution, or one plugin such as 'model:tinynet'."),
    as_json: bool = JSON,
) -> int:
    """Run the conformance checks on a plugin.

    Exit code 1 when one fails.
    """
    from ipucnn.testing import check_named

    results = check_named(name)
    if as_json:
        render.emit_json(results)
    else:
        render.emit(render.table(("plugin", "check", "result"), [
            (plugin, check, outcome) for plugin, checks in results.items()
            for check, outcome in checks.items()]))
    failed = [outcome for checks in results.values() for outcome in checks.values()
              if outcome != "passed" and not outcome.startswith("skipped")]
    return 1 if failed else 0


@config_app.command("list")
def config_list(as_json: bool = JSON) -> None:
    """List the named profiles."""
    from ipucnn.core.profiles import available

    profiles = [(command, p) for command in PROFILED for p in available(command)]
    if as_json:
        render.emit_json([{"name": p.name, "command": command, "summary": p.summary}
                          for command, p in profiles])
    else:
        render.emit(render.table(("profile", "command", "summary"),
                                 [(p.name, command, p.summary) for command, p in profiles]))


@config_app.command("show")
def config_show(name: str = typer.Argument(help="A profile's name or YAML file."),
                command: Optional[str] = typer.Option(
                    None, "--command", help="What it is for: run, train or launch; the one that "
                    "has it when not given."),
                as_json: bool = JSON) -> None:
    """Show a profile with all defaults resolved."""
    import yaml

    from ipucnn.core.declaration import as_dict, build
    from ipucnn.core.profiles import command_of, values_of

    chosen = command or command_of(name)
    if chosen not in PROFILED:
        raise UsageError(f"command {chosen!r} has no profiles", "commands: " + ", ".join(PROFILED))
    kind = PROFILED[chosen]
    options = as_dict(build(kind, values_of(kind, name, chosen)))
    render.emit_json(options) if as_json else render.emit(
        yaml.safe_dump(options, sort_keys=False))
