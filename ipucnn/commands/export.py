"""`ipucnn export`: write ONNX files."""

from __future__ import annotations

from typing import Any, Dict

import typer

from ipucnn.commands._profiles import resolved
from ipucnn.onnx.options import ExportOptions
from ipucnn.terminal import tables as render
from ipucnn.terminal.options_command import add_command
from ipucnn.terminal.progress import busy, importing_torch


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    add_command(app, export, ExportOptions)


def export(given: Dict[str, Any]) -> None:
    """Export a model to an ONNX file, and compare the file with torch."""
    options = resolved(ExportOptions, given, "export")
    with importing_torch():
        from ipucnn.onnx.job import export as exported

    render.info(f"exporting {options.network.checkpoint_path or options.network.model}")
    with busy("tracing and checking the network"), render.only_data(options.results.json):
        result = exported(options)
    if options.results.json:
        render.emit_json(result.as_dict())
    else:
        render.emit(render.facts(result.facts()))
