"""`ipucnn data`: download, create, divide, convert and verify data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional

import typer

from ipucnn.benchmarking.options import BenchOptions
from ipucnn.core.errors import UsageError
from ipucnn.core.names import printable
from ipucnn.core.options.conversion import LARGEST_SIZE
from ipucnn.core.preprocessing import LARGEST_INPUT
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.terminal import tables as render
from ipucnn.terminal.command_group import CommandGroup
from ipucnn.terminal.completion import of_plugins, of_words
from ipucnn.terminal.options_command import JSON, add_command, home
from ipucnn.terminal.progress import RunProgress, importing_torch

if TYPE_CHECKING:
    from ipucnn.benchmarking.bench_result import BenchResult

MOST_IMAGES = 10 ** 7
"""Limit of the numbers of images per class, and of parts."""

_app = typer.Typer(cls=CommandGroup, rich_markup_mode=None, no_args_is_help=True,
                   help="Download, create, inspect, convert and check datasets.")


def add_to(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    app.add_typer(_app, name="data")


@_app.command("fetch")
def fetch(
    name: str = typer.Argument(autocompletion=of_words("sample-images"),
                               help="Data to download: 'sample-images'."),
    out: Optional[str] = typer.Option(None, "--out", metavar="DIR", callback=home,
                                      help="Folder to write (default: data/images)."),
) -> None:
    """Download the images that the examples use."""
    from ipucnn.data.formats.sample_data import fetch_named

    for path in fetch_named(name, out):
        render.emit(printable(str(path)))


@_app.command("shapes")
def shapes(
    out: str = typer.Option(..., "--out", metavar="DIR", callback=home, help="Folder to write."),
    per_class: int = typer.Option(20, "--per-class", min=1, max=MOST_IMAGES,
                                  help="Images per class."),
    size: int = typer.Option(224, "--size", min=8, max=LARGEST_INPUT,
                             help="Height and width in pixels."),
    seed: int = typer.Option(0, "--seed", min=0, max=LARGEST_SIZE,
                             help="Random seed of the images."),
    validation_per_class: int = typer.Option(
        0, "--validation-per-class", min=0, max=MOST_IMAGES,
        help="Additional images per class for validation; the images are then in 'train' and "
        "'validation'."),
) -> None:
    """Draw sample images (shapes) as JPEG files in class folders."""
    from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

    count = write_made("shapes", out, GeneratedFiles(
        per_class, size, seed, validation_per_class=validation_per_class))
    render.emit(f"{count} images in {printable(out)}")


@_app.command("partition")
def partition(
    data_dir: str = typer.Option(..., "--data-dir", metavar="DIR", callback=home,
                                 help="Folder of the images."),
    partitions: int = typer.Option(..., "--partitions", min=1, max=MOST_IMAGES,
                                   help="Number of parts."),
    output: str = typer.Option(..., "--output", metavar="DIR", callback=home,
                               help="Folder to create, with subfolders 0, 1, ..."),
    copy: bool = typer.Option(False, "--copy", help="Copy the images instead of linking them."),
    as_json: bool = JSON,
) -> None:
    """Divide a folder of images into numbered folders of equal size.

    Images are divided in the order of their names and keep their names. They become hard links, or
    symbolic links or copies if that is not possible. '--verbose' prints the folder of each image.
    """
    from ipucnn.data.formats.partition import partition

    made = partition(data_dir, partitions, output, copy)
    for note in made.notes:
        render.note(note)
    render.emit_json(made.as_dict()) if as_json else render.emit(made.summary())


def convert(given: Dict[str, Any]) -> None:
    """Convert a dataset to shards (tar archives), which are faster to read than many files.

    Run the same command again to continue an interrupted conversion.
    """
    from ipucnn.core.options.building import build

    options = build(ConvertOptions, given)
    with importing_torch():
        from ipucnn.data.formats.convert import convert

    try:
        with RunProgress("auto", "listing the images") as progress, \
                render.only_data(options.execution.json):
            made = convert(options, progress)
    except KeyboardInterrupt:
        render.info("finished shards are kept; run the same command again to continue")
        raise
    for note in made.notes:
        render.note(note)
    render.emit_json(made.as_dict()) if options.execution.json else render.emit(made.summary())


@_app.command("verify")
def verify(
    path: str = typer.Argument(metavar="DIR", callback=home, help="Folder of the dataset."),
    data: Optional[str] = typer.Option(None, "--data", autocompletion=of_plugins("datasets"),
                                       help="Format (default: recognised by "
                                       "its layout)."),
    as_json: bool = JSON,
) -> int:
    """Check that a dataset on disk is complete and unchanged.

    The exit code is 1 if there is a problem.
    """
    from ipucnn.data.formats.verify import verification

    found = verification(path, data)
    for note in found.notes:
        render.note(note)
    if as_json:
        render.emit_json(found.as_dict())
    else:
        render.emit("\n".join(map(printable, found.problems))
                    or f"{printable(path)}: no problem found")
    return 0 if found.ok else 1


@_app.command("show")
def show(  # noqa: PLR0913 - one per option
    path: str = typer.Argument(metavar="DIR", callback=home, help="Folder of the dataset."),
    augmented: bool = typer.Option(False, "--augmented", help="Show random crops and flips as in "
                                   "training; by default, the images are as in validation."),
    out: str = typer.Option("contact-sheet.html", "--out", metavar="FILE.html|.png|.jpg",
                            callback=home, help="Page or image to write."),
    per_class: int = typer.Option(4, "--per-class", min=1, max=100, help="Images per class; fewer "
                                  "if there are many classes."),
    data: Optional[str] = typer.Option(None, "--data", autocompletion=of_plugins("datasets"),
                                       help="Format of the dataset (default: "
                                       "recognised by its layout)."),
    split: Optional[str] = typer.Option(None, "--split", metavar="train|validation", help="Split "
                                        "to show (default: train)."),
    model: str = typer.Option("resnet18", "--model", autocompletion=of_plugins("models"),
                              help="Model whose preprocessing is "
                              "used."),
    weights: str = typer.Option("random", "--weights", metavar="FILE|DIR|pretrained",
                                help="Weights of the model, possibly with own preprocessing."),
    input_size: Optional[int] = typer.Option(
        None, "--input-size", min=8, max=LARGEST_INPUT, help="Height and width of the input in "
        "pixels (default: the model's own)."),
    rand_augment: int = typer.Option(0, "--rand-augment", min=0, max=100, help="Number of "
                                     "RandAugment operations per image, with '--augmented'."),
    min_crop_area: Optional[float] = typer.Option(
        None, "--min-crop-area", min=0.001, max=1.0, help="Minimum area of a random crop, as a "
        "share of the image, with '--augmented' (default: 0.35)."),
    seed: int = typer.Option(0, "--seed", min=0, max=LARGEST_SIZE, help="Random seed."),
    as_json: bool = JSON,
) -> None:
    """Show images of a dataset by class, as stored and as a network receives them."""
    if split not in (None, "train", "validation"):
        raise UsageError(f"option '--split': {split!r} is not one of its values",
                         "values: train, validation")
    if not augmented and (rand_augment or min_crop_area is not None):
        flag = "--rand-augment" if rand_augment else "--min-crop-area"
        raise UsageError(f"'{flag}' is for the images of a training", "add '--augmented'")
    from ipucnn.core.files import require_writable
    from ipucnn.core.registry.registry import registry
    from ipucnn.reports.contact_sheet import SheetRequest, check_format, contact_sheet, write_sheet

    check_format(out)
    require_writable(out)
    with importing_torch():
        from ipucnn.core.options.building import build
        from ipucnn.models.options import ModelOptions
        from ipucnn.models.weights_card import preprocessing_of
        from ipucnn.training.setup.defaults import SMALLEST_CROP
    network = build(ModelOptions, {"model": model, "weights": weights, "input_size": input_size})
    with render.only_data(as_json):
        sheet = contact_sheet(SheetRequest(
            path, preprocessing_of(network.network, registry()), data, split, augmented, per_class,
            seed, rand_augment, SMALLEST_CROP if min_crop_area is None else min_crop_area),
            registry())
    write_sheet(sheet, out)
    for note in sheet.notes:
        render.note(note)
    if as_json:
        render.emit_json({"format": "ipucnn.data-show/1", "path": out, "classes": sheet.counts})
    else:
        render.emit(render.table(("class", "images"), [
            (name, f"{count:,}") for name, count in sheet.counts.items()]))
        render.emit(f"\n{printable(out)}")


def bench(given: Dict[str, Any]) -> None:
    """Measure how fast images are prepared, and whether data loading would be the bottleneck."""
    from ipucnn.core.options.building import build
    from ipucnn.reports.result_files import write_result

    options = build(BenchOptions, given)  # before torch, whose import takes seconds
    with importing_torch(options.results.progress):
        from ipucnn.benchmarking.job import bench as measured

    with RunProgress(options.results.progress, "opening the data") as progress, \
            render.only_data(options.results.json):
        result = measured(options, progress=progress)
    render.each_output(
        lambda: write_result(result.as_dict(), options.results.result),
        lambda: render.emit_json(result.as_dict()) if options.results.json
        else render.emit(_measurements(result)))
    for note in result.notes:
        render.note(note)


def _measurements(result: BenchResult) -> str:
    """Return host measurements as text: facts, steps and loader by workers."""
    compute, wait = result.compute, result.waiting
    head = render.facts([
        ("data", result.dataset),
        ("images", f"{result.samples:,} of {result.images:,} per pass, for "
                   + ("training" if result.job == "train" else result.job)),
        ("prepared", f"{result.input_size} pixels, {result.pixels}, in batches of "
                     f"{result.batch_size:,}"),
        ("decoded by", f"simplejpeg {result.decoders['simplejpeg']}"),
        ("resized by", result.decoders["resize"]),
        ("skipped", f"{result.skipped['count']} bad images" if result.skipped["count"] else None)])
    one = render.table(("one thread", "images/s"),
                       [(name, _rate(rate)) for name, rate in result.steps.items()])
    rows = render.table(
        ("workers" if result.mode == "threads" else f"workers ({result.mode})", "images/s",
         "libjpeg-turbo alone", "ratio"),
        [(str(row.workers), _rate(row.images_per_second), _rate(row.limit),
          "" if row.ratio is None else f"{row.ratio:.2f}") for row in result.loading])
    blocks = [head, one, rows]
    if compute and wait:
        blocks.append(render.facts([
            ("model", f"{compute.model} on {compute.backend}, {compute.device}"),
            ("computes", f"{compute.images_per_second:.1f} images/s  ({compute.precision}, "
                         f"micro-batch {compute.batch_size})"),
            ("waits", f"{100 * wait.share:.0f} % of its time for images, with {wait.workers} "
                      f"worker{'s' if wait.workers > 1 else ''}")]))
    return "\n\n".join(blocks)


def _rate(rate: Optional[float]) -> str:
    return "" if rate is None else f"{rate:,.1f}"


add_command(_app, convert, ConvertOptions)
add_command(_app, bench, BenchOptions)
