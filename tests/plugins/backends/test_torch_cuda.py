"""The CUDA path without a card: devices that pretend, and counted calls.

The items are those of a review of that path; `docs/backends/torch.md` names the test of each.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from types import SimpleNamespace

import pytest
import torch
from chosen import optimizer
from test_torch_training import batches, network, session
from torch import nn

from ipucnn.core.checks import OK, PROBLEM, WARNING
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import NonFiniteLoss, TrainingBatch, TrainingSetup
from ipucnn.core.machine import compute_threads
from ipucnn.core.options.building import build
from ipucnn.data.mixup import draw
from ipucnn.doctor import deep
from ipucnn.plugins.backends._gpus import of_instance
from ipucnn.plugins.backends.torch import data_parallel, devices
from ipucnn.plugins.backends.torch.data_parallel import group_of
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.backends.torch.generators import Generators
from ipucnn.plugins.backends.torch.gradients import unscale
from ipucnn.plugins.backends.torch.inference import TorchInferenceSession
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.settings import ProcessSettings
from ipucnn.plugins.backends.torch.training import TorchTrainingSession
from ipucnn.plugins.launchers._distributed import DistributedInstances
from ipucnn.plugins.losses._class_weights import weights_like
from ipucnn.plugins.losses.cross_entropy import CrossEntropy
from ipucnn.training.options.train_options import TrainOptions

CPU = Device(torch.device("cpu"), "CPU", torch.bfloat16, torch.float32)
CARD = Device(torch.device("cuda"), "Card", torch.float16, torch.float16)
PRECISION = [f"{owner}.fp32_precision" for owner in (
    "cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn")] if hasattr(torch.backends.cudnn, "conv") \
    else ["cuda.matmul.allow_tf32", "cudnn.allow_tf32"]


class Overflowing(CrossEntropy):
    """A loss that is finite, with a gradient that is not, in every third update."""

    calls = 0

    def __call__(self, logits, labels, mixing=None, micro_batch=0):
        Overflowing.calls += 1
        loss = super().__call__(logits, labels, mixing, micro_batch)
        # the square root of 0 has an infinite slope
        return loss + (logits * 0).abs().sqrt().sum() if Overflowing.calls % 3 == 0 else loss


# -- 1: overflow ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["16.16", "16.32"])
def test_an_overflowing_gradient_ends_the_training_before_the_weights(precision):
    made = session(network(), {"loss": Overflowing(), "ema_decay": 0.9}, precision=precision,
                   micro_batch=4)
    Overflowing.calls = 2
    before, average = made.weights(), made.weights(ema=True)
    (images, labels), = batches(1, 4)
    with pytest.raises(NonFiniteLoss, match="gradient of weight update 7 is not finite") as caught:
        made.step(TrainingBatch(images, labels), 7)
    assert caught.value.gradients
    for name, value in made.weights().items():
        assert torch.equal(value, before[name])
    for name, value in made.weights(ema=True).items():
        assert torch.equal(value, average[name])


def test_an_overflowing_update_is_skipped_and_the_next_one_is_not():
    made = session(network(norm=True), {"loss": Overflowing(), "ema_decay": 0.9,
                                        "tolerate_non_finite": True},
                   precision="16.32", micro_batch=4, device_iterations=3)
    Overflowing.calls = 0
    images, labels = (torch.cat(rows) for rows in zip(*batches(3, 4)))
    result = made.step(TrainingBatch(images, labels), 0)
    assert result.skipped == 1
    assert result.samples == 8
    assert all(torch.isfinite(value).all() for value in made.weights().values())
    assert all(torch.isfinite(value).all() for value in made.weights(ema=True).values())


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan"), 0.0])
@pytest.mark.parametrize("native", [True, False])
def test_unscaling_finds_what_is_not_finite(bad, native, monkeypatch):
    if not native:
        def missing(*_):
            raise NotImplementedError

        monkeypatch.setattr(torch, "_amp_foreach_non_finite_check_and_unscale_", missing)
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    model.bias.grad[1] = bad
    found = unscale(model, 4.0, check=True)
    assert bool(found) == (bad != 0.0)
    assert torch.equal(model.weight.grad, torch.full((2, 2), 0.25))


# -- 4, 11: devices ------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch):
    """A machine with two cards of compute capability 9.0."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90", "compute_90"])


