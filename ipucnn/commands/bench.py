"""`ipucnn bench`: measure networks on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

import typer

from ipucnn.benchmarking.network_options import NetworkBenchOptions
from ipucnn.core import exit_codes
from ipucnn.terminal import tables as render
from ipucnn.terminal.options_command import add_command
from ipucnn.terminal.progress import IMPORTING, RunProgress, importing_torch

if TYPE_CHECKING:
    from ipucnn.benchmarking.network_result import NetworkBench


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    add_command(app, bench, NetworkBenchOptions)


def bench(given: Dict[str, Any]) -> int:
    """Benchmark inference or training on this machine, and compare it with other programs."""
    from ipucnn.core.options.building import build
    from ipucnn.reports.result_files import write_result

    options = build(NetworkBenchOptions, given)  # before torch, whose import takes seconds
    with importing_torch(options.results.progress):
        from ipucnn.benchmarking.networks import bench as measured

    with RunProgress(options.results.progress, IMPORTING, "turns") as progress, \
            render.only_data(options.results.json):
        result = measured(options, progress=progress)
    render.each_output(lambda: write_result(result.as_dict(), options.results.result),
                       lambda: _show(result, options.results.json))
    return exit_codes.of_signal(result.stopped_by)


def _show(result: NetworkBench, as_json: bool) -> None:
    if as_json:
        render.emit_json(result.as_dict())
    else:
        render.emit(render.facts(result.facts()))
        for table in result.tables():
            if table.rows:
                title = f"{table.title}\n" if table.title else ""
                render.emit("\n" + title + render.table(table.headings, table.rows))
    for note in result.all_notes():
        render.note(note)
