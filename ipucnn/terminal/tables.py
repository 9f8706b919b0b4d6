"""Prints results as tables. Data goes to standard output, messages to standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.launching import own_name, speaks
from ipucnn.core.files import json_text
from ipucnn.core.names import printable
from ipucnn.terminal.layout import columns, terminal_width, wrapped

if TYPE_CHECKING:
    from ipucnn.bench.bench_result import BenchResult
    from ipucnn.core.execution.plan import ExecutionPlan
    from ipucnn.inference.run_result import RunResult
    from ipucnn.onnx.job import ExportResult
    from ipucnn.planning.training_plan import TrainingPlan
    from ipucnn.training.train_result import TrainResult
    from ipucnn.training.validation import Validation


def emit(text: str) -> None:
    """Write data to standard output.

    Raises:
        BrokenPipeError: the reader closed the pipe.
        IpucnnError: it cannot be written (a full disk).
    """
    if not speaks():
        return
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_output()
        raise
    except OSError as error:
        abandon_output()
        raise IpucnnError(f"cannot write to standard output: {error.strerror}") from error


def abandon_output() -> None:
    """Discard the remaining standard output, because it cannot be written.

    The interpreter flushes once more when it exits, and must not fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    emit(json_text(value, indent=2))


def say(text: str) -> None:
    """Print a message to standard error; on a terminal, long lines are broken between words."""
    print(wrapped(text, terminal_width(sys.stderr)), file=sys.stderr, flush=True)


class LogFormatter(logging.Formatter):
    """Formats log records; on a terminal, long lines are broken between words."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return wrapped(super().format(record), terminal_width(sys.stderr))


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Silence `note` and progress lines."""
    global _quiet
    _quiet = quiet


def note(text: str) -> None:
    """Print a note to standard error, unless quiet."""
    info(f"note: {text}")


def info(text: str) -> None:
    """Print a message to standard error, unless quiet."""
    if not _quiet and speaks():
        say(text)


def report_error(error: IpucnnError) -> None:
    """Print an error and its hint to standard error, a line each where it is no terminal."""
    say(f"error: {own_name()}{printable(error.message)}")
    if error.hint:
        say(f"hint: {printable(error.hint)}")


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in columns as wide as their cells; control characters are escaped."""
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                     for line in lines)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as text: fitted to a terminal, or in plain columns for a pipe.

    Control characters in cells are escaped.
    """
    width = terminal_width(sys.stdout)
    if width is None:
        return plain_table(headings, rows)
    return columns(headings, list(rows), width)


def facts(pairs: Iterable[Tuple[str, Any]]) -> str:
    """Return aligned `name  value` lines without empty values; control characters are escaped.

    On a terminal, long values are wrapped beside their names.
    """
    kept = [(name, value) for name, value in pairs if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in kept), default=0)
    columns = terminal_width(sys.stdout)
    room = None if columns is None else max(20, columns - width - 2)
    lines = [(name, wrapped(printable(_plain(value)), room, "").split("\n"))
             for name, value in kept]
    return "\n".join(f"{(first if number == 0 else '').ljust(width)}  {line}"
                     for first, parts in lines for number, line in enumerate(parts))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def run_result(result: RunResult) -> str:
    """Return the result of a run as text."""
    rate, compute, latency = result.throughput, result.compute_throughput, result.latency_ms
    plan = result.plan
    session = result.session
    precision = plan["precision"]
    if plan["half"]:
        precision += (f" ({session.get('weights_type', plan['half'])} weights, "
                      f"{session.get('arithmetic', plan['half'])} arithmetic)")
    lines: List[Tuple[str, Any]] = [
        ("model", f"{result.model}, {result.weights['summary']}"),
        ("backend", f"{result.backend} on {result.device}"),
        ("data", result.dataset),
        ("precision", precision),
        ("batch", f"{plan['combined_batch']} = micro-batch {plan['micro_batch']} x "
                  f"{plan['device_iterations']} device iterations x {plan['replicas']} replicas"),
        ("images", f"{result.images} in {result.iterations} iterations, "
                   f"{result.warmup_iterations} of them warm-up"),
        ("compile", f"{result.compile_seconds:.2f} s"),
        ("throughput", rate and f"{rate.mean:.1f} images/s  (std {rate.std:.1f}, "
                                f"min {rate.min:.1f}, max {rate.max:.1f})"),
        ("device only", compute and f"{compute.mean:.1f} images/s  (waiting for data "
                                    f"{100 * result.data_wait_share:.0f} % of the time)"),
        ("latency", latency and f"p50 {latency.p50:.2f} ms, p90 {latency.p90:.2f} ms, "
                                f"p99 {latency.p99:.2f} ms per device call"),
        ("accuracy", result.accuracy and f"top-1 {result.accuracy['top1']:.2f} %, top-5 "
                     f"{result.accuracy['top5']:.2f} % of {result.accuracy['images']} images"),
        ("quantised", _quantisation(session.get("quantisation"))),
        ("stages", ", ".join(f"{stage['begins_at']} {100 * stage['share']:.0f} %"
                             for stage in session.get("stages", []))),
        ("skipped", f"{result.skipped['count']} bad images" if result.skipped["count"] else None),
        ("instances", _instances(result)),
        ("predictions", result.predictions),
        ("stopped by", result.stopped_by),
    ]
    return facts(lines)


