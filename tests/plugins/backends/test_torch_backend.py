"""The torch backend gives the logits of the plain module, whatever it does to be fast."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading

import pytest
import torch
from engine_checks import SIZE, images_of, logits_of_torch, model_of
from torch import nn

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.normalisation import normalise
from ipucnn.models.surgery import pad_input_channels, replace_norms
from ipucnn.plugins.backends.torch import compiler, devices, engine
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.backends.torch.folding import fold_batch_norms
from ipucnn.plugins.backends.torch.options import TorchOptions

FAMILIES = ("resnet18", "resnext50", "mobilenet", "mobilenet-v3-small", "efficientnet-b0")


@pytest.mark.parametrize("name", FAMILIES)
def test_full_precision_gives_the_logits_of_the_plain_module(name):
    module, images = model_of(name), images_of(5)
    expected = logits_of_torch(module, images)
    plan = ExecutionPlan(micro_batch=2, precision="32.32")
    with TorchBackend().inference(model_of(name), plan, SIZE) as session:
        session.compile()
        logits = torch.cat([session(images[:2]), session(images[2:4]), session(images[4:])])
        assert session.facts["folded_batch_norms"] > 0
        assert session.facts["arithmetic"] == "float32"
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_an_activation_within_a_batch_norm_survives_folding():
    class Activated(torch.nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.act = torch.nn.ReLU()

        def forward(self, x):
            return self.act(super().forward(x))

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), Activated(8)).eval()
    model[1].running_mean.uniform_(-1, 1)
    images = torch.randn(2, 3, 6, 6)
    expected = model(images)
    replace_norms(model, lambda site: torch.nn.BatchNorm2d(site.channels))
    folded, count = fold_batch_norms(model)
    assert count == 1
    assert (folded(images) >= 0).all()
    assert torch.allclose(folded(images), expected, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


def test_every_batch_norm_of_a_resnet_is_folded():
    module = model_of("resnet18")
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    folded, count = fold_batch_norms(module)
    assert count == norms == 20
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


def test_weights_folded_in_another_type_are_those_rounded_afterwards():
    module = model_of("resnet18")
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    rounded = fold_batch_norms(module)[0].to(torch.bfloat16).state_dict()
    folded = fold_batch_norms(module, torch.bfloat16)[0]
    assert folded.get_submodule("layer1.0.conv1").weight.dtype == torch.bfloat16
    found = folded.to(torch.bfloat16).state_dict()
    assert found.keys() == rounded.keys()
    assert all(torch.equal(found[name], rounded[name]) for name in rounded)


def test_an_untraceable_model_is_left_as_it_is():
    class Branching(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean() if images.sum() > 0 else images.sum()

    module = Branching()
    assert fold_batch_norms(module) == (module, 0)


def test_a_batch_norm_that_is_not_alone_after_its_convolution_stays():
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)
            self.norm = torch.nn.BatchNorm2d(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out = self.conv(images)
            return self.norm(out) + out

    assert fold_batch_norms(Shared().eval())[1] == 0


@pytest.mark.parametrize("precision", ["16.16", "32.32"])
@pytest.mark.parametrize("place", ["device", "host", "none"])
def test_images_are_normalised_according_to_the_plan(place, precision):
    module, images = model_of("resnet18"), images_of(2)
    fed = normalise(images) if place == "host" else images
    with torch.no_grad():
        expected = module(images.float() if place == "none" else normalise(images))
    plan = ExecutionPlan(micro_batch=2, precision=precision, normalisation=place,
                         eight_bit_io=place != "host")
    with TorchBackend().inference(model_of("resnet18"), plan, SIZE) as session:
        session.compile()
        logits = session(fed)
    loose = {"rtol": 0.1, "atol": 0.15} if precision == "16.16" else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(logits / expected.abs().max(), expected / expected.abs().max(),
                               **loose)


def test_half_precision_rounds_the_weights():
    full, half = (
        TorchBackend().inference(model_of("resnet18"), ExecutionPlan(precision=p), SIZE)
        for p in ("32.32", "16.16"))
    with full, half:
        full.compile(), half.compile()
        exact, rounded = full(images_of(1)), half(images_of(1))
        assert half.facts["weights_type"] == "bfloat16"
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max() + 0.05


def test_full_precision_norms_stay_unfolded_and_exact(monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset({"avx512_bf16"}))
    plan = ExecutionPlan(precision="16.16", full_precision_norm=True)
    model = model_of("resnet18")
    model.bn1.weight.data.fill_(1 + 2**-12)  # 1 in bfloat16
    with TorchBackend().inference(model, plan, SIZE) as session:
        session.compile()
        assert "folded_batch_norms" not in session.facts
        assert session.facts["arithmetic"] == "bfloat16"
        assert session(images_of(1)).shape == (1, 10)
        assert (model.bn1.weight == 1 + 2**-12).all()
        assert model.conv1.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_running_statistics_are_not_rounded(monkeypatch, native):
    """A batch norm that does not follow a convolution is not folded."""
    monkeypatch.setattr(devices, "cpu_features",
                        lambda: frozenset({"avx512_bf16"} if native else ()))
    model = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten()).eval()
    model[0].running_mean.fill_(130.3)  # 130 in bfloat16
    model[0].running_var.fill_(0.01)
    images = torch.full((1, 3, 8, 8), 130, dtype=torch.uint8)
    plan = ExecutionPlan(precision="16.16", normalisation="none")
    expected = model(images.float())
    with TorchBackend().inference(model, plan, 8) as session:
        session.compile()
        torch.testing.assert_close(session(images), expected, rtol=0.02, atol=0.02)


def test_a_cpu_without_bfloat16_computes_in_single_precision(monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset({"avx2"}))
    probe = TorchBackend().probe()
    assert probe.half == "bfloat16"
    assert "no bfloat16 arithmetic" in probe.notes[0]
    assert TorchBackend().probe_for(ExecutionPlan()).notes == probe.notes
    assert TorchBackend().probe_for(ExecutionPlan(precision="32.32")).notes == ()
    with TorchBackend().inference(model_of("resnet18"), ExecutionPlan(), SIZE) as session:
        assert (session.facts["weights_type"], session.facts["arithmetic"]) == (
            "bfloat16", "float32")


def test_pipeline_splits_change_no_logits_and_report_the_balance():
    images = images_of(2)
    expected = logits_of_torch(model_of("resnet18"), images)
    plan = ExecutionPlan(micro_batch=2, device_iterations=3, precision="32.32",
                         pipeline_splits=("layer2", "layer3/1"))
    with TorchBackend().inference(model_of("resnet18"), plan, SIZE) as session:
        session.compile()
        torch.testing.assert_close(session(images), expected, rtol=1e-4, atol=1e-4)
        stages = session.facts["stages"]
    assert [stage["begins_at"] for stage in stages] == ["input", "layer2", "layer3/1"]
    assert sum(stage["share"] for stage in stages) == pytest.approx(1, abs=0.01)
    assert all(stage["share"] > 0 for stage in stages)


def test_synthetic_data_needs_no_images():
    plan = ExecutionPlan(micro_batch=3, synthetic=True)
    with TorchBackend().inference(model_of("resnet18"), plan, SIZE) as session:
        session.compile()
        assert session(None).shape == (3, 10)


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="'tpu'"):
        TorchBackend(TorchOptions(device="tpu")).inference(model_of("resnet18"), ExecutionPlan(),
                                                           SIZE)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no device 'cuda:3' here"):
            devices.pick("cuda:3")


def test_the_device_that_is_described_is_the_given_one(monkeypatch):
    def pick(wanted=None):
        if wanted == "tpu":
            raise UsageError("no device 'tpu'", "use another")
        name, half = ("a CPU", torch.bfloat16) if wanted == "cpu" else ("a GPU", torch.float16)
        return devices.Device(torch.device("cpu"), name, half, half)

    monkeypatch.setattr(engine, "pick", pick)
    assert TorchBackend().probe().device == "a GPU"
    found = TorchBackend(TorchOptions(device="cpu")).probe_for(ExecutionPlan())
    assert (found.device, found.half) == ("a CPU", "bfloat16")
    missing = TorchBackend(TorchOptions(device="tpu")).probe_for(ExecutionPlan())
    assert (missing.usable, missing.reason, missing.remedy) == (False, "no device 'tpu'",
                                                                "use another")


@pytest.mark.parametrize(("plan", "options"), [
    ({"compile_only": True}, {}), ({}, {"model_cache_path": "x"})])
def test_options_of_compilation_need_compilation(plan, options):
    with pytest.raises(UsageError, match="compile"):
        TorchBackend(TorchOptions(**options)).inference(model_of("resnet18"), ExecutionPlan(**plan),
                                                        SIZE)


def test_without_a_compiler_compilation_is_refused_before_it_starts(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(UnavailableError):
        TorchBackend(TorchOptions(compile=True)).inference(model_of("resnet18"), ExecutionPlan(),
                                                           SIZE)


CAN_COMPILE = torch.torch_version.TorchVersion(torch.__version__) >= (2, 1)


@pytest.mark.skipif(CAN_COMPILE, reason="this torch compiles")
def test_a_torch_that_compiles_hooks_away_is_refused():
    with pytest.raises(UnavailableError, match="cannot compile"):
        TorchBackend(TorchOptions(compile=True)).inference(model_of("resnet18"), ExecutionPlan(),
                                                           SIZE)


@pytest.fixture
def patched():
    """A stack of contexts that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.slow
