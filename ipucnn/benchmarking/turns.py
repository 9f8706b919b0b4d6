"""The turns of the contenders in a case of `ipucnn bench`, and its entries in the result."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Set

from ipucnn.benchmarking import limits
from ipucnn.benchmarking.case import LIMIT, PEER, Case, Contender, Facts, RefusedError
from ipucnn.benchmarking.network_result import CaseResult, Entry, Limit, Rates


class Turns:
    """The turns of the contenders in a case, of all their processes.

    Args:
        case: what they compute.
        found: the result that `fill_in` adds to.

    Attributes:
        facts: of each contender, from the process that ended last.
        left_out: contenders that refused the case, or failed.
    """

    def __init__(self, case: Case, found: CaseResult) -> None:
        self.case, self._found = case, found
        self.facts: Dict[Contender, Facts] = {}
        self.left_out: Set[Contender] = set()
        self._rates: Dict[Contender, List[float]] = {}

    def add(self, contender: Contender, rate: float) -> None:
        """Add a turn: images (or operations) per second."""
        self._rates.setdefault(contender, []).append(rate)

    def leave_out(self, contender: Contender, reason: RefusedError) -> None:
        """Discard the turns of a contender, and note the reason."""
        self._rates.pop(contender, None)
        self.left_out.add(contender)
        if contender.kind != LIMIT:
            self._found.left_out[contender.label] = str(reason)

    def fill_in(self, contenders: Sequence[Contender]) -> None:
        """Add limits and entries to the result, in this order of the contenders."""
        rates = {one: self._rates[one] for one in contenders if one in self._rates}
        for contender in rates:
            if contender.kind == LIMIT:
                self._add_limit(contender)
        best = max((Rates.of(values).median for contender, values in rates.items()
                    if contender.kind == PEER), default=None)
        for contender, values in rates.items():
            if contender.kind != LIMIT:
                self._found.entries.append(self._entry(contender, values, best))

    def _add_limit(self, contender: Contender) -> None:
        rates, found = self._rates[contender], self._found
        if contender.name != limits.PRODUCT:
            found.limits.append(Limit(limits.DECODING, Rates.of(rates)))
            return
        operations = limits.OPERATIONS[found.job] * found.multiply_adds
        if operations:  # 0: unknown for this network
            found.limits.append(Limit(
                limits.PRODUCT, Rates.of([rate / operations for rate in rates]),
                str(self.facts.get(contender, {}).get("arithmetic", "")), Rates.of(rates).median))

    def _entry(self, contender: Contender, rates: List[float], best: Optional[float]) -> Entry:
        own = Rates.of(rates)
        facts = dict(self.facts.get(contender, {}))
        memory = facts.pop("peak_memory", None)
        return Entry(contender.kind, contender.name, own, rates,
                     own.median / best if best else None, self._found.of_limit(own.median), memory,
                     facts)
