"""The result of a run as text, JSON and Python objects, and its statistics."""

from __future__ import annotations

import math
import os
import statistics
from array import array
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Optional, Sequence

from ipucnn.core.showing import Blocks, Facts, Shown, Table


@dataclass(frozen=True)
class Spread:
    """Mean, population standard deviation and range of a series."""

    mean: float
    std: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Optional[Spread]:
        """Return the spread of `values`, or None of an empty series."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.pstdev(values), min(values), max(values))


@dataclass(frozen=True)
class Percentiles:
    """The 50th, 90th and 99th percentile (nearest rank) of a series."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Optional[Percentiles]:
        """Return the percentiles of `values`, or None of an empty series."""
        if not values:
            return None
        ranked = sorted(values)
        return cls(*(ranked[max(0, math.ceil(len(ranked) * q / 100) - 1)] for q in (50, 90, 99)))


@dataclass
class Meter:
    """Collects the times of a run per host call and per device call."""

    seconds: array = field(default_factory=lambda: array("d"))  # type: ignore[type-arg]
    waits: array = field(default_factory=lambda: array("d"))  # type: ignore[type-arg]
    samples: array = field(default_factory=lambda: array("q"))  # type: ignore[type-arg]
    latencies: array = field(default_factory=lambda: array("d"))  # type: ignore[type-arg]
    latency_starts: array = field(default_factory=lambda: array("q"))  # type: ignore[type-arg]

    def iteration(self, samples: int, seconds: float, wait: float,
                  latencies: Sequence[float]) -> None:
        """Add one host call.

        Args:
            samples: number of images classified.
            seconds: its wall time.
            wait: the part of it spent waiting for images.
            latencies: seconds of each device call in it.
        """
        self.samples.append(samples)
        self.seconds.append(seconds)
        self.waits.append(wait)
        self.latency_starts.append(len(self.latencies))
        self.latencies.extend(latencies)

    def as_plain(self) -> List[List[Any]]:
        """Return samples, seconds, wait and latencies of each iteration, for `together`."""
        ends = [*self.latency_starts[1:], len(self.latencies)]
        return [[samples, seconds, wait, self.latencies[start:end].tolist()]
                for samples, seconds, wait, start, end in zip(
                    self.samples, self.seconds, self.waits, self.latency_starts, ends)]

    @classmethod
    def together(cls, parts: Sequence[List[List[Any]]], in_step: bool = True) -> Meter:
        """Combine the measurements of instances that run concurrently.

        An iteration has the samples of all of them. In step, it lasts as long as the slowest;
        the rates of independent instances are summed, so it lasts as long as one process of that
        rate would take.
        """
        meter = cls()
        for iteration in range(max(map(len, parts))):
            rows = [part[iteration] for part in parts if iteration < len(part)]
            samples = sum(row[0] for row in rows)
            seconds, wait = max(row[1] for row in rows), max(row[2] for row in rows)
            if not in_step and min(row[1] - row[2] for row in rows) > 0:
                seconds = samples / sum(row[0] / row[1] for row in rows)
                wait = seconds - samples / sum(row[0] / (row[1] - row[2]) for row in rows)
            meter.iteration(samples, seconds, wait,
                            [latency for row in rows for latency in row[3]])
        return meter

    def warmup(self, wanted: int) -> int:
        """Return the number of initial iterations to leave out: at most half of the run."""
        return min(wanted, len(self.seconds) // 2)

    def latencies_after(self, warmup: int) -> Sequence[float]:
        """Return the seconds of each device call after `warmup` iterations."""
        first = self.latency_starts[warmup] if warmup < len(self.latency_starts) else 0
        return self.latencies[first:]

    def figures(self, warmup: int, full: int, in_flight: int = 1) -> Dict[str, Any]:
        """Return the statistics after `warmup` iterations.

        Args:
            warmup: iterations to leave out.
            full: samples of a full iteration; a short last one is left out of the spread of
                rates when there are others, because it measures padding.
            in_flight: number of host calls in flight; their results arrive in bursts, so rates
                are computed over this number of calls.
        """
        kept = range(warmup, len(self.seconds))
        whole = [i for i in kept if self.samples[i] == full] or list(kept)
        total = sum(self.seconds[i] for i in kept)
        groups = [whole[begin:begin + in_flight] for begin in range(0, len(whole), in_flight)]
        if len(groups) > 1 and len(groups[-1]) < in_flight:
            groups.pop()
        sums = [[sum(series[i] for i in group) for series in (
            self.samples, self.seconds, self.waits)] for group in groups]
        return {
            "throughput": Spread.of([samples / seconds for samples, seconds, _ in sums
                                     if seconds > 0]),
            "compute_throughput": Spread.of([samples / (seconds - waits)
                                             for samples, seconds, waits in sums
                                             if seconds > waits]),
            "latency_ms": Percentiles.of([1000 * s for s in self.latencies_after(warmup)]),
            "data_wait_share": sum(self.waits[i] for i in kept) / total if total else 0.0,
        }


@dataclass(repr=False)
class RunResult(Shown):
    """The result of `ipucnn run`.

    Attributes:
        model, dataset, backend, device: canonical names; the device in words.
        options: the resolved options; passed to `--config` they repeat the run.
        environment: versions and machine.
        plan: batch sizes of the run.
        weights: source of the weights.
        card: the model card: classes, preprocessing and outputs.
        session: the backend's description of its session (arithmetic, threads, stage balance ...).
        images: images classified, warm-up included.
        iterations: number of host calls.
        warmup_iterations: how many of them are left out of the statistics.
        seconds: wall time of the iterations.
        compile_seconds: wall time of preparing the device, before the first iteration.
        throughput: images per second, including waiting for data.
        compute_throughput: images per second of the device calls, without waiting for data.
        latency_ms: percentiles of one device call, milliseconds.
        data_wait_share: fraction of the time spent waiting for images, 0 to 1.
        accuracy: top-1 and top-5 in per cent, when labels are known.
        accuracy_note: why there is no accuracy although there are labels.
        skipped: images left out by `--skip-bad-samples`: their number, and the first of them.
        predictions: the file of predictions.
        answers: the first images, in the order of the dataset: `path`, `class`, `name`,
            `probability` and, where labels are known, `label_name` and `correct`.
        classes: the classes that were predicted, the most frequent first: `class`, `name`,
            `images` and, where labels are known, how many of them are `correct`.
        stopped_by: a signal such as `SIGINT`, `time limit` or `error` when the run ended early.
        instances: the measurements of each of several processes: its `index`, `images`,
            `throughput` and `latency_ms`; with `--instances` also the `log` file and the
            `exit_code`.
        notes: notes for the user.
        evidence: data for a report on the predictions and latencies, see
            `ipucnn.reports.evidence`; not in `as_dict`.
    """

    model: str
    dataset: str
    backend: str
    device: str
    options: Dict[str, Any]
    environment: Dict[str, Any]
    plan: Dict[str, Any]
    weights: Dict[str, Any]
    card: Dict[str, Any] = field(default_factory=dict)
    session: Dict[str, Any] = field(default_factory=dict)
    images: int = 0
    iterations: int = 0
    warmup_iterations: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    throughput: Optional[Spread] = None
    compute_throughput: Optional[Spread] = None
    latency_ms: Optional[Percentiles] = None
    data_wait_share: float = 0.0
    accuracy: Optional[Dict[str, float]] = None
    accuracy_note: str = ""
    skipped: Dict[str, Any] = field(default_factory=lambda: {"count": 0, "first": []})
    predictions: Optional[str] = None
    answers: List[Dict[str, Any]] = field(default_factory=list)
    classes: List[Dict[str, Any]] = field(default_factory=list)
    stopped_by: Optional[str] = None
    instances: List[Dict[str, Any]] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    evidence: Dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        plain = {"format": "ipucnn.run/1", **asdict(replace(self, evidence={}))}
        del plain["evidence"]
        return plain

    def document(self) -> Dict[str, Any]:
        """Return the result and the evidence as plain types, for a file and a report."""
        return {**self.as_dict(), "evidence": self.evidence}

    def facts(self) -> Facts:
        """Return the result as names and values, as text."""
        rate, compute, latency = self.throughput, self.compute_throughput, self.latency_ms
        plan = self.plan
        session = self.session
        precision = plan["precision"]
        if plan["half"]:
            precision += (f" ({session.get('weights_type', plan['half'])} weights, "
                          f"{session.get('arithmetic', plan['half'])} arithmetic)")
        return [
            ("model", f"{self.model}, {self.weights['summary']}"),
            ("backend", f"{self.backend} on {self.device}"),
            ("data", self.dataset),
            ("precision", precision),
            ("batch", f"{plan['combined_batch']} = micro-batch {plan['micro_batch']} x "
                      f"{plan['device_iterations']} device iterations x "
                      f"{plan['replicas']} replicas"),
            ("images", f"{self.images} in {self.iterations} iterations, "
                       f"{self.warmup_iterations} of them warm-up"),
            ("compile", f"{self.compile_seconds:.2f} s"),
            ("throughput", rate and f"{rate.mean:.1f} images/s with data  (std {rate.std:.1f}, "
                                    f"min {rate.min:.1f}, max {rate.max:.1f})"),
            ("device only", compute and f"{compute.mean:.1f} images/s  (waiting for data "
                                        f"{100 * self.data_wait_share:.0f} % of the time)"),
            ("latency", latency and f"p50 {latency.p50:.2f} ms, p90 {latency.p90:.2f} ms, "
                                    f"p99 {latency.p99:.2f} ms per device call"),
            ("cycles", session.get("cycles") and f"{session['cycles']:,} in the last host call"),
            ("accuracy", self.accuracy and f"top-1 {self.accuracy['top1']:.2f} %, top-5 "
                         f"{self.accuracy['top5']:.2f} % of {self.accuracy['images']} images"),
            ("quantised", _quantisation(session.get("quantisation"))),
            ("stages", ", ".join(f"{stage['begins_at']} {100 * stage['share']:.0f} %"
                                 for stage in session.get("stages", []))),
            ("skipped", _skipped(self.skipped)),
            ("instances", _instances(self.instances)),
            ("predictions", self.predictions),
            ("stopped by", self.stopped_by)]

    def blocks(self) -> Blocks:
        """Return the facts and the first predictions; see `Shown`."""
        columns = [("name", "class"), ("probability", "probability"), ("label_name", "label")]
        shown = [(key, heading) for key, heading in columns
                 if any(row.get(key) is not None for row in self.answers)]
        title = f"the first {len(self.answers)} of {self.images:,} images"
        return [self.facts(), Table(
            ["file", *(heading for _, heading in shown)],
            [[row["path"], *(f"{100 * row[key]:.1f} %" if key == "probability" else row.get(key)
                             for key, _ in shown)] for row in self.answers],
            title if self.images > len(self.answers) else "")]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per image that is shown, the first `ipucnn.inference.answers.FIRST`."""
        return [dict(row) for row in self.answers]


def _skipped(skipped: Dict[str, Any]) -> Optional[str]:
    """Return the number of images that were left out, and the reason of the first one."""
    count = skipped["count"]
    if not count:
        return None
    words = "1 image that cannot be read" if count == 1 else f"{count} images that cannot be read"
    reasons = [reason for _, reason in skipped["first"][:1]]
    return ": ".join([words, *reasons]) + (" ..." if count > 1 and reasons else "")


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


def _instances(instances: Sequence[Dict[str, Any]]) -> List[str]:
    """Return a summary of each of several processes, and the location of the logs."""
    parts = []
    for own in instances:
        rate = own["throughput"]
        parts.append(f"{own['index']}: {own['images']} images" + (
            f" at {rate['mean']:.1f}/s" if rate else "") + (
            f", exit code {own['exit_code']}" if own.get("exit_code") else ""))
    folders = {os.path.dirname(own["log"]) for own in instances if "log" in own}
    return [*parts, *(f"logs in {folder}" for folder in folders)]
