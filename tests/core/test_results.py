"""Statistics of a run."""

from __future__ import annotations

import math

import pytest

from ipucnn.core.results import Meter, Percentiles, Spread


def test_spread_and_percentiles():
    assert Spread.of([1.0, 3.0]) == Spread(mean=2.0, std=1.0, min=1.0, max=3.0)
    assert Spread.of([]) is None
    hundred = [float(n) for n in range(1, 101)]
    assert Percentiles.of(hundred) == Percentiles(50.0, 90.0, 99.0)
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0, 7.0)
    assert Percentiles.of([]) is None


@pytest.mark.parametrize(("iterations", "wanted", "left_out"), [
    (1, 2, 0), (2, 2, 1), (3, 2, 1), (4, 2, 2), (100, 2, 2), (5, 0, 0), (0, 2, 0)])
def test_warm_up_never_eats_more_than_half_of_the_run(iterations, wanted, left_out):
    meter = Meter()
    for _ in range(iterations):
        meter.iteration(8, 1.0, 0.0, [1.0])
    assert meter.warmup(wanted) == left_out


def test_figures_leave_out_the_warm_up_and_a_short_last_iteration():
    meter = Meter()
    meter.iteration(8, 100.0, 0.0, [100.0])
    meter.iteration(8, 2.0, 1.0, [0.5, 0.5])
    meter.iteration(8, 4.0, 3.0, [0.5, 0.5])
    meter.iteration(1, 1.0, 0.0, [1.0])
    figures = meter.figures(warmup=1, full=8)
    assert figures["throughput"] == Spread(mean=3.0, std=1.0, min=2.0, max=4.0)
    assert figures["compute_throughput"].mean == 8.0
    assert figures["latency_ms"] == Percentiles(500.0, 1000.0, 1000.0)
    assert math.isclose(figures["data_wait_share"], 4 / 7)


def test_a_single_short_iteration_still_has_figures():
    meter = Meter()
    meter.iteration(3, 1.5, 0.0, [1.5])
    assert meter.figures(warmup=0, full=8)["throughput"].mean == 2.0
    assert Meter().figures(warmup=0, full=8)["throughput"] is None