@pytest.mark.parametrize(("cudnn", "versions"), [
    (lambda: 91002, {"CUDA": "13.0", "cuDNN": "91002"}),
    (lambda: None, {"CUDA": "13.0"}),
    (lambda: 1 / 0, {"CUDA": "13.0"})])
def test_results_of_a_card_have_the_versions_of_its_libraries(card, monkeypatch, cudnn, versions):
    def version():
        try:
            return cudnn()
        except ZeroDivisionError as error:
            raise RuntimeError("cuDNN version incompatibility") from error

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", version)
    assert TorchBackend().probe().versions == {"torch": torch.__version__, **versions}


def test_a_card_trains_in_bfloat16_and_infers_in_float16(card):
    device = devices.pick()
    assert (device.place.type, device.half) == ("cuda", torch.float16)
    assert device.for_training().half is torch.bfloat16
    probe = TorchBackend().probe_for(ExecutionPlan(training=True))
    assert (probe.half, probe.precision) == ("bfloat16", "16.32")
    assert TorchBackend().probe_for(ExecutionPlan()).half == "float16"


@pytest.mark.parametrize(("wanted", "index"), [(None, 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_session_stays_on_its_card_when_another_one_is_made_current(card, monkeypatch, wanted,
                                                                     index):
    """The device "cuda" is the current one of each thread, in each call."""
    assert devices.pick(wanted).place == torch.device("cuda", index)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert devices.pick(wanted).place == torch.device("cuda", 1)


def test_a_forked_process_does_not_compute_on_the_cpu_instead(card, monkeypatch):
    def fails(_):
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.cuda, "get_device_name", fails)
    assert devices.pick().place.type == "cpu"
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    for wanted in (None, "cuda"):
        with pytest.raises(UsageError, match="forked from one that has used it"):
            devices.pick(wanted)
    assert devices.pick("cpu").place.type == "cpu"
    assert not TorchBackend().probe().usable


@pytest.mark.parametrize("precision", ["16.16", "16.32"])
def test_a_training_is_validated_in_its_own_half_precision(card, precision):
    """Activations beyond the range of float16 are no reason to end a training in bfloat16."""
    options = build(TrainOptions, {"precision": precision})
    plan = options.validation_plan()
    assert TorchBackend().probe_for(plan).half == "bfloat16"
    backend = TorchBackend()
    backend._device = lambda: Device(torch.device("cpu"), "CPU", torch.float16, torch.float16,
                                     torch.bfloat16)
    for validation, kind in ((True, "bfloat16"), (False, "float16")):
        with backend.inference(network(), replace(plan, validation=validation), 8) as made:
            assert made.facts["arithmetic"] == kind


def test_an_older_card_trains_in_float16(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75"])
    assert devices.pick().for_training().half is torch.float16


@pytest.mark.parametrize(("architectures", "usable"), [
    (["sm_90"], True), (["sm_80"], False), (["compute_80"], True), (["compute_100"], False),
    (["sm_90a"], True), ([], True)])
def test_a_card_without_programs_is_not_used(card, monkeypatch, architectures, usable):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
    assert devices.pick().place.type == ("cuda" if usable else "cpu")
    if not usable:
        with pytest.raises(UsageError, match=r"has no programs for Card \(sm_90\)"):
            devices.pick("cuda")
        assert not TorchBackend(TorchOptions(device="cuda")).probe().usable


def test_builds_for_cards_of_amd_have_other_names(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["gfx90a", "gfx942"])
    assert devices.pick().place.type == "cpu"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert devices.pick().place.type == "cuda"


def test_a_driver_that_fails_makes_the_device_unusable(card, monkeypatch):
    def fails(_):
        raise RuntimeError("CUDA unknown error\nmore")

    monkeypatch.setattr(torch.cuda, "get_device_name", fails)
    assert devices.pick().place.type == "cpu"
    probe = TorchBackend(TorchOptions(device="cuda")).probe()
    assert not probe.usable
    assert probe.reason == "CUDA device 0 cannot be used: CUDA unknown error"


def test_instances_take_turns_on_the_cards(card, monkeypatch):
    monkeypatch.setenv("IPUCNN_INSTANCE_COUNT", "4")
    monkeypatch.setenv("IPUCNN_LAUNCHER", "local")
    taken = []
    for index in range(4):
        monkeypatch.setenv("IPUCNN_INSTANCE_INDEX", str(index))
        taken.append(of_instance(None))
    assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert of_instance("cpu") == "cpu"


def test_a_process_uses_the_only_card_that_is_visible_to_it(card, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4",
                        "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert of_instance(None) == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert of_instance(None) == "cuda:1"  # which is then an error: there is one card for two
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert of_instance(None) == "cuda:0"


@pytest.mark.parametrize(("seconds", "limit"), [
    (None, {}), (60.0, {"timeout": timedelta(seconds=60)})])
def test_a_group_without_a_timeout_has_that_of_torch(monkeypatch, seconds, limit):
    """torch 2.0 raises an error for None, which launchers may state."""
    monkeypatch.setattr(data_parallel, "_made", {})
    monkeypatch.setattr(torch.distributed, "new_group", lambda *given, **named: (given, named))
    assert group_of("nccl", seconds) == ((None,), {"backend": "nccl", **limit})
    assert group_of("gloo", seconds, (0, 2)) == (([0, 2],), {"backend": "gloo", **limit})


def test_each_process_makes_its_card_the_current_one(monkeypatch):
    steps = []
    for owner, name, value in (
            (data_parallel, "joined", lambda: SimpleNamespace(
                index=1, count=2, by_torch=True, timeout=60.0)),
            (data_parallel, "group_of", lambda *_: steps.append("group")),
            (torch.distributed, "is_nccl_available", lambda: True),
            (torch.cuda, "set_device", steps.append)):
        monkeypatch.setattr(owner, name, value)
    second = replace(CARD, place=torch.device("cuda", 1))
    data_parallel.DataParallel(ExecutionPlan(replicas=2, instances=2, training=True), second)
    assert steps == [second.place, "group"]


@pytest.mark.parametrize(("last", "shown"), [
    ("Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 4000",
     "failed: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 4000"),
    ("", "failed: NCCL error in: NCCLUtils.cpp:77, invalid usage")])
def test_an_error_of_nccl_states_its_cause(monkeypatch, last, shown):
    monkeypatch.setattr(DistributedInstances, "_missing", lambda _: "")
    with pytest.raises(IpucnnError) as caught, DistributedInstances.connected(
            DistributedInstances.__new__(DistributedInstances)):
        raise RuntimeError("NCCL error in: NCCLUtils.cpp:77, invalid usage, NCCL version 2.28\n"
                           f"ncclInvalidUsage: This usually reflects it.\nLast error:\n{last}")
    assert shown in caught.value.message


def test_trainings_one_after_the_other_share_their_groups(monkeypatch):
    """torch keeps groups until the process ends, and those of NCCL take memory of the card."""
    monkeypatch.setattr(data_parallel, "_made", {})
    monkeypatch.setattr(torch.distributed, "new_group", lambda *_, **__: object())
    assert group_of("nccl", 60.0) is group_of("nccl", 60.0)
    assert group_of("nccl", 60.0) is not group_of("nccl", 60.0, (0, 1))


# -- 5: doctor -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("built", "driver", "visible", "status", "words"), [
    (None, False, None, OK, "a build for CPUs, and this machine has no NVIDIA driver"),
    (None, True, None, WARNING, "a build for CPUs, and this machine has an NVIDIA driver"),
    ("12.4", True, "", WARNING, "CUDA_VISIBLE_DEVICES is '', which hides all GPUs"),
    ("12.4", False, None, OK, "has no NVIDIA driver"),
    ("12.4", True, None, PROBLEM, "finds no GPU: the driver is too old"),
])
def test_doctor_reports_why_there_is_no_gpu(monkeypatch, tmp_path, built, driver, visible, status,
                                         words):
    def old():
        raise RuntimeError("the driver is too old\nmore")

    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", old)
    monkeypatch.setattr(deep, "DRIVER", tmp_path if driver else tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    check = deep.cuda()
    assert check.status == status
    assert words in check.detail


def test_doctor_recognises_a_build_for_cards_of_amd(card, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert deep.cuda().detail == "Card, Card; ROCm 6.4"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert deep.cuda().detail == "torch is built for ROCm 6.4, and finds no GPU"


# -- 6, 13: failures of the device ---------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "CUDA error: device-side assert triggered\nmore", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "HIP error: invalid device function",
    "CUDA driver error: unknown error", "Triton Error [CUDA]: device kernel image is invalid"])
def test_a_failing_gpu_is_one_line(text):
    made = session(network(), micro_batch=4)

    def fails(_):
        raise RuntimeError(text)

    made._forward = fails
    (images, labels), = batches(1, 4)
    with pytest.raises(IpucnnError) as caught:
        made.step(TrainingBatch(images, labels), 0)
    assert caught.value.message == "the GPU failed: " + text.splitlines()[0]
    assert "CUDA_LAUNCH_BLOCKING=1" in caught.value.hint


@pytest.mark.parametrize("text", [
    "GET was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution"])
def test_a_convolution_that_cudnn_cannot_compute_is_one_line(text):
    made = session(network(), micro_batch=4)

    def fails(_):
        raise RuntimeError(text)

    made._forward = fails
    with pytest.raises(IpucnnError, match="no algorithm for a convolution at a micro-batch of 4"):
        made.step(TrainingBatch(*batches(1, 4)[0]), 0)


def test_closing_a_session_does_not_hide_the_failure(monkeypatch):
    def fails():
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "empty_cache", fails)
    made = session(network(), micro_batch=4)
    made._device = CARD
    with pytest.raises(ValueError, match="the cause"), made:
        raise ValueError("the cause")


def test_without_memory_fewer_micro_batches_are_computed_together():
    made = session(network(), micro_batch=1, gradient_accumulation=4)
    expected = session(network(), micro_batch=1, gradient_accumulation=4)
    forward, sizes = made._forward, []

    def small(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(images)

    made._forward = small
    (images, labels), = batches(1, 4)
    for each in (made, expected):
        each.set_rates(0.1, 1.0)
        each.step(TrainingBatch(images, labels), 0)
    assert sizes == [4, 2, 2]
    assert made.facts["micro_batches_together"] == 2
    for name, value in made.weights().items():
        torch.testing.assert_close(value, expected.weights()[name], rtol=0, atol=1e-6)


def test_an_update_that_has_begun_is_not_repeated():
    """The optimizer may have changed some weights before it runs out of memory."""
    made = session(network(), micro_batch=1, gradient_accumulation=4)
    assert made._together > 1
    steps = []

    def fails():
        steps.append(1)
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    made._optimizer.step = fails
    (images, labels), = batches(1, 4)
    with pytest.raises(IpucnnError, match="out of memory"):
        made.step(TrainingBatch(images, labels), 0)
    assert steps == [1]


def test_out_of_memory_at_one_micro_batch_is_an_error():
    made = session(network(), micro_batch=4)

    def fails(_):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    made._forward = fails
    (images, labels), = batches(1, 4)
    with pytest.raises(IpucnnError, match="out of memory at a micro-batch of 4"):
        made.step(TrainingBatch(images, labels), 0)


@pytest.mark.parametrize("backward", [False, True])
def test_out_of_memory_of_a_compiled_model_is_an_error(monkeypatch, backward):
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(_, images):
            return images.clone()

        @staticmethod
        def backward(_, gradient):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def compiled(model):
        return lambda images: model(Fails.apply(images.requires_grad_())) if backward \
            else Fails.backward(None, images)

    monkeypatch.setattr("ipucnn.plugins.backends.torch.compiler.compiled_for_training", compiled)
    with pytest.raises(IpucnnError, match="out of memory at a micro-batch of 4"):
        session(network(), options={"compile": True}, micro_batch=4)


# -- 7, 10: calls to the device ------------------------------------------------------------------


def test_a_training_seeds_no_generators_of_other_devices(monkeypatch):
    """Only its own are restored after each update."""
    seeded = []

    @contextmanager
    def device(place):
        seeded.append(place)
        yield

    made = session(network(dropout=True), micro_batch=4)
    for name, value in (("manual_seed_all", lambda _: seeded.append("all")), ("device", device),
                        ("manual_seed", lambda _: seeded.append("current"))):
        monkeypatch.setattr(torch.cuda, name, value)
    made.set_rates(0.1, 1.0)
    made.step(TrainingBatch(*batches(1, 4)[0]), 0)
    assert seeded == []
    Generators(1, CARD.place).seed(0)
    assert seeded == [CARD.place, "current"]


def test_an_update_waits_for_the_device_once(monkeypatch):
    made = session(network(), {"mix": MixOptions(0.2, 0.3, 0.7, 0.0)}, micro_batch=2,
                   gradient_accumulation=8, normalisation="device", precision="16.32")
    (images, labels), = batches(1, 16)
    mixing = draw(MixOptions(0.2, 0.3, 0.7, 0.0), 1, 0, list(range(16)), 2, 8)
    counts = {"read": 0}

    def counted(name):
        real = getattr(torch.Tensor, name)

        def call(self, *arguments):
            counts["read"] += 1
            return real(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, call)

    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        counted(name)
    made.set_rates(0.1, 1.0)
    made.step(TrainingBatch(images.mul(50).add(128).clamp(0, 255), labels, mixing), 0)
    assert counts["read"] == 1


def test_class_weights_are_copied_to_a_card_once(monkeypatch):
    copies = []

    def made(values, dtype, device):
        copies.append((values, dtype, device.type))
        return torch.zeros(len(values), dtype=dtype)

    monkeypatch.setattr(torch, "tensor", made)
    for _ in range(3):
        weights_like((0.25, 4.0), SimpleNamespace(device=CARD.place, dtype=torch.float32))
    assert copies == [((0.25, 4.0), torch.float32, "cuda")]
    assert weights_like((0.25, 4.0), torch.zeros(1)).tolist() == [0.25, 4.0]
    assert len(copies) == 1


@pytest.mark.skipif(not hasattr(torch, "_foreach_copy_"), reason="torch 2.0 has no such call")
def test_rounding_does_not_call_the_device_for_every_tensor():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            Count.calls += 1
            return function(*arguments, **(keywords or {}))

    made = session(nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(40)), nn.Flatten(),
                                 nn.Linear(192, 5)), micro_batch=4, precision="16.16")
    with Count():
        made._precision.end_update()
    assert Count.calls <= 4


