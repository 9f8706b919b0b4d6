"""The key figures and facts of a finished run."""

from __future__ import annotations

import os
import shlex
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.reports.evidence import kept_latencies
from ipucnn.reports.finished_run import (
    BENCHMARK,
    INFERENCE,
    NETWORKS,
    PLAN,
    PREDICTIONS,
    TRAINING,
    VALIDATION,
    FinishedRun,
    number,
    shown,
)

Pairs = List[Tuple[str, str]]


def key_figures(run: FinishedRun) -> Pairs:
    """Return the main figures: names and values, without unknown ones."""
    return [(name, value) for name, value in _FIGURES.get(run.kind, _of_validation)(run) if value]


def facts(run: FinishedRun) -> Pairs:
    """Return the other facts about a run: names and values."""
    document, plan = run.document, run.part("plan")
    device = " on ".join(filter(None, (shown(document.get("backend")),
                                       shown(document.get("device")))))
    found = [
        ("model", shown(document.get("model"))), ("data", shown(document.get("dataset"))),
        ("weights", shown(run.part("weights").get("summary"))), ("backend", device),
        ("precision", " ".join(filter(None, (shown(plan.get("precision")),
                                             plan.get("half") and f"({plan['half']})")))),
        ("samples per host call", shown(plan.get("combined_batch"))),
        ("samples per update", shown(plan.get("update_batch")) if run.kind == TRAINING else ""),
        ("status", shown(document.get("status"))), ("error", shown(document.get("error"))),
        ("stopped by", shown(document.get("stopped_by"))),
        ("best", _best(run.part("best"))), ("checkpoint", shown(document.get("checkpoint"))),
        ("continued from", shown(document.get("restored"))),
        ("compile", _duration(document.get("compile_seconds"))),
        ("skipped", shown(document.get("skipped")) if any(
            run.part("skipped").get(name) for name in ("count", "images", "updates")) else ""),
        ("from", run.place), ("command", _command(run.part("environment").get("command")))]
    return [(name, value) for name, value in found if value]


def _command(words: Any) -> str:
    program, *others = [str(word) for word in _list(words)] or [""]
    folder, name = os.path.split(program)
    if name == "__main__.py":  # python -m ipucnn
        program = folder
    return " ".join([os.path.basename(program), *map(shlex.quote, others)])


def _best(best: Dict[str, Any]) -> str:
    metric = shown(best.get("metric"))
    accuracy = metric.startswith("top")
    value = _unit(best.get("value"), "%" if accuracy else "", 2 if accuracy else 4)
    return f"{metric.replace('top', 'top-')} {value} at epoch {shown(best.get('epoch'))} " \
           f"({best.get('weights')} weights)" if value else ""


def _of_training(run: FinishedRun) -> Pairs:
    document, validation = run.document, run.validation
    rows = [row for row in run.rows if row.get("kind") == "train"]
    last = rows[-1] if rows else {}
    loss = number(document.get("loss"))
    return [
        ("top-1", _unit(validation.get("top1"), "%", 2)),
        ("validation loss", _unit(validation.get("loss"), "", 4)),
        ("training loss", _unit(loss if loss is not None else last.get("loss"), "", 4)),
        ("epochs", shown(document.get("epochs")) or _unit(last.get("epoch"), "", 1)),
        ("throughput", _unit(document.get("images_per_second") or last.get("images_per_second"),
                             "images/s", 1)),
        ("waiting for data", _share(document.get("data_wait_share"))),
        ("training time", _duration(document.get("seconds")))]


def _of_run(run: FinishedRun) -> Pairs:
    document, accuracy = run.document, run.part("accuracy")
    latency = run.part("latency_ms")
    return [
        ("top-1", _unit(accuracy.get("top1"), "%", 2)),
        ("top-5", _unit(accuracy.get("top5"), "%", 2)),
        ("images", _count(document.get("images"))),
        ("throughput", _unit(run.part("throughput").get("mean"), "images/s", 1)),
        ("device only", _unit(run.part("compute_throughput").get("mean"), "images/s", 1)),
        ("latency p50", _unit(latency.get("p50"), "ms", 2)),
        ("latency p99", _unit(latency.get("p99"), "ms", 2)),
        ("waiting for data", _share(document.get("data_wait_share")))]


def _validations(run: FinishedRun) -> List[Dict[str, Any]]:
    return [one for one in _list(run.document.get("validations")) if isinstance(one, dict)]


