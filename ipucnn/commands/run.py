"""`ipucnn run`: classify images or benchmark a model."""

from __future__ import annotations

from typing import Any, Dict

import typer

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.instances import speaks
from ipucnn.inference.options import RunOptions
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.flags import SectionedCommand, with_options


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(cls=SectionedCommand)(run)


@with_options(RunOptions)
def run(given: Dict[str, Any]) -> int:
    """Classify images, or measure how fast that goes."""
    from ipucnn.core.files import write_json
    from ipucnn.core.options.profiles import resolve

    options = resolve(RunOptions, given)  # before torch, whose import takes seconds

    with signals.held():
        from ipucnn.inference import bulk

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
