"""`ipucnn runs` and `ipucnn watch`: list trainings, and show one live."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any, List, Mapping, Sequence

import typer

from ipucnn.core.names import printable
from ipucnn.terminal import tables as render
from ipucnn.terminal.layout import filled, terminal_width, wrapped
from ipucnn.terminal.options_command import JSON


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("runs")(runs)
    app.command("watch")(watch)


def _figures(incomplete: str) -> List[str]:
    from ipucnn.runs.selection_of_runs import FIGURES

    return [name for name in FIGURES if name.startswith(incomplete)]


def runs(
    folder: str = typer.Argument("logs", metavar="[DIR|URL]",
                                  help="Folder with trainings, also on a store (s3://...)."),
    conditions: List[str] = typer.Option(
        [], "--filter", metavar="CONDITION", autocompletion=_figures,
        help="List only trainings that meet a condition: "
        "'model=resnet50', 'top1>=80', 'state=running'; may be repeated."),
    sort: str = typer.Option("changed", "--sort", metavar="FIGURE", autocompletion=_figures,
                             help="Sort by a figure, largest first; '-loss': smallest first."),
    as_json: bool = JSON,
) -> None:
    """List trainings with their key figures.

    Every folder in or below DIR with 'metrics.jsonl' or 'status.json' is listed.
    """
    from ipucnn.runs.found import listed
    from ipucnn.runs.selection_of_runs import filtered, ordered

    found = [run.as_dict() for run in listed(folder)]
    shown = ordered(filtered(found, conditions), sort)
    if as_json:
        render.emit_json({"runs": [dict(row) for row in shown]})
        return
    if not shown:
        render.note(f"no training in '{folder}'" + (" meets the conditions" if found else ""))
        return
    cells = [_cells(row) for row in shown]
    table = render.table(("run", "state", "model", "data", "epoch", "loss", "top-1 %", "images/s",
                          "changed"), cells)
    width = terminal_width(sys.stdout)
    if width is not None and table.count("\n") > len(cells):  # it is too wide
        table = "\n".join(_lines(row, width) for row in cells)
    render.emit(table)


def _cells(row: Mapping[str, Any]) -> List[str]:
    def number(name: str, form: str) -> str:
        value = row.get(name)
        if not isinstance(value, (int, float)):
            return ""
        return form.format(value) if abs(value) < 1e9 else f"{value:.3g}"  # a loss that diverged

    epochs = row.get("epochs")
    epoch = number("epoch", "{:.2f}").replace(".00", "")
    if epoch and epochs:
        epoch += f"/{epochs}"
    return [str(row["folder"]), str(row["state"]), str(row.get("model") or ""),
            str(row.get("data") or ""), epoch, number("loss", "{:.4f}"), number("top1", "{:.2f}"),
            number("images_per_second", "{:,.1f}"),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["changed"]))]


def _lines(cells: Sequence[str], width: int) -> str:
    """Return the cells of a run as lines of at most `width` columns, for narrow terminals."""
    run, state, model, data, epoch, loss, top1, rate, changed = map(printable, cells)
    items = list(filter(None, (
        f"  {state}", changed, " on ".join(filter(None, (model, data))), epoch and f"epoch {epoch}",
        loss and f"loss {loss}", top1 and f"top-1 {top1} %", rate and f"{rate} images/s")))
    return wrapped(run, width) + "\n" + filled(
        [*(f"{item}," for item in items[:-1]), items[-1]], width, "    ")


def watch(
    run: str = typer.Argument("logs", metavar="[RUN]", help="Log folder of a training, or a folder "
                              "with several, of which the newest is shown; also on a store "
                              "(s3://...)."),
    once: bool = typer.Option(False, "--once", help="Print the current state once and exit."),
) -> int:
    """Show a running training live: curves, figures, worst classes.

    Ctrl-C ends the display, not the training. When the training ends, its last state is printed.
    """
    from ipucnn.runs.dashboard import drawn, encodable
    from ipucnn.runs.watching import Watched
    from ipucnn.runs.watching import watch as watched

    # Rich draws nothing on a terminal that cannot move the cursor
    if once or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        view = Watched(run).view()
    else:
        view = watched(run)
    lines = shutil.get_terminal_size().lines or 24  # a terminal may not state its size
    render.emit(encodable(drawn(view, terminal_width(sys.stdout) or 80, lines - 1),
                          getattr(sys.stdout, "encoding", None)))
    return 0
