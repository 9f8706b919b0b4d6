"""Renders a self-contained HTML page, which loads no other files.

Names of files, classes and options come from outside, so templates escape every text, control
characters are replaced, and the page's content security policy allows only its own script.
"""

from __future__ import annotations

import base64
import hashlib
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

from ipucnn.core.names import printable
from ipucnn.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

    from ipucnn.reports.finished_run import FinishedRun

_TEMPLATES = Path(__file__).parent / "templates"

MOST_DETAILED = 6
"""Maximum number of runs with images and classes on a page; with more, only curves and tables."""

_LONGEST_NAME = 36
"""Maximum number of characters of a file's name in a gallery; the end is shown."""

_LONGEST_CLASS = 40
"""Characters of a class's name that a gallery shows; the pointer shows the rest."""

PURPOSES = {
    "wrong": "Wrong, with the highest probability", "doubtful": "Most doubtful",
    "right": "Correct, with the highest probability", "certain": "With the highest probability"}


def page_of(runs: Sequence[FinishedRun]) -> str:
    """Return the page of a run, or of several compared."""
    from ipucnn.reports.charts import line_chart
    from ipucnn.reports.curves import charts_of
    from ipucnn.reports.key_figures import facts, key_figures

    several = len(runs) > 1
    figures = [dict(key_figures(run)) for run in runs]
    columns = list(dict.fromkeys(name for one in figures for name in one))
    return rendered(
        "report.html.j2", title=title_of(runs), runs=runs, several=several, figures=figures,
        notes=[[*run.notes, *run.document.get("notes", [])] for run in runs],
        columns=columns, facts=[facts(run) for run in runs],
        charts=[(chart, line_chart(chart)) for chart in charts_of(runs)],
        details=[_details(run, several) if place < MOST_DETAILED else {}
                 for place, run in enumerate(runs)], most=MOST_DETAILED,
        options=compared([run.part("options") for run in runs], [run.kind for run in runs]),
        environment=compared([_environment(run) for run in runs]),
        cards=[_card(run) for run in runs])


def title_of(runs: Sequence[FinishedRun]) -> str:
    """Return the title of the page of runs."""
    if len(runs) == 1:
        named = [str(value) for value in (
            runs[0].document.get("model"), runs[0].document.get("dataset")) if value]
        return f"{runs[0].kind.capitalize()}: " + (" on ".join(named) or runs[0].name)
    return f"{len(runs)} runs: " + ", ".join(run.name for run in runs[:4]) + (
        " \u2026" if len(runs) > 4 else "")


def rendered(template: str, **values: Any) -> str:
    """Return a page from a template of this package."""
    environment = _environment_of_templates()
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    text: str = environment.get_template(template).render(
        style=_safe("page.css"), script=_safe("page.js"), digest=digest, version=__version__,
        made=time.strftime("%Y-%m-%d %H:%M"), purposes=PURPOSES, **values)
    return text


def _safe(name: str) -> Any:
    from markupsafe import Markup

    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


