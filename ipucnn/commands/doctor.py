"""`ipucnn doctor`: check the installation and suggest fixes."""

from __future__ import annotations

import typer

from ipucnn.terminal import tables as render
from ipucnn.terminal.listings import without_loader_warnings
from ipucnn.terminal.options_command import JSON


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    deep: bool = typer.Option(False, "--deep", help="Also import and test the engines."),
    as_json: bool = JSON,
) -> int:
    """Check the installation and suggest fixes.

    The exit code is 1 if there is a problem.
    """
    from ipucnn.doctor.job import examine

    with without_loader_warnings(), render.only_data(as_json):
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
