"""The threads of every engine: OMP_NUM_THREADS and the affinity, in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

ENGINES = """
import json, os, sys

for name in ("sched_getaffinity", "sched_setaffinity"):
    if not hasattr(os, name):
        sys.exit(77)
if sys.argv[1] == "affinity":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
else:
    os.sched_getaffinity = lambda _: set(range(4))  # a larger machine than this one may be

import torch
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.registry.registry import registry
from ipucnn.data import DatasetRequest
from ipucnn.data.host_loader import HostLoader
from ipucnn.core.options.building import build
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.preparation import prepare as prepare_training

class Small(torch.nn.Module):
    def forward(self, images):
        return images.float().mean((2, 3))

found = {}
for spec in (row.spec for row in registry().rows("backend") if row.state.value == "ok"):
    if spec.name not in ("torch", "onnxruntime", "openvino", "ncnn"):
        continue
    backend = registry().make(spec)
    if not backend.probe().usable:
        continue
    torch.set_num_threads(2)  # as another library may have left it
    with backend.inference(Small(), ExecutionPlan(precision="32.32", micro_batch=2), 8) as session:
        session.compile()
        found[spec.name] = session.facts["threads"]
        if spec.name == "torch":
            found["torch itself"] = torch.get_num_threads()
made = prepare_training(build(TrainOptions, {
    "model": "resnet18", "weights": "random", "data": "synthetic", "no_validation": True,
    "input_size": 32, "backend": "torch", "precision": "32.32", "iterations": 1}), registry())
torch.set_num_threads(2)
with made.chosen.backend.training(made.built.module, made.plan, made.setup, 32) as session:
    found["training"] = session.facts["threads"]
    found["training itself"] = torch.get_num_threads()
images = registry().make(registry().get("dataset", "generated"),
                         DatasetRequest(length=4, num_classes=2, input_size=8))
found["loader"] = HostLoader(images, 8, 1, range(4)).workers
print(json.dumps(found))
"""


@pytest.mark.parametrize(("limit", "variables", "threads"), [
    ("OMP_NUM_THREADS", {"OMP_NUM_THREADS": "3"}, 3), ("affinity", {"OMP_NUM_THREADS": "8"}, 1)])
def test_every_engine_obeys(limit, variables, threads):
    done = subprocess.run([sys.executable, "-c", ENGINES, limit], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=240,
                          env={**os.environ, **variables})
    if done.returncode == 77:
        pytest.skip("the system has no affinity")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == dict.fromkeys(found, threads)
    assert {"torch", "torch itself", "training", "training itself", "loader"} <= set(found)