@pytest.mark.skipif(not CAN_COMPILE, reason="torch 2.0 is refused")
@pytest.mark.skipif(shutil.which("g++") is None or sys.platform != "linux",
                    reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_gives_the_same_logits_and_fills_its_cache(tmp_path, monkeypatch, patched):
    import torch._inductor.config as inductor

    # with an empty cache, torch compiles a dozen programs to learn which vector instructions
    # work, and all its headers; what it compiles for the model needs neither
    changes = {"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    for name, value in changes.items():  # settings that this torch has
        if hasattr(inductor.cpp if "." in name else inductor, name.rpartition(".")[2]):
            patched.enter_context(inductor.patch({name: value}))

    class Tiny(torch.nn.Sequential):
        def __init__(self) -> None:
            super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(),
                             torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                             torch.nn.Linear(4, 10))

    torch.manual_seed(0)
    module, images = Tiny().eval(), images_of(3)
    expected = logits_of_torch(module, images)
    pad_input_channels(module)  # a hook, which a compiler might leave out
    plan = ExecutionPlan(micro_batch=2, precision="32.32")
    options = TorchOptions(compile=True, model_cache_path=str(tmp_path / "cache"))
    with TorchBackend(options).inference(module, plan, SIZE) as session:
        seconds = session.compile()
        logits = torch.cat([session(images[:2]), session(images[2:])])
        assert session.facts["compiled"]
    assert seconds > 0
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert any((tmp_path / "cache").rglob("*.so")) or any((tmp_path / "cache").rglob("*.py"))


@pytest.mark.parametrize("native", [True, False])
def test_validations_compile_once(monkeypatch, native):
    monkeypatch.setattr(devices, "cpu_features",
                        lambda: frozenset({"avx512_bf16"} if native else ()))
    compiled = []

    def made(model, cache, graphs, freezing):
        compiled.append((cache, graphs, freezing))
        return lambda images: model(images)

    monkeypatch.setattr(compiler, "check", lambda: None)
    monkeypatch.setattr(compiler, "compiled", made)
    plan = ExecutionPlan(micro_batch=2, precision="16.16", validation=True)
    models, images = [model_of("resnet18"), model_of("resnet18")], images_of(2)
    for model in models:
        for parameter in model.parameters():
            parameter.data.mul_(1 + 0.5 * torch.rand_like(parameter))
    weights = {name: value.clone() for name, value in models[1].state_dict().items()}
    with TorchBackend().inference(models[1], plan, SIZE) as session:
        session.compile()
        expected = session(images)
    threads = torch.get_num_threads()
    with TorchBackend(TorchOptions(compile=True, threads=1)).inference(
            models[0], plan, SIZE) as session:
        assert session.reloadable
        session.compile()
        first = session(images)
        session.pause()
        assert torch.get_num_threads() == threads
        session.load(weights)
        assert torch.get_num_threads() == 1
        assert torch.equal(session(images), expected)
        assert not torch.equal(first, expected)
    assert torch.get_num_threads() == threads
    assert compiled == [(None, False, False)]


def test_processor_features_are_read_from_linux(tmp_path):
    listing = tmp_path / "cpuinfo"
    listing.write_text("model name : X\nflags\t\t: fpu avx2 amx_bf16\n")
    assert devices.cpu_features(listing) == {"fpu", "avx2", "amx_bf16"}
    assert devices.cpu_features(tmp_path / "missing") == frozenset()


class _Meanwhile(nn.Module):
    """A network during whose tracing another thread calls a network of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.others = []

    def forward(self, images):
        other = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        thread = threading.Thread(
            target=lambda: self.others.append(other(torch.zeros(1, 3, 2, 2)).shape))
        thread.start()
        thread.join()
        return self.norm(self.first(images))


def test_folding_leaves_the_networks_of_other_threads_alone():
    model = _Meanwhile().eval()
    _, count = fold_batch_norms(model)
    assert (count, model.others) == (1, [(1, 2, 2, 2)])
