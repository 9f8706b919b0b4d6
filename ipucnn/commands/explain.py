"""`ipucnn explain`: show which parts of an image support a class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional

import typer

from ipucnn.core.errors import UsageError
from ipucnn.core.preprocessing import LARGEST_INPUT
from ipucnn.terminal import tables as render
from ipucnn.terminal.completion import of_plugins
from ipucnn.terminal.options_command import JSON
from ipucnn.terminal.progress import importing_torch

SUFFIXES = (".png", ".jpg", ".jpeg")

MOST_PROBABLE = 3
"""Number of classes that are explained if none are named."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(explain)


def explain(  # noqa: PLR0913 - one per option
    image: str = typer.Argument(metavar="FILE", help="Image file."),
    weights: Optional[str] = typer.Option(
        None, "--weights", metavar="pretrained|FILE|DIR", help="Weights, as in 'ipucnn run'; a "
        "checkpoint contains its model (default: pretrained)."),
    model: Optional[str] = typer.Option(None, "--model", autocompletion=of_plugins("models"),
                                        help="Model (default: resnet18, or that "
                                        "of the weights)."),
    classes: Optional[List[str]] = typer.Option(
        None, "--class", metavar="NAME", help="Name or number of a class to explain; may be "
        "repeated (default: the most probable ones)."),
    top_k: Optional[int] = typer.Option(None, "--top-k", min=1, max=20, help="Number of classes to "
                                        f"explain, the most probable (default: {MOST_PROBABLE})."),
    layer: Optional[str] = typer.Option(None, "--layer", metavar="MODULE", help="Module whose "
                                        "activations are shown (default: the last with "
                                        "convolutions)."),
    input_size: Optional[int] = typer.Option(
        None, "--input-size", min=8, max=LARGEST_INPUT, help="Height and width of the input in "
        "pixels (default: the model's own)."),
    out: Optional[str] = typer.Option(
        None, "--out", metavar="FILE.png|.jpg",
        help="Image to write (default: NAME-explained.png)."),
    as_json: bool = JSON,
) -> None:
    """Show which parts of an image support a class, as a map over the image (Grad-CAM)."""
    from ipucnn.core.files import require_writable, write_bytes
    from ipucnn.core.options.profiles import resolve
    from ipucnn.core.registry.registry import registry
    from ipucnn.inference.options import RunOptions

    if classes and top_k is not None:
        raise UsageError("'--class' and '--top-k' exclude each other", "leave one of them out")
    target = os.path.expanduser(out) if out else f"{Path(image).stem}-explained.png"
    suffix = Path(target).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"image {target!r} has no known format", "its name must end in .png or "
                         ".jpg")
    if os.path.realpath(target) == os.path.realpath(os.path.expanduser(image)):
        raise UsageError(f"'--out' would overwrite {target!r}, which is the image to explain",
                         "name another file")
    require_writable(target)
    given = {"weights": weights, "model": model, "input_size": input_size}
    options = resolve(RunOptions, {
        "backend": "torch", "precision": "full",
        **{name: value for name, value in given.items() if value is not None}})
    with importing_torch():
        from ipucnn.inference.explaining import explain as explained
    with render.only_data(as_json):
        found = explained(os.path.expanduser(image), options, registry(), top_k or MOST_PROBABLE,
                          classes or (), layer)
    from ipucnn.reports.pictures import encoded, side_by_side

    write_bytes(target, encoded(side_by_side([
        (found.path, found.model, found.image),
        *((one.name, f"{100 * one.probability:.1f} %, {found.layer}", one.overlay)
          for one in found.classes)]), suffix))
    if as_json:
        render.emit_json({**found.as_dict(), "out": target})
        return
    render.emit(render.facts([("model", found.model), ("layer", found.layer), ("image", target)]))
    render.emit("\n" + render.table(("class", "probability"), [
        (one.name, f"{100 * one.probability:.1f} %") for one in found.classes]))
