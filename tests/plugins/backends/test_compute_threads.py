"""`--threads`, and the threads of processors whose cores execute several."""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec

import pytest
import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import registry
from ipucnn.inference import tuning
from ipucnn.inference.options import RunOptions
from tests.plugins.backends.engine_checks import SIZE, model_of

PLAN = ExecutionPlan(precision="32.32")
ENGINES = [pytest.param(name, marks=pytest.mark.skipif(
    find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("torch", "onnxruntime", "openvino", "ncnn")]


def backend(name, **values):
    spec = registry().get("backend", name)
    return registry().make(spec, options=registry().options_class(spec)(**values))


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_computes_with_a_thread_per_core_or_as_given(name, threads):
    threads(2, 4)
    for given, expected in ((None, 2), (1, 1), (4, 4)):
        made = backend(name, threads=given)
        with made.inference(model_of("resnet8-cifar"), PLAN, SIZE) as session:
            session.compile()
            assert session.facts["threads"] == expected


@pytest.mark.parametrize("name", ENGINES)
def test_more_threads_than_cores_are_refused(name, threads):
    threads(2, 4)
    with pytest.raises(UsageError, match=r"'--threads 5' is more than the 4 cores"):
        backend(name, threads=5).inference(model_of("resnet8-cifar"), PLAN, SIZE)


@pytest.mark.parametrize("name", ENGINES)
def test_all_logical_cpus_are_measured_where_there_are_more_than_cores(name, threads):
    threads(2, 4)
    *usual, last = backend(name).variants(PLAN)
    assert last["threads"] == 4
    assert all("threads" not in one for one in usual)
    assert last.get("requests") in {"torch": [None], "ncnn": [4, 1]}.get(name, [8])
    assert all("threads" not in one for one in backend(name, threads=3).variants(PLAN))
    threads(4)
    assert all("threads" not in one for one in backend(name).variants(PLAN))


def test_candidates_of_torch_are_measured_with_their_own_threads(threads, tmp_path, monkeypatch):
    threads(1, 2)
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    for name, value in (("ROUNDS", 2), ("PAUSE", 0.0), ("CLOSE", 0.0), ("HOPELESS", 0.0)):
        monkeypatch.setattr(tuning, name, value)
    counts = defaultdict(list)

    def rate(session, images):
        session.start(images)()
        counts[session.facts["threads"]].append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(tuning, "images_per_second", rate)
    before = torch.get_num_threads()
    tuning.measure(build(RunOptions, {
        "model": "resnet8-cifar", "weights": "random", "backend": "torch", "precision": "full"}),
        registry())
    assert {threads: set(counted) for threads, counted in counts.items()} == {1: {1}, 2: {2}}
    assert torch.get_num_threads() == before
