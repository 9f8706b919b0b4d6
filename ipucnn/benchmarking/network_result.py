"""The result of `ipucnn bench` as tables, JSON and Python objects."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Sequence

from ipucnn.benchmarking.case import OWN, PEER, SYNTHETIC, TRAIN, Contender, Facts
from ipucnn.core.showing import Blocks, Shown, Table

FORMAT = "ipucnn.bench/1"


@dataclass(frozen=True)
class Rates:
    """Images per second of several turns."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Rates:
        """Return the rates of turns, of which there is one at least."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Entry:
    """The measurement of one contender in a case.

    Attributes:
        kind: `ipucnn` or `peer`.
        name: of the backend or the other program.
        images_per_second: of its turns.
        turns: the single rates, in the order of the rounds.
        to_best_peer: its median relative to that of the fastest other program.
        of_limit: its median relative to the limit.
        peak_memory: the largest resident memory of its process in bytes.
        facts: its setup: device, threads, requests ...
    """

    kind: str
    name: str
    images_per_second: Rates
    turns: List[float]
    to_best_peer: Optional[float] = None
    of_limit: Optional[float] = None
    peak_memory: Optional[int] = None
    facts: Facts = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name in tables."""
        return Contender(self.kind, self.name).label


@dataclass(frozen=True)
class Limit:
    """An upper limit of images per second.

    Attributes:
        what: `product`, a matrix product with as many operations, or `decoding`, of the files.
        images_per_second: at that rate.
        arithmetic: type of the product.
        operations_per_second: of the product.
    """

    what: str
    images_per_second: Rates
    arithmetic: str = ""
    operations_per_second: Optional[float] = None

    @property
    def words(self) -> str:
        """The measured quantity, in words."""
        if self.what == "decoding":
            return "decoding alone"
        return f"matrix products in {self.arithmetic}" if self.arithmetic else "matrix products"


@dataclass
class CaseResult:
    """The measurements of one network, micro-batch and precision.

    Attributes:
        model: the network's name.
        batch_size: images per call.
        precision: of the computation.
        job: `inference` or `train`.
        data: `synthetic`, `generated` or `files`.
        input_size: height and width of the images in pixels.
        multiply_adds: of one image, forward.
        limits: those that apply; the lowest counts.
        entries: the contenders, in the order of measurement.
        left_out: names of contenders that were not measured, and the reason.
    """

    model: str
    batch_size: int
    precision: str
    job: str
    data: str
    input_size: int
    multiply_adds: int
    limits: List[Limit] = field(default_factory=list)
    entries: List[Entry] = field(default_factory=list)
    left_out: Dict[str, str] = field(default_factory=dict)

    def best(self, kind: str) -> Optional[Entry]:
        """Return the fastest contender of a kind, by its median."""
        return max((entry for entry in self.entries if entry.kind == kind),
                   key=lambda entry: entry.images_per_second.median, default=None)

    @property
    def limit(self) -> Optional[Limit]:
        """The lowest limit."""
        return min(self.limits, key=lambda limit: limit.images_per_second.median, default=None)

    def of_limit(self, rate: float) -> Optional[float]:
        """Return a rate relative to the lowest limit; None without a limit."""
        limit = self.limit
        return None if limit is None else rate / limit.images_per_second.median

    @property
    def ratio(self) -> Optional[float]:
        """The fastest backend's median relative to the fastest other program's."""
        own, peer = self.best(OWN), self.best(PEER)
        if own is None or peer is None or not peer.images_per_second.median:
            return None
        return own.images_per_second.median / peer.images_per_second.median

    @property
    def title(self) -> str:
        """The case in words."""
        job = "training, " if self.job == TRAIN else ""
        limit = self.limit
        bound = "" if limit is None else \
            f": limit {limit.images_per_second.median:,.1f} images/s ({limit.words})"
        images = "" if self.data == SYNTHETIC else f", {self.data}"
        return (f"{self.model}, {job}micro-batch {self.batch_size}, {self.precision}{images}"
                f"{bound}")

    def table(self) -> Table:
        """Return the contenders as a table of at most 80 columns."""
        rows = [(entry.label, f"{entry.images_per_second.median:,.1f}",
              *(("", "") if len(entry.turns) == 1 else (
                  f"{entry.images_per_second.min:,.1f}", f"{entry.images_per_second.max:,.1f}")),
              "" if entry.to_best_peer is None else f"{entry.to_best_peer:.2f}",
              "" if entry.of_limit is None else f"{100 * entry.of_limit:.0f} %",
              "" if entry.peak_memory is None else f"{entry.peak_memory / 1e6:,.0f} MB")
             for entry in self.entries]
        return _filled(Table(("contender", "images/s", "min", "max", "to best", "of limit",
                              "memory"), rows, self.title))

    def as_dict(self) -> Dict[str, Any]:
        """Return the case as plain types."""
        return {**asdict(self), "ratio": self.ratio}


