"""What every engine that reads ONNX must do; the tests of each inherit it."""

from __future__ import annotations

import csv

import pytest
import torch

from ipucnn.core.errors import DataError, IpucnnError, UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.data.normalisation import normalise
from ipucnn.inference.job import run
from ipucnn.inference.options import RunOptions
from ipucnn.models.build import create_model
from ipucnn.onnx.job import export
from ipucnn.onnx.network import read_network
from ipucnn.onnx.options import ExportOptions
from ipucnn.onnx.tracing_export import exported

SIZE = 64
FAMILIES = {
    **{name: {} for name in ("resnet18", "mobilenet", "mobilenet-v3-small", "efficientnet-b0",
                             "resnext50")},
    "resnet18 with group norm": {"normlayer": "group"},
    "resnet18 without norm": {"normlayer": "none"},
}
SMALL = "resnet8-cifar"
TOLERANCE = {"32.32": 1e-4, "16.16": 3e-2}


def model_of(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(3)
    module = create_model(name.split()[0], num_classes=10, weights="random",
                          **{**FAMILIES.get(name, {}), **options}).module.eval()
    for layer in module.modules():  # statistics that folding cannot get right by chance
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.8, 1.2)
    return module


def images_of(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(1))


def logits_of_torch(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module(normalise(images))


def difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest, relative to the largest logit."""
    assert logits.shape == expected.shape
    assert logits.dtype == torch.float32
    return float((logits - expected).abs().max() / expected.abs().max())


def run_with(**options: object):
    return run(build(RunOptions, {"model": SMALL, "weights": "random", "input_size": SIZE,
                                  "precision": "full", **options}))


def rows_of(path) -> list:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def exported_file(folder, **options: object) -> str:
    export(build(ExportOptions, {
        "model": SMALL, "weights": "random", "input_size": SIZE, "target": "onnxruntime",
        "num_classes": 8, "output": str(folder / "network.onnx"), **options}))
    return str(folder / "network.onnx")


def run_file(path: str, **options: object):
    return run(build(RunOptions, {"onnx": path, "data": "shapes", "precision": "full",
                                  "iterations": 3, "batch_size": 2, **options}))


class EngineChecks:
    """Inherit it, with the backend's class and name."""

    backend: type
    name: str

    def classify(self, module: torch.nn.Module, plan: ExecutionPlan,
                 images: torch.Tensor) -> torch.Tensor:
        with self.backend().inference(module, plan, SIZE) as session:
            session.compile()
            return torch.cat([session(part)
                              for part in torch.split(images, session.samples_per_call)])

    @pytest.mark.parametrize("precision", ["32.32", "16.16"])
    @pytest.mark.parametrize("name", FAMILIES)
    def test_gives_the_logits_of_torch(self, name, precision):
        images = images_of(5)
        expected = logits_of_torch(model_of(name), images)
        plan = ExecutionPlan(micro_batch=2, precision=precision)
        logits = self.classify(model_of(name), plan, images)
        assert 0 < difference(logits, expected) < TOLERANCE[precision]

    @pytest.mark.parametrize("eight_bit", [True, False])
    @pytest.mark.parametrize("place", ["device", "host", "none"])
    def test_images_are_normalised_according_to_the_plan(self, place, eight_bit):
        if place == "host" and eight_bit:
            return  # no such plan
        images = images_of(2)
        module = model_of(SMALL)
        with torch.no_grad():
            expected = module(images.float() if place == "none" else normalise(images))
        fed = normalise(images) if place == "host" else images if eight_bit else images.float()
        plan = ExecutionPlan(micro_batch=2, precision="32.32", normalisation=place,
                             eight_bit_io=eight_bit)
        assert difference(self.classify(model_of(SMALL), plan, fed), expected) < 1e-4

    def test_fourth_channel(self):
        images = images_of(2)
        plan = ExecutionPlan(micro_batch=2, precision="32.32")
        logits = self.classify(model_of(SMALL, input_image_padding=True), plan, images)
        assert difference(logits, logits_of_torch(model_of(SMALL), images)) < 1e-4

    @pytest.mark.parametrize(("iterations", "replicas"), [(1, 1), (2, 1), (3, 1), (2, 2)])
    def test_any_batch_algebra_gives_the_same_logits(self, iterations, replicas):
        plan = ExecutionPlan(micro_batch=2, device_iterations=iterations, replicas=replicas,
                             precision="32.32")
        images = images_of(2 * plan.combined_batch - 1)
        with self.backend().inference(model_of(SMALL), plan, SIZE) as session:
            assert plan.combined_batch % session.samples_per_call == 0
        logits = self.classify(model_of(SMALL), plan, images)
        assert difference(logits, logits_of_torch(model_of(SMALL), images)) < 1e-4

    def test_logits_of_a_call_stay_as_they_are_in_the_next_one(self):
        plan = ExecutionPlan(micro_batch=2, device_iterations=2, precision="32.32")
        with self.backend().inference(model_of(SMALL), plan, SIZE) as session:
            session.compile()
            first = session(images_of(2))
            before = first.clone()
            session(images_of(4)[2:])
        assert torch.equal(first, before)

    def test_synthetic_images_never_cross(self):
        plan = ExecutionPlan(micro_batch=2, device_iterations=2, precision="32.32", synthetic=True)
        with self.backend().inference(model_of(SMALL), plan, SIZE) as session:
            session.compile()
            logits = session(None)
            assert logits.shape == (session.samples_per_call, 10)
            assert torch.isfinite(logits).all()
            assert torch.equal(session(None), logits)

    def test_half_precision_is_described(self):
        with self.backend().inference(model_of(SMALL), ExecutionPlan(), SIZE) as session:
            session.compile()
            assert session.facts["weights_type"] == "bfloat16"
            assert session.facts["arithmetic"] in ("bfloat16", "float32")
        full = ExecutionPlan(precision="32.32")
        with self.backend().inference(model_of(SMALL), full, SIZE) as session:
            session.compile()
            assert session.facts["weights_type"] == session.facts["arithmetic"] == "float32"

    @pytest.mark.parametrize("how", [
        {"batch_size": 2}, {"dynamic_batch": True},
        {"batch_size": 2, "normalization_location": "device"}])
    def test_a_file_gives_the_predictions_of_its_network(self, tmp_path, how):
        path = exported_file(tmp_path, **how)
        result = run_file(path, backend=self.name, predictions=str(tmp_path / "file.csv"))
        assert result.weights["source"] == path
        run_with(backend="torch", data="shapes", iterations=3, batch_size=2,
                 predictions=str(tmp_path / "torch.csv"))
        ours, theirs = rows_of(tmp_path / "file.csv"), rows_of(tmp_path / "torch.csv")
        assert len(ours) == len(theirs) == 6
        for row, other in zip(ours, theirs):
            for name, value in row.items():
                if name.startswith("probability"):
                    assert float(value) == pytest.approx(float(other[name]), abs=2e-4)
                elif not name.startswith(("class", "name", "label")):
                    assert value == other[name]

    def test_a_file_in_half_precision(self, tmp_path):
        path = exported_file(tmp_path, dynamic_batch=True, precision="half")
        with pytest.raises(UsageError, match="half precision"):
            run_file(path, backend=self.name)
        result = run_file(path, backend=self.name, precision="half", batch_size=3)
        assert result.images == 9
        assert result.session["weights_type"] == "float16"

    def test_a_file_of_another_batch_is_refused(self, tmp_path):
        path = exported_file(tmp_path, batch_size=2)
        with pytest.raises(UsageError, match="takes 2 images per call, not 3"):
            run_file(path, backend=self.name, batch_size=3)

    def test_a_missing_or_damaged_file(self, tmp_path):
        (tmp_path / "bad.onnx").write_bytes(b"no graph")
        for name, what in (("none.onnx", "there is no ONNX file"), ("bad.onnx", "damaged")):
            with pytest.raises(DataError, match=what):
                run_file(str(tmp_path / name), backend=self.name)

    @pytest.mark.parametrize("device", ["gpu:9", "cuda:9", "nonsense", "cpu:x"])
    def test_a_device_that_is_not_here(self, device):
        with pytest.raises(UnavailableError) as caught:
            run_with(backend=self.name, data="synthetic", device=device)
        assert device in caught.value.message
        assert caught.value.hint

    @pytest.mark.parametrize("options", [
        {"compile": True}, {"full_precision_norm": True, "precision": "half"},
        {"pipeline_splits": "layer2", "device_iterations": 2}])
    def test_what_it_lacks_is_refused(self, options):
        with pytest.raises(UsageError, match=self.name):
            run_with(backend=self.name, data="synthetic", **options)

    def test_a_batch_larger_than_memory(self):
        with pytest.raises(UsageError, match="GB of memory") as caught:
            run_with(backend=self.name, data="synthetic", batch_size=10**9)
        assert "--batch-size" in caught.value.hint

    def test_a_network_that_it_does_not_know(self, tmp_path):
        import onnx

        images = torch.zeros(1, 3, SIZE, SIZE)
        proto = exported(model_of("resnet18"), images, self.backend.target)
        proto.graph.node[0].domain = "elsewhere"
        proto.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
        onnx.save(proto, str(tmp_path / "odd.onnx"))
        plan = ExecutionPlan(precision="32.32", normalisation="host", eight_bit_io=False)
        with self.backend().inference(read_network(tmp_path / "odd.onnx"), plan, SIZE) as session, \
                pytest.raises(IpucnnError, match=r"refuses the network: .*elsewhere") as caught:
            session.compile()
        assert caught.value.hint