def validation_rows(run: FinishedRun) -> List[Dict[str, str]]:
    """Return the figures of every checkpoint that a validation has measured, by name."""
    return [{"checkpoint": os.path.basename(shown(one.get("checkpoint"))),
             "epoch": shown(one.get("epoch")), "weights": shown(one.get("weights")),
             "images": _count(one.get("images")), "loss": _unit(one.get("loss"), "", 4),
             "top-1": _unit(one.get("top1"), "%", 2), "top-5": _unit(one.get("top5"), "%", 2)}
            for one in _validations(run)] if run.kind == VALIDATION else []


def _of_validation(run: FinishedRun) -> Pairs:
    done = _validations(run)
    last: Dict[str, Any] = done[-1] if done else {}
    return [("top-1", _unit(last.get("top1"), "%", 2)), ("top-5", _unit(last.get("top5"), "%", 2)),
            ("loss", _unit(last.get("loss"), "", 4)), ("images", _count(last.get("images"))),
            ("skipped", _count(last.get("skipped") or None)),
            ("epoch", shown(last.get("epoch")))]


def _of_bench(run: FinishedRun) -> Pairs:
    compute, waiting = run.part("compute"), run.part("waiting")
    rates = [rate for one in _list(run.document.get("loading")) if isinstance(one, dict)
             for rate in [number(one.get("images_per_second"))] if rate is not None]
    return [("fastest loader", _unit(max(rates, default=None), "images/s", 1)),
            ("the model computes", _unit(compute.get("images_per_second"), "images/s", 1)),
            ("and would wait", _share(waiting.get("share"))),
            ("images per pass", _count(run.document.get("samples")))]


def _of_networks(run: FinishedRun) -> Pairs:
    cases = [case for case in _list(run.document.get("cases")) if isinstance(case, dict)]
    ratios = [ratio for case in cases for ratio in [number(case.get("ratio"))] if ratio is not None]
    return [("cases", _count(len(cases) or None)),
            ("least ratio to the best other program", _unit(min(ratios, default=None), "", 2)),
            ("largest", _unit(max(ratios, default=None), "", 2)),
            ("rounds", _count(run.part("options").get("rounds"))),
            ("measured on", shown(run.document.get("date")))]


def _of_plan(run: FinishedRun) -> Pairs:
    plan, pipeline = run.part("plan"), run.part("pipeline")
    return [("samples per update", _count(plan.get("update_batch"))),
            ("replicas", _count(plan.get("replicas"))),
            ("pipeline stages", _count(len(_list(pipeline.get("stages"))) or None)),
            ("devices", _count(run.part("ipus").get("used"))),
            ("largest stage busy", _share(pipeline.get("fill"))),
            ("stage balance", _share(pipeline.get("balance")))]


def _of_predictions(run: FinishedRun) -> Pairs:
    evidence = run.evidence
    labelled = number(evidence.get("labelled"))
    return [("images", _count(evidence.get("images"))),
            ("top-1", _unit(100 * (number(evidence.get("correct")) or 0) / labelled, "%", 2)
             if labelled else "")]


_FIGURES = {TRAINING: _of_training, INFERENCE: _of_run, BENCHMARK: _of_bench,
            NETWORKS: _of_networks, PLAN: _of_plan,
            PREDICTIONS: _of_predictions}


def latencies(run: FinishedRun) -> List[float]:
    """Return the latencies of a run in milliseconds, in ascending order."""
    values = [value for item in _list(run.evidence.get("latencies_ms"))
              for value in [number(item)] if value is not None]
    return kept_latencies([value / 1000 for value in values])


def percentiles(run: FinishedRun) -> List[Tuple[str, float]]:
    """Return the names and values of the latency's percentiles."""
    found = [(name, number(run.part("latency_ms").get(name))) for name in ("p50", "p90", "p99")]
    return [(name, value) for name, value in found if value is not None]


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []


def _unit(value: Any, unit: str, digits: int) -> str:
    known = number(value)
    return "" if known is None else f"{known:,.{digits}f} {unit}".rstrip()


def _share(value: Any) -> str:
    known = number(value)
    return "" if known is None else f"{100 * known:.0f} %"


def _count(value: Any) -> str:
    known = number(value)
    return "" if known is None else f"{known:,.0f}"


def _duration(value: Any) -> str:
    seconds: Optional[float] = number(value)
    if seconds is None or seconds < 0.05:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes \
        else f"{seconds:.1f} s"
