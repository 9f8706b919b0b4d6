"""`ipucnn report`: show finished work as an HTML page or as text."""

from __future__ import annotations

import os
from typing import List, Optional

import typer

from ipucnn.core.errors import UsageError
from ipucnn.terminal import tables as render
from ipucnn.terminal.options_command import JSON


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(report)


def report(
    runs: List[str] = typer.Argument(metavar="RUN...", help="Log folder of a training, or a file "
                                     "of '--result' or '--predictions'; also on a store "
                                     "(s3://...). Several are compared."),
    out: Optional[str] = typer.Option(
        None, "--out", metavar="FILE.html", help="Page to write (default: beside a single "
        "local RUN, or else report.html in the current folder)."),
    open_page: bool = typer.Option(False, "--open", help="Open the page in a browser."),
    text: bool = typer.Option(False, "--text", help="Print text with small curves instead."),
    as_json: bool = JSON,
) -> None:
    """Show trainings, runs, validations, benchmarks and plans as one HTML page.

    The page is a single file that needs no network.
    """
    places = [os.path.expanduser(run) for run in runs]
    if text:
        for flag, given in (("--out", bool(out)), ("--open", open_page), ("--json", as_json)):
            if given:
                raise UsageError(f"'--text' and '{flag}' exclude each other",
                                 "'--text' prints, and writes no page")
        import sys

        from ipucnn.reports.job import text_report
        from ipucnn.terminal.layout import terminal_width

        # 80 columns for output that is not a terminal
        render.emit(text_report(places, terminal_width(sys.stdout) or 80))
        return
    from ipucnn.reports.job import report as written

    path = written(places, os.path.expanduser(out) if out else None)
    if as_json:
        render.emit_json({"format": "ipucnn.report/1", "path": str(path), "runs": places})
    else:
        render.emit(str(path))
    if open_page:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            render.note("no browser can be opened here; the page is in the file")
