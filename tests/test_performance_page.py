"""The performance page is generated from the committed results."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    yield importlib.import_module("performance_page")
    sys.modules.pop("performance_page", None)


def rates(median):
    return {"median": median, "min": 0.9 * median, "max": 1.1 * median}


def entry(kind, name, median, limit):
    return {"kind": kind, "name": name, "images_per_second": rates(median), "turns": 3 * [median],
            "to_best_peer": None, "of_limit": median / limit, "peak_memory": 123_000_000,
            "facts": {"backend": "openvino", "in_flight": 2, "session": {"images_per_call": 4}}}


def case(ours, peer, **values):
    return {"model": "resnet50", "batch_size": 16, "precision": "32.32", "job": "inference",
            "data": "synthetic", "input_size": 224, "multiply_adds": 1, "limits": [
                {"what": "product", "images_per_second": rates(200.0), "arithmetic": "float32",
                 "operations_per_second": 142e9}],
            "entries": [entry("ipucnn", "auto", ours, 200.0),
                        entry("peer", "openvino-throughput", peer, 200.0)],
            "left_out": {"timm": "it is not installed"}, "ratio": ours / peer, **values}


def bench(*cases):
    return {"format": "ipucnn.bench/1", "date": "2026-01-02 03:04 UTC", "options": {"rounds": 3},
            "cases": list(cases), "environment": {
                "processor": "A processor", "cores": 2, "packages": {"torch": "2.0"},
                "command": ["ipucnn", "bench", "--out", "x.json"]}}


def test_the_page_is_what_the_files_give(pages):
    assert pages.page(pages.read()) == (ROOT / "docs" / pages.PAGE).read_text(encoding="utf-8"), \
        "run 'make docs'"


def test_every_case_has_its_figures_limit_and_ratio(pages):
    page = pages.page({"performance_inference": bench(case(100.0, 80.0))})
    assert "A processor, 2 cores; torch 2.0; 2026-01-02 03:04 UTC, 3 rounds." in page
    assert "ipucnn bench --out x.json" in page
    assert ("| resnet50, 16, full | 100.0 (90.0\u2013110.0) | 80.0 (72.0\u201388.0) | 1.25 | 200.0 "
            "| 50 % |") in page
    assert "| resnet50, 16, full | 123 | 123 |" in page
    assert "142\u2013142 GFLOP/s in float32" in page
    assert "- timm: it is not installed" in page
    assert "| resnet50, 16, full | openvino | 4 | 2 |" in page


def test_a_case_that_was_interrupted_is_left_out(pages):
    interrupted = case(70.0, 80.0, batch_size=64)
    interrupted["entries"] = [{**one, "turns": one["turns"][:2]} for one in interrupted["entries"]]
    page = pages.page({"performance_inference": {
        **bench(case(100.0, 80.0), interrupted), "stopped_by": "SIGTERM"}})
    assert "3 rounds, stopped before the last case was complete." in page
    assert "1 of 1 targets are met." in page
    assert "resnet50, 64" not in page


def test_targets_are_met_or_missed(pages):
    page = pages.page({
        "performance_inference": bench(case(100.0, 80.0), case(99.0, 100.0, batch_size=1)),
        "performance_int8": bench(case(100.0, 80.0), case(
            150.0, 80.0, precision="int8", ratio=None)),
        "performance_training_files": bench(case(
            104.0, 100.0, job="train", data="files",
            entries=[{**entry("ipucnn", "torch", 104.0, 200.0),
                      "facts": {"backend": "torch", "data_wait_share": 0.004}},
                     entry("peer", "timm", 100.0, 200.0)])),
        "first_prediction": {
            "what": "one", "rounds": 1, "environment": bench()["environment"],
            "seconds": {"openvino, script": rates(1.0), "openvino, --onnx": rates(1.9)},
            "peak_mib": {"openvino, script": rates(200.0), "openvino, --onnx": rates(300.0)},
            "ratio_to_the_script_of_the_engine": {"seconds": {"openvino, --onnx": rates(1.9)}}},
        "end_to_end": {
            "what": "many", "rounds": 1, "environment": bench()["environment"],
            "decode_alone_seconds": rates(0.5), "networks": {"mobilenet": {
                "seconds": {"ipucnn": rates(2.0), "timm": rates(3.6)},
                "peak_mib": {"ipucnn": rates(250.0), "timm": rates(900.0)},
                "compute_alone_seconds": {"compute alone": rates(1.0)},
                "seconds_beside_compute": {"ipucnn": rates(1.0)},
                "times_as_fast_as": {"ipucnn": {"timm": rates(1.8)}, "ipucnn, full": {}}}}},
        "cached_images": {
            "what": "small", "images": 64, "rounds": 1, "environment": bench()["environment"],
            "cases": {"resnet8": {"hand-written loop": "0 worker processes", **{mode: {
                "images_per_second": {"ipucnn": rates(140.0), "hand-written": rates(100.0)},
                "ratio_to_hand_written": rates(1.4), "data_wait_share": 0.02}
                for mode in ("none", "ram")}}}}})
    assert "7 of 13 targets are met." in page
    for what, where, figure, met in (
            ("training: less than 2 % of the time waiting for images", "resnet50, 16, full, files",
             "0.4 %", True),
            ("training: less than 2 % of the time waiting for images",
             "resnet8, --cache-images ram", "2.0 %", False),
            ("inference: at least the speed of the fastest other program", "resnet50, 16, full",
             "1.25", True),
            ("inference: at least the speed of the fastest other program", "resnet50, 1, full",
             "0.99", False),
            ("8-bit integers: at least 1.6 times the speed of single precision", "resnet50, 16",
             "1.50", False),
            ("training: at least 1.1 times the speed of timm", "resnet50, 16, full, files", "1.04",
             False),
            ("one photograph: at most 2.0 times the duration of a minimal script",
             "openvino, --onnx", "1.90", True),
            ("at most 1.5 s longer than computation alone", "mobilenet, ipucnn", "1.00 s", True),
            ("at least 1.7 times the speed of timm", "mobilenet, ipucnn", "1.80", True),
            ("small images: at least 1.3 times the speed of a hand-written loop",
             "resnet8, --cache-images ram", "1.40", True),
            ("one photograph: less than 300 MB of memory", "openvino, --onnx", "315 MB", False)):
        assert f"| {what} | {where} | {figure} | {'yes' if met else '**no**'} |" in page
