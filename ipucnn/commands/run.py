"""`ipucnn run`: classify images or benchmark a model."""

from __future__ import annotations

import sys
from typing import Any, Dict

import typer

from ipucnn.commands._profiles import resolved
from ipucnn.core import exit_codes
from ipucnn.inference.options import RunOptions
from ipucnn.terminal import tables as render
from ipucnn.terminal.launch import LaunchOptions, launchable
from ipucnn.terminal.layout import terminal_width
from ipucnn.terminal.options_command import add_command
from ipucnn.terminal.progress import RunProgress, importing_torch
from ipucnn.terminal.run_tables import answers


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    add_command(app, run, RunOptions, LaunchOptions)


@launchable
def run(given: Dict[str, Any]) -> int:
    """Classify images or benchmark a model."""
    from ipucnn.reports.result_files import write_result

    options = resolved(RunOptions, given, "run")  # before torch, whose import takes seconds

    with importing_torch(options.results.progress):
        from ipucnn.inference import bulk

    def show(result: Any) -> None:
        render.each_output(
            lambda: write_result(result.document(), options.results.result, options.results.report),
            lambda: _print(result, options))

    with render.partial_shown(show, lambda result: result.images), \
            RunProgress(options.results.progress) as progress, \
            render.only_data(options.results.json):
        result = bulk.run(options, progress=progress)
    show(result)
    return exit_codes.of_signal(result.stopped_by)


def _print(result: Any, options: RunOptions) -> None:
    if options.results.json:
        render.emit_json(result.as_dict())
    else:
        render.emit(render.facts(result.facts()))
        width = terminal_width(sys.stdout)
        # without a terminal, only if no file of predictions is written
        if result.answers and (width is not None or not options.results.predictions):
            render.emit("\n" + answers(result, width))
    for note in [*result.notes, result.accuracy_note]:
        if note:
            render.note(note)
