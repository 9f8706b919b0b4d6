"""The command that writes ONNX files."""

from __future__ import annotations

from typing import Any, Dict

import typer

from ipucnn.core.options import ExportOptions
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.flags import SectionedCommand, with_options


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(cls=SectionedCommand)(export)


@with_options(ExportOptions)
def export(given: Dict[str, Any]) -> None:
    """Write a network as an ONNX file, checked and compared with torch."""
    from ipucnn.core.options.profiles import resolve

    options = resolve(ExportOptions, given, "export")
    with signals.held():
        from ipucnn.onnx.job import export as exported

    render.info(f"exporting {options.checkpoint_path or options.model}")
    result = exported(options)
    if options.json:
        render.emit_json(result.as_dict())
    else:
        render.emit(render.export_result(result))