def _filled(table: Table) -> Table:
    """Return a table without the columns whose cells are all empty."""
    kept = [place for place in range(len(table.headings)) if any(row[place] for row in table.rows)]
    return Table([table.headings[place] for place in kept],
                 [[row[place] for place in kept] for row in table.rows], table.title)


@dataclass(repr=False)
class NetworkBench(Shown):
    """The result of `ipucnn bench`.

    Attributes:
        options: the resolved options.
        environment: versions and machine.
        date: of the measurement, in UTC.
        cases: the measurements.
        seconds: that all of them took.
        stopped_by: a signal such as `SIGINT` when it ended early.
        notes: notes for the user.
    """

    options: Dict[str, Any]
    environment: Dict[str, Any]
    date: str
    cases: List[CaseResult] = field(default_factory=list)
    seconds: float = 0.0
    stopped_by: Optional[str] = None
    notes: List[str] = field(default_factory=list)

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        return {"format": FORMAT, **asdict(self), "cases": [case.as_dict() for case in self.cases]}

    def all_notes(self) -> List[str]:
        """Return the notes, and one for each contender that was left out."""
        reasons: Dict[str, List[str]] = {}
        for case in self.cases:
            for name, reason in case.left_out.items():
                reasons.setdefault(f"not measured: {name}: {reason}", []).append(case.model)
        return [*self.notes, *(f"{text} ({', '.join(dict.fromkeys(models))})"
                               for text, models in reasons.items())]

    def facts(self) -> List[Any]:
        """Return the machine and the extent, as names and values."""
        machine = self.environment
        rounds = "" if self.options.get("quick") else f"{self.options['rounds']} rounds "
        if self.options.get("processes", 1) > 1:
            rounds += f"in each of {self.options['processes']} processes "
        return [("processor", machine["processor"]), ("cores", machine["cores"]),
                ("threads", machine["threads"]),
                ("measured", f"{rounds}in {self.seconds:.0f} s"),
                ("stopped by", self.stopped_by)]

    def summary(self) -> Table:
        """Return the fastest backend of each case, and its ratio to the fastest other program."""
        rows = []
        for case in self.cases:
            own, peer, ratio = case.best(OWN), case.best(PEER), case.ratio
            rows.append((
                f"{case.model}, {case.batch_size}", case.precision,
                own.name if own else "", f"{own.images_per_second.median:,.1f}" if own else "",
                f"{100 * own.of_limit:.0f} %" if own and own.of_limit is not None else "",
                "" if ratio is None or peer is None else f"{ratio:.2f} {peer.label}"))
        return _filled(Table(("network, batch", "type", "fastest", "images/s", "of limit",
                              "to the best other"), rows))

    def tables(self) -> List[Table]:
        """Return a table per case, and the summary."""
        return [*(case.table() for case in self.cases if case.entries), self.summary()]

    def blocks(self) -> Blocks:
        """Return the machine and the tables; see `Shown`."""
        return [self.facts(), *self.tables()]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per case and contender."""
        return [{"model": case.model, "batch_size": case.batch_size, "precision": case.precision,
                 "job": case.job, "contender": entry.label,
                 "images_per_second": entry.images_per_second.median,
                 "min": entry.images_per_second.min, "max": entry.images_per_second.max,
                 "to_best_peer": entry.to_best_peer, "of_limit": entry.of_limit,
                 "peak_memory": entry.peak_memory}
                for case in self.cases for entry in case.entries]
