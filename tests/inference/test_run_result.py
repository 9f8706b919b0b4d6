"""Statistics of a run."""

from __future__ import annotations

import math

import pytest

from ipucnn.inference.run_result import Meter, Percentiles, Spread


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


def test_instances_in_step_last_as_long_as_the_slowest():
    meter = Meter.together([[[4, 1.0, 0.5, [0.5]]], [[4, 2.0, 0.25, [1.75]]]])
    assert (meter.samples[0], meter.seconds[0], meter.waits[0]) == (8, 2.0, 0.5)
    assert meter.latencies.tolist() == [0.5, 1.75]


def test_instances_by_themselves_add_up_their_rates():
    fast, slow = [[4, 1.0, 0.5, [0.5]]] * 4, [[4, 2.0, 1.0, [1.0]]] * 2
    meter = Meter.together([fast, slow], in_step=False)
    figures = meter.figures(0, 8)
    assert figures["throughput"].mean == pytest.approx(4 + 2)
    assert figures["compute_throughput"].mean == pytest.approx(8 + 4)
    assert figures["latency_ms"].p50 == 500.0
    assert sum(meter.samples) == 24


def test_an_instance_without_a_part_adds_nothing():
    meter = Meter.together([[[1, 0.5, 0.0, [0.5]]], []], in_step=False)
    assert meter.figures(0, 2)["throughput"].mean == pytest.approx(2.0)
    assert Meter.together([[], []], in_step=False).figures(0, 2)["throughput"] is None