@pytest.mark.parametrize("together", [False, True])
def test_the_shapes_of_training_are_those_that_were_compiled(monkeypatch, together):
    shapes = []

    def compiled(model):
        def forward(images):
            shapes.append(tuple(images.shape))
            return model(images)

        return forward

    monkeypatch.setattr("ipucnn.plugins.backends.torch.compiler.compiled_for_training", compiled)
    made = session(network(norm=not together), options={"compile": True}, micro_batch=2,
                   gradient_accumulation=6)
    made._together = min(made._together, 6)
    before = set(shapes)
    shapes.clear()
    (images, labels), = batches(1, 12)
    made.set_rates(0.1, 1.0)
    made.step(TrainingBatch(images, labels), 0)
    assert set(shapes) == before == {(12 if together else 2, 3, 8, 8)}


# -- 14, 15, 16: what a session leaves -----------------------------------------------------------


def settings():
    return {path: attrgetter(path)(torch.backends) for path in ("cudnn.deterministic",
                                                                "cudnn.benchmark", *PRECISION)}


@pytest.fixture
def before():
    """The settings of the process; convolutions have one of their own, where torch has that."""
    convolutions = getattr(torch.backends.cudnn, "conv", SimpleNamespace(fp32_precision="tf32"))
    usual, convolutions.fp32_precision = convolutions.fp32_precision, "tf32"
    yield settings()
    convolutions.fp32_precision = usual