def _quantisation(report: Optional[Dict[str, Any]]) -> str:
    """Return the effect of quantisation on the outputs as text."""
    if not report:
        return ""
    text = (f"with {report['calibration_images']} images; same class as full precision for "
            f"{report['agreement']:.2f} % of "
            + (f"{report['compared_images']} others" if report["held_out"] else "the same images"))
    if "top1_full" in report:
        text += (f"; top-1 {report['top1_int8']:.2f} %, full precision {report['top1_full']:.2f} % "
                 f"({report['top1_difference']:+.2f})")
    return text


def _instances(result: RunResult) -> List[str]:
    """Return a summary of each of several processes, and the location of the logs."""
    parts = []
    for own in result.instances:
        rate = own["throughput"]
        parts.append(f"{own['index']}: {own['images']} images" + (
            f" at {rate['mean']:.1f}/s" if rate else "") + (
            f", exit code {own['exit_code']}" if own.get("exit_code") else ""))
    folders = {os.path.dirname(own["log"]) for own in result.instances if "log" in own}
    return [*parts, *(f"logs in {folder}" for folder in folders)]


def export_result(result: ExportResult) -> str:
    """Return the result of an export as aligned lines."""
    shape = " x ".join("any" if size is None else str(size) for size in result.input["shape"])
    return facts([
        ("file", result.path), ("size", f"{result.size / 2**20:.1f} MiB"),
        ("model", result.model), ("for", result.target),
        ("operator set", f"ai.onnx {result.opset}, format version {result.ir_version}"),
        ("images", f"{shape} {result.input['type']}"),
        ("operators", ", ".join(f"{name} {count}" for name, count in result.operators.items())),
        ("weights", result.weights),
        ("compared", "; ".join(f"batch {batch}: {difference:.1e}" for batch, difference
                               in result.differences.items())
         + f" of the largest logit from torch (at most {result.tolerance:.0e})")])


def training_plan(made: TrainingPlan) -> str:
    """Return the plan of a training as text."""
    options, plan, launch = made.options, made.plan, made.launch
    spare = f", of {made.ipus:,} reserved (they are allocated in powers of two)"
    lines: List[Tuple[str, Any]] = [
        ("model", options.network.model), ("data", options.dataset.data),
        ("precision", plan.precision),
        ("replicas", plan.replicas),
        ("pipeline stages", plan.stages),
        ("they begin at", ["input", *plan.pipeline_splits] if plan.pipeline_splits else None),
        ("IPUs", f"{plan.devices:,}" + (spare if made.ipus != plan.devices else "")),
        ("hosts", launch.host_count),
        ("instances", plan.instances),
        ("replicas per instance", made.plan.local_replicas),
        ("epoch", made.epoch_samples and f"{made.epoch_samples:,} generated samples"),
        *_algebra(plan)]
    if made.fine_tuning:
        lines += [(f"fine-tuning: {name}", value) for name, value in _algebra(made.fine_tuning)]
    return facts(lines)


def _algebra(plan: ExecutionPlan) -> List[Tuple[str, Any]]:
    return [
        ("micro-batch", plan.micro_batch),
        ("gradient accumulation", plan.gradient_accumulation),
        ("device iterations", plan.device_iterations),
        ("samples per weight update", plan.update_batch),
        ("samples per host call", plan.combined_batch)]


