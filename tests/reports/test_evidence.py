"""What is recorded for reports: counts, calibration, chosen images, curves."""

from __future__ import annotations

import json
import tracemalloc

import numpy
import pytest
import torch
from made_runs import logits

from ipucnn.core.execution.accuracy import UNKNOWN
from ipucnn.reports.classes_shown import (
    MOST_CLASSES,
    calibration_error,
    class_rows,
    heat_map,
    mistaken_pairs,
)
from ipucnn.reports.curves import thinned
from ipucnn.reports.evidence import BINS, MOST_LATENCIES, Evidence, kept_latencies, merged
from ipucnn.reports.thumbnails import checked, thumbnail

NAMES = ["a", "b", "c", "d"]


def collected(images=500, part=slice(None), batch=64, shown=12):
    labels, values = logits(images, len(NAMES))
    labels[::10] = UNKNOWN
    found = Evidence(NAMES, shown)
    indices = list(range(images))[part]
    for begin in range(0, len(indices), batch):
        own = indices[begin:begin + batch]
        found.add(own, values[own].softmax(1), labels[own])
    return found.reduced("image {}".format), labels, values


def test_counts_are_those_of_every_image():
    found, labels, values = collected()
    answers = values.argmax(1)
    known = labels != UNKNOWN
    assert (found["images"], found["labelled"]) == (500, 450)
    assert found["correct"] == int((answers == labels)[known].sum())
    for label, answer, images in found["confusion"]:
        assert images == int(((labels == label) & (answers == answer)).sum())
    assert sum(images for *_, images in found["confusion"]) == 450
    certain = values.softmax(1).max(1).values
    inside = known & ((certain * BINS).long() == BINS - 2)
    images, total, right = found["calibration"][BINS - 2]
    assert (images, right) == (int(inside.sum()), int((inside & (answers == labels)).sum()))
    assert total == pytest.approx(float(certain[inside].sum()), abs=1e-3)
    json.dumps(found)


def test_the_images_to_look_at_are_the_extreme_ones():
    found, labels, values = collected()
    probabilities = values.softmax(1)
    best = probabilities.topk(2)
    wrong = [index for index in range(500) if labels[index] not in (
        UNKNOWN, int(best.indices[index, 0]))]
    wrong.sort(key=lambda index: -float(best.values[index, 0]))
    assert [row["index"] for row in found["shown"]["wrong"]] == wrong[:12]
    first = found["shown"]["wrong"][0]
    assert first["name"] == f"image {wrong[0]}"
    assert first["label"] == NAMES[int(labels[wrong[0]])] != first["answer"]
    margins = (best.values[:, 0] - best.values[:, 1]).tolist()
    doubtful = [margins[row["index"]] for row in found["shown"]["doubtful"]]
    assert doubtful == sorted(margins)[:12]
    assert all(row["right"] for row in found["shown"]["right"])
    assert found["shown"]["certain"] == []


def test_several_processes_find_what_one_does():
    alone = collected()[0]
    parts = [collected(part=slice(start, None, 3), batch=17)[0] for start in range(3)]
    together = merged(parts)
    assert together.pop("calibration") == [pytest.approx(row, abs=1e-3)
                                           for row in alone.pop("calibration")]
    assert together == alone


def test_images_without_labels_and_with_several():
    labels, values = logits(20, 4)
    found = Evidence(NAMES)
    found.add(range(20), values.softmax(1), None)
    unlabelled = found.reduced(str)
    assert (unlabelled["labelled"], unlabelled["confusion"]) == (0, [])
    assert len(unlabelled["shown"]["certain"]) == 12
    assert calibration_error(unlabelled["calibration"]) is None
    several = Evidence(NAMES)
    several.add(range(20), values.sigmoid(), torch.nn.functional.one_hot(labels, 4))
    counted = several.reduced(str)
    assert (counted["labelled"], counted["confusion"]) == (20, [])
    assert counted["correct"] == int((values.argmax(1) == labels).sum())
    empty = Evidence(NAMES).reduced(str)
    assert (empty["images"], empty["shown"]["wrong"]) == (0, [])


def test_outputs_that_are_no_numbers_are_left_out():
    found = Evidence(NAMES)
    found.add([0, 1], torch.tensor([[float("nan")] * 4, [0.1, 0.2, 0.3, 0.4]]),
              torch.tensor([0, 3]))
    assert found.reduced(str)["images"] == 1


def test_tables_of_classes():
    found = collected()[0]
    rows = class_rows(found)
    assert sum(row.images for row in rows) == 450
    assert sum(row.answers for row in rows) == 500
    assert sum(row.correct for row in rows) == found["correct"]
    for number, row in enumerate(rows):  # images without a label are neither right nor wrong
        labelled = sum(images for _, answer, images in found["confusion"] if answer == number)
        assert row.precision == pytest.approx(100 * row.correct / labelled)
    label, answer, images = mistaken_pairs(found)[0]
    assert [NAMES.index(label), NAMES.index(answer), images] in found["confusion"]
    assert heat_map(found).classes == 4
    many = {"classes": [f"n{i}" for i in range(99)], "confusion": [
        [i, i, 9] for i in range(99)] + [[i, i + 1, 99 - i] for i in range(98)]}
    drawn = heat_map(many)
    assert (drawn.classes, drawn.of) == (MOST_CLASSES, 99)
    assert "<title>n1, predicted n1: 9 of" in drawn.svg
    assert "n98, predicted" not in drawn.svg


def test_the_calibration_error_is_the_papers():
    # half of the answers are certain to 90 % and right, half to 60 % and wrong
    assert calibration_error([(10, 9.0, 10), (10, 6.0, 0)]) == pytest.approx(0.35)


def test_thinned_curves_keep_their_extremes():
    points = [(float(place), float(place % 10)) for place in range(5000)]
    points[1234], points[4321] = (1234.0, 99.0), (4321.0, -99.0)
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert {points[0], points[-1], points[1234], points[4321]} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(points[:7]) == points[:7]


def test_kept_latencies_keep_percentiles():
    values = [place / 1000 for place in range(10_000, 0, -1)]
    kept = kept_latencies(values)
    assert len(kept) == MOST_LATENCIES
    assert (kept[0], kept[-1]) == (1.0, 10_000.0)
    assert kept[len(kept) // 2] == pytest.approx(5000, rel=0.01)


def test_only_thumbnails_are_accepted_from_files():
    made = thumbnail(numpy.zeros((300, 200, 3), numpy.uint8))
    assert checked(made) == made
    assert len(made) < 2000
    for other in ("http://example.org/x.jpg", "data:text/html;base64,AAAA", made + '"', None, 7,
                  "data:image/svg+xml;base64,AAAA"):
        assert checked(other) == ""


def test_small_batches_take_little_memory():
    evidence, images = Evidence(["a", "b"]), 3000
    probabilities = numpy.array([[0.25, 0.75]], numpy.float32)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(images):
            evidence.add([index], probabilities, None)
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 100 * images
    assert evidence.reduced(str)["images"] == images