def is_exact():
    return {settings()[path] for path in PRECISION} <= {"ieee", False}


def test_single_precision_is_exact_on_cards_and_set_back(before):
    cudnn = torch.backends.cudnn
    exact = ProcessSettings(CARD, half=False, training=True)
    assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    assert is_exact()
    exact.restore()
    assert settings() == before
    assert not is_exact()
    ProcessSettings(CARD, half=True, training=False).restore()
    exact.restore()
    assert settings() == before


def test_the_precision_of_matrix_products_is_set_consistently(before):
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        exact = ProcessSettings(CARD, half=False, training=False)
        assert is_exact()
        # torch.compile of torch 2.9 reads this, which fails if the newer interface contradicts it
        assert not torch.backends.cuda.matmul.allow_tf32
        exact.restore()
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(usual)


@pytest.mark.parametrize("first", [0, 1])
def test_settings_of_sessions_that_overlap(before, first):
    cudnn = torch.backends.cudnn
    made = [ProcessSettings(CARD, half=False, training=training) for training in (True, False)]
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
    made.pop(first).restore()
    assert (cudnn.deterministic, cudnn.benchmark) == (bool(first), not first)
    assert is_exact()
    made.pop().restore()
    assert settings() == before


@pytest.mark.parametrize(("kind", "step"), [
    (TorchInferenceSession, "_placed"), (TorchTrainingSession, "_own")])