def train_result(result: TrainResult) -> str:
    """Return the result of a training as text."""
    plan, best, latency = result.plan, result.best, result.device_latency_ms
    lines: List[Tuple[str, Any]] = [
        ("model", result.model),
        ("backend", f"{result.backend} on {result.device}"),
        ("data", result.dataset),
        ("precision", plan["precision"] + (f" ({plan['half']})" if plan["half"] else "")),
        ("batch", f"{plan['combined_batch']} per host call, {plan['update_batch']} per update"),
        ("epochs", str(result.epochs)),
        ("updates", result.updates),
        ("throughput", result.images_per_second and
         f"{result.images_per_second:.1f} images/s  (waiting for data "
         f"{100 * result.data_wait_share:.0f} % of the time)"),
        ("latency", latency and f"mean {latency['mean']:.2f} ms, min {latency['min']:.2f} ms, "
                                f"max {latency['max']:.2f} ms per host call, device time"),
        ("training", (result.loss is not None and f"loss {result.loss:.4f}" + (
            f", accuracy {result.accuracy:.2f} %" if result.accuracy is not None else "")) or None),
        ("best", best and f"{best['metric']} {best['value']:.4f} at epoch {best['epoch']} "
                          f"({best['weights']} weights)"),
        ("skipped", ", ".join(f"{count} {what}" for what, count in result.skipped.items()
                              if count)),
        ("checkpoint", result.checkpoint), ("averaged", result.averaged),
        ("metrics", result.log_dir), ("stopped by", result.stopped_by)]
    return facts(lines)


def validations(found: Sequence[Validation], per_class: bool) -> str:
    """Return validations as a table, optionally with the classes of the last one."""
    text = table(
        ("checkpoint", "epoch", "weights", "images", "loss", "top-1 %", "top-5 %"),
        [(os.path.basename(v.checkpoint), str(v.epoch), v.weights, str(v.images), f"{v.loss:.4f}",
          f"{v.top1:.2f}", f"{v.top5:.2f}") for v in found])
    if per_class:
        text += "\n\n" + table(("class", "images", "top-1 %"), [
            (row["class"], str(row["images"]),
             "" if row["top1"] is None else f"{row['top1']:.2f}")
            for row in found[-1].per_class()])
    return text


def bench_result(result: BenchResult) -> str:
    """Return host measurements as text: facts, steps and loader by workers."""
    compute, wait = result.compute, result.waiting
    head = facts([
        ("data", result.dataset),
        ("images", f"{result.samples:,} of {result.images:,} per pass, for "
                   + ("training" if result.job == "train" else result.job)),
        ("prepared", f"{result.input_size} pixels, {result.pixels}, in batches of "
                     f"{result.batch_size:,}"),
        ("decoded by", f"simplejpeg {result.decoders['simplejpeg']}"),
        ("resized by", result.decoders["resize"]),
        ("skipped", f"{result.skipped['count']} bad images" if result.skipped["count"] else None)])
    one = table(("one thread", "images/s"),
                [(name, _rate(rate)) for name, rate in result.steps.items()])
    rows = table(
        ("workers" if result.mode == "threads" else f"workers ({result.mode})", "images/s",
         "libjpeg-turbo alone", "ratio"),
        [(str(row.workers), _rate(row.images_per_second), _rate(row.limit),
          "" if row.ratio is None else f"{row.ratio:.2f}") for row in result.loading])
    blocks = [head, one, rows]
    if compute and wait:
        blocks.append(facts([
            ("model", f"{compute.model} on {compute.backend}, {compute.device}"),
            ("computes", f"{compute.images_per_second:.1f} images/s  ({compute.precision}, "
                         f"micro-batch {compute.batch_size})"),
            ("waits", f"{100 * wait.share:.0f} % of its time for images, with {wait.workers} "
                      "workers")]))
    return "\n\n".join(blocks)


def _rate(rate: Optional[float]) -> str:
    return "" if rate is None else f"{rate:,.1f}"


LINE_INTERVAL = 60.0
"""Seconds between two progress lines without a bar."""


def wants_bar(choice: str) -> bool:
    """Return whether a bar or spinner is shown: on terminals that can, unless disabled or in CI."""
    if choice != "auto":
        return choice == "on"
    return (not _quiet and speaks() and sys.stderr.isatty() and not os.environ.get("CI")
            and os.environ.get("TERM") != "dumb")