@lru_cache(maxsize=None)
def _environment_of_templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return "" if value is None else printable(str(value))

    environment = Environment(
        loader=FileSystemLoader(str(_TEMPLATES)), autoescape=True, finalize=shown,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["brief"] = lambda name: printable(name) if len(name) <= _LONGEST_NAME \
        else "\u2026" + printable(name)[1 - _LONGEST_NAME:]
    environment.filters["short"] = lambda name: name if len(name) <= _LONGEST_CLASS else (
        name[:_LONGEST_CLASS - 1] + "\u2026")
    environment.filters["images"] = counted
    environment.filters["parts"] = _parts
    environment.filters["given"] = lambda rows: [
        (name, values[0]) for name, values, _ in rows if values[0]]
    return environment


def counted(number: int, what: str = "image") -> str:
    """Return a number and what is counted, in the plural where it has to be."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _parts(value: str) -> Tuple[str, str]:
    """Return a number and its unit; any other text is returned unchanged."""
    number, _, unit = value.partition(" ")
    return (value, "") if any(map(str.isdigit, unit)) else (number, unit)


def _details(run: FinishedRun, several: bool) -> Dict[str, Any]:
    """Return the charts and images of one run, by the names that the template uses."""
    from ipucnn.reports import classes_shown as classes
    from ipucnn.reports.charts import histogram, reliability
    from ipucnn.reports.finished_run import BENCHMARK, NETWORKS, PLAN
    from ipucnn.reports.key_figures import latencies, percentiles, validation_rows

    found: Dict[str, Any] = {}
    evidence = run.evidence
    if evidence.get("classes"):
        found["heat"] = classes.heat_map(evidence)
        found["rows"] = classes.class_rows(evidence)
        found["pairs"] = classes.mistaken_pairs(evidence)
        found["labelled"] = bool(evidence.get("confusion"))  # of images with one label each
        error = classes.calibration_error(evidence["calibration"])
        if error is not None:
            found["error"] = error
            found["reliability"] = reliability(evidence["calibration"], "reliability diagram")
        found["gallery"] = _gallery(evidence, 4 if several else 12)
    slow = latencies(run)
    if slow:
        found["latency"] = histogram(slow, percentiles(run), "ms", "latency of a device call")
        found["calls"] = len(slow)
    if run.kind == BENCHMARK:
        found.update(_bench(run))
    if run.kind == NETWORKS:
        found["cases"] = _networks(run)
    if run.kind == PLAN:
        found.update(_plan(run))
    rows = validation_rows(run)
    if len(rows) > 1:
        found["validations"] = rows
    return found


def _gallery(evidence: Dict[str, Any], most: int) -> List[Tuple[str, List[Dict[str, Any]]]]:
    from ipucnn.reports.evidence import SELECTIONS
    from ipucnn.reports.thumbnails import checked

    shown = evidence.get("shown", {})
    return [(name, [{**row, "thumbnail": checked(row.get("thumbnail"))} for row in rows])
            for name in SELECTIONS for rows in [shown.get(name, [])[:most]] if rows]


def _bench(run: FinishedRun) -> Dict[str, Any]:
    from ipucnn.reports.charts import bars

    document = run.document
    compute = run.part("compute").get("images_per_second")
    found = {"steps": bars([(name, float(rate), None)
                            for name, rate in run.part("steps").items() if rate is not None],
                           "images/s", "images per second of one thread in each step")}
    loading = [(counted(int(one["workers"]), "worker"), float(one["images_per_second"]),
                one.get("limit")) for one in document.get("loading", [])]
    if compute is not None:
        loading.append(("the model", float(compute), None))
    if loading:
        found["loading"] = bars(loading, "images/s", "images per second of the loader")
    return found


def _networks(run: FinishedRun) -> List[Tuple[str, Any]]:
    """Return a title and a chart of the contenders of each case; the line is the limit."""
    from ipucnn.reports.charts import bars
    from ipucnn.reports.finished_run import shown

    found = []
    for case in run.document.get("cases", []):
        limit = min((float(one["images_per_second"]["median"]) for one in case["limits"]),
                    default=None)
        rows = [(f"{one['kind']} {one['name']}" if one["kind"] == "ipucnn" else str(one["name"]),
                 float(one["images_per_second"]["median"]), limit) for one in case["entries"]]
        if rows:
            title = ", ".join(map(shown, (
                case["model"], case["job"], f"micro-batch {shown(case['batch_size'])}",
                case["precision"], case["data"])))
            found.append((title, bars(rows, "images/s", f"images per second of {title}")))
    return found


def _plan(run: FinishedRun) -> Dict[str, Any]:
    from ipucnn.reports.stage_picture import schedule, stage_boxes

    pipeline = run.part("pipeline")
    stages = pipeline.get("stages") or []
    if not stages:
        return {}
    found = {"stages": stage_boxes(stages), "fill": float(pipeline["fill"]),
             "balance": float(pipeline["balance"])}
    if len(stages) > 1:
        found["schedule"] = schedule(len(stages), int(run.part("plan").get(
            "gradient_accumulation", 1)))
    return found


Compared = List[Tuple[str, List[str], bool]]


def compared(values: Sequence[Dict[str, Any]], kinds: Sequence[str] = ()) -> Compared:
    """Return name, value in every run, and whether these differ, of all names.

    Args:
        values: of every run.
        kinds: of the runs; a name that a run of another kind lacks is no difference.
    """
    from ipucnn.reports.finished_run import flattened

    flat = [flattened(one) for one in values]
    names = list(dict.fromkeys(name for one in flat for name in one))
    known = [(kind, one) for kind, one in zip(kinds or [""] * len(flat), flat) if one]

    def differs(name: str) -> bool:
        having = {kind for kind, one in known if name in one}
        return len({one.get(name, "") for kind, one in known if kind in having}) > 1

    return [(name, [one.get(name, "") for one in flat], differs(name)) for name in names]


def _environment(run: FinishedRun) -> Dict[str, Any]:
    """Return versions and machine, packages by their name alone."""
    found = dict(run.part("environment"))
    found.pop("command", None)
    packages = found.pop("packages", None)
    return {**found, **(packages if isinstance(packages, dict) else {})}


def _card(run: FinishedRun) -> List[Tuple[str, str]]:
    from ipucnn.reports.finished_run import flattened

    return [(name, value) for name, value in flattened(run.part("card")).items() if value]