def test_a_session_that_cannot_be_made_restores_the_settings(before, monkeypatch, kind, step):
    def fails(*_):
        assert settings() != before
        raise ValueError("the cause")

    monkeypatch.setattr(kind, step, fails)
    plan = ExecutionPlan(precision="32.32")
    setup = [TrainingSetup(CrossEntropy(), optimizer())] if kind is TorchTrainingSession else []
    with pytest.raises(ValueError, match="the cause"):
        kind(network(), plan, *setup, 8, CARD, TorchOptions())
    assert settings() == before


def test_the_number_of_threads_is_restored():
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        training = session(network(), micro_batch=4)
        inference = TorchInferenceSession(network(), ExecutionPlan(precision="32.32"), 8, CPU,
                                          TorchOptions())
        training.close()
        assert torch.get_num_threads() == compute_threads()
        inference.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_a_closed_session_keeps_no_memory():
    model = network()
    made = session(model, {"ema_decay": 0.9}, micro_batch=4)
    references = [weakref.ref(model), weakref.ref(made._optimizer), weakref.ref(made._average)]
    made.close()
    del model
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_answers_are_on_the_host():
    plan = ExecutionPlan(micro_batch=2, synthetic=True, precision="32.32")
    made = TorchInferenceSession(network(), plan, 8, CPU, TorchOptions())
    made.compile()
    assert made(None).device.type == "cpu"
