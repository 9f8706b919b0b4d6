"""Training through PopTorch, on the strict double: options, traps, and the whole commands."""

from __future__ import annotations

import json
import os

import pytest
import torch
from chosen import optimizer
from states import assert_close
from torch import nn

from ipucnn.__main__ import invoke
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    OptimizerChoice,
    TrainingBatch,
    TrainingSetup,
)
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.registry import use
from ipucnn.data.mixup import draw
from ipucnn.plugins.backends.poptorch.engine import PopTorchBackend
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.losses.binary_cross_entropy import BinaryCrossEntropy
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions
from ipucnn.plugins.losses.focal import Focal, FocalOptions

SIZE = 16
WEIGHTS = (0.5, 1.0, 2.0, 3.0, 0.25)


@pytest.fixture(autouse=True)
def machine(poptorch_double):
    """The device that the double simulates."""
    return poptorch_double._machine.MACHINE


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU()),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))


def session(backend=None, setup=None, options=None, model=None, **plan):
    made = (backend or PopTorchBackend(PopTorchOptions(**(options or {})))).training(
        model or network(), ExecutionPlan(**{
            "precision": "32.32", "training": True, "seed": 1, "micro_batch": 4, **plan}),
        TrainingSetup(**{"loss": CrossEntropy(), "optimizer": optimizer(momentum=0.9),
                         **(setup or {})}), SIZE)
    made.compile()
    return made


def batch(count, seed=0, eight_bit=True):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return TrainingBatch(images if eight_bit else images.float(),
                         torch.randint(0, 5, (count,), generator=generator))


def trained(made, batches, per_call=1):
    for number, part in enumerate(batches):
        result = made.step(part, number * per_call)
    return result, made.weights()


# -- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize("setup", [
    {"loss": CrossEntropy(CrossEntropyOptions(0.1))},
    {"mix": MixOptions(mixup_alpha=0.3)},
    {"mix": MixOptions(cutmix_low=0.2, cutmix_high=0.8)},
    {"mix": MixOptions(0.3, 0.2, 0.8), "loss": CrossEntropy(CrossEntropyOptions(0.2))},
    {"loss": CrossEntropy(CrossEntropyOptions(0.1, WEIGHTS))},
    {"loss": BinaryCrossEntropy(), "mix": MixOptions(mixup_alpha=0.3)},
    {"loss": Focal(FocalOptions(2.0, WEIGHTS))},
], ids=["smoothing", "mixup", "cutmix", "all", "weights", "binary", "focal"])
def test_smoothed_and_mixed_training_is_that_of_the_torch_backend(setup):
    """What is added to a likelihood is trained only when the sum is marked as the loss."""
    weights = []
    for backend in (PopTorchBackend(), TorchBackend()):
        made = session(backend, setup, gradient_accumulation=2)
        parts = [batch(8, seed) for seed in range(3)]
        if "mix" in setup:
            parts = [TrainingBatch(part.images, part.labels,
                                   draw(setup["mix"], 5, 0, range(8), 4, SIZE)) for part in parts]
        weights.append(trained(made, parts)[1])
    assert_close(*weights)


@pytest.mark.parametrize("precision", ["16.16", "16.32"])
def test_norms_in_full_precision_take_and_return_half(precision):
    model, seen = network(), []
    model[0][1].register_forward_hook(lambda _, inputs, output: seen.append(
        (inputs[0].dtype, output.dtype)))
    made = session(model=model, precision=precision, full_precision_norm=True)
    made.step(batch(4), 0)
    # its own hook is before the one that casts the result
    assert seen[-1] == (torch.float32, torch.float32)
    assert model[0][1].weight.dtype is torch.float32


class Tempered(CrossEntropy, nn.Module):
    """A loss that is a module with a tensor of its own."""

    def __init__(self):
        nn.Module.__init__(self)
        CrossEntropy.__init__(self)
        self.register_buffer("temperature", torch.tensor(2.0))

    def __call__(self, logits, labels, mixing=None, micro_batch=0):
        return super().__call__(logits / self.temperature, labels, mixing, micro_batch)


def test_the_tensors_of_a_loss_are_no_weights():
    found = []
    for backend in (PopTorchBackend(), TorchBackend()):
        made = session(backend, {"loss": Tempered()})
        trained(made, [batch(4)])
        weights, state = made.weights(), made.state()
        again = session(backend, {"loss": Tempered()})
        again.load(weights, state)
        found.append(trained(again, [batch(4, 1)])[1])
    assert_close(*found)


def test_loss_and_hits_are_those_of_the_torch_backend():
    plan = {"device_iterations": 2, "replicas": 2, "gradient_accumulation": 3}
    part = batch(4 * 12)
    results = [session(backend, **plan).step(part, 0)
               for backend in (PopTorchBackend(), TorchBackend())]
    assert abs(results[0].loss - results[1].loss) < 1e-5
    assert results[0].correct == results[1].correct
    assert results[0].samples == results[1].samples == 48


def test_a_sum_over_accumulation_is_that_of_the_torch_backend(machine):
    plan = {"replicas": 2, "gradient_accumulation": 3, "accumulation_reduction": "sum"}
    part, weights, losses = batch(24), [], []
    for backend in (PopTorchBackend(), TorchBackend()):
        made = session(backend, **plan)
        result, found = trained(made, [part])
        weights.append(found)
        losses.append(result.loss)
    assert machine.programs[-1].options.Training.mean_reduction is False
    assert abs(losses[0] - losses[1]) < 1e-5
    assert_close(*weights)


def test_stages_in_turn_need_no_accumulation(machine):
    made = [session(backend, pipeline_splits=("1",), sharded=True)
            for backend in (PopTorchBackend(), TorchBackend())]
    assert type(machine.programs[-1].options._strategy).__name__ == "ShardedExecution"
    assert made[0].facts["stages_begin_at"] == ["input", "1"]
    assert_close(*(trained(one, [batch(4)])[1] for one in made))


def test_without_metrics_only_the_last_loss_crosses(machine):
    made = session(setup={"metrics": False}, gradient_accumulation=2)
    assert machine.programs[-1].options.output_mode == 0  # Final
    result = made.step(batch(8), 0)
    assert result.correct == 0
    assert result.loss > 0


@pytest.mark.parametrize(("precision", "weights", "loosely"), [
    ("16.16", torch.float16, 0.02), ("16.32", torch.float32, 0.02)])
def test_half_precision(machine, precision, weights, loosely):
    made = session(precision=precision, micro_batch=4)
    model = machine.programs[-1].model.model
    assert model[2][2].weight.dtype == weights
    parts = [batch(4, seed) for seed in range(3)]
    found = trained(made, parts)[1]
    expected = trained(session(TorchBackend(), precision="32.32"), parts)[1]
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    assert_close(found, expected, loosely)


def test_running_statistics_stay_in_single_precision(machine):
    model = network()
    model[0][1].running_var.fill_(70000.0)  # infinite in half precision
    made = session(model=model, precision="16.16")
    assert machine.programs[-1].model.model[0][1].running_var.dtype == torch.float32
    assert made.weights()["0.1.running_var"].unique().tolist() == [70000.0]
    made.step(batch(4), 0)
    after = made.weights()["0.1.running_var"]
    assert 62900 < float(after.min()) < float(after.max()) < 63100


def test_a_loss_that_is_not_finite_is_raised_with_its_update():
    made = session(eight_bit_io=False)
    bad = batch(4, eight_bit=False)
    with pytest.raises(NonFiniteLoss) as error:
        made.step(TrainingBatch(bad.images * float("inf"), bad.labels), 7)
    assert error.value.update == 7


# -- options -----------------------------------------------------------------------------------

OPTIONS = [
    ("auto_loss_scaling", True, "automaticLossScalingSettings.enabled", True),
    ("disable_stable_batchnorm", True, "enableStableNorm", False),
    ("enable_fp_exceptions", True, "enableFloatingPointChecks", True),
    ("enable_stochastic_rounding", True, "enableStochasticRounding", True),
    ("recompute", "auto", "autoRecomputation", 1),
    ("recompute", "manual", "autoRecomputation", 4),
    ("syncless_collectives", "true", "gclOptions", {"useSynclessCollectives": "true"}),
    ("max_bytes_per_tile", 1000, "gclOptions", {"maxBytesPerTile": "1000"}),
]


@pytest.mark.parametrize(("name", "value", "key", "meaning"), OPTIONS)
def test_option_reaches_popart(machine, name, value, key, meaning):
    if name == "auto_loss_scaling":  # needs gradients in half precision
        with pytest.raises(UsageError, match=r"precision 32\.32 has none"):
            session(options={name: value})
        session(options={name: value}, precision="16.16")
        assert machine.programs[-1].options._Popart._values[key] == meaning
        return
    session()
    assert machine.programs[-1].options._Popart._values.get(key) != meaning
    if name == "recompute":
        session(recompute=value)
    else:
        session(options={name: value})
    assert machine.programs[-1].options._Popart._values[key] == meaning


def test_stochastic_rounding_keeps_replicas_alike(machine):
    session(options={"enable_stochastic_rounding": True, "exchange_memory_target": "balanced"})
    assert machine.programs[-1].options._Popart._values["engineOptions"] == {
        "opt.internalExchangeOptimisationTarget": "balanced",
        "target.deterministicWorkers": "portable"}


def test_a_pipeline_recomputes_in_its_own_way(machine):
    session(recompute="auto", pipeline_splits=("1",), gradient_accumulation=3)
    assert machine.programs[-1].options._Popart._values["autoRecomputation"] == 3
    assert machine.programs[-1].stages == 2


def test_recomputation_keeps_what_is_named(machine):
    for mode, setting in (("manual", 4), ("auto", 1)):
        made = session(recompute=mode, recompute_checkpoints=("0", "1"))
        assert machine.programs[-1].kept == made.facts["kept_for_backward"] > 0
        assert machine.programs[-1].options._Popart._values["autoRecomputation"] == setting


@pytest.mark.parametrize("tiles", [0, 64])
@pytest.mark.parametrize("mode", ["none", "auto", "manual"])
def test_recomputation_reaches_the_loops_of_overlapped_transfers(machine, mode, tiles):
    session(recompute=mode, recompute_checkpoints=("0",), gradient_accumulation=2,
            options={"num_io_tiles": tiles})
    program = machine.programs[-1]
    assert program.recomputes == (mode != "none")
    assert program.overlaps == bool(tiles)
    assert program.options._Popart._values.get("explicitRecomputation", False) \
        == (mode != "none" and bool(tiles))


@pytest.mark.parametrize(("options", "place"), [
    ({"offload_optimizer": True}, {"onChip": 0}),
    ({"enable_optimizer_rts": True}, {"useReplicatedTensorSharding": 1}),
    ({"offload_optimizer": True, "enable_optimizer_rts": True},
     {"onChip": 0, "useReplicatedTensorSharding": 1})])
def test_where_the_optimizer_state_is(machine, options, place):
    session(options=options, replicas=2)
    assert machine.programs[-1].options.TensorLocations.location_optimizer == place


@pytest.mark.parametrize(("plan", "mode"), [
    ({"gradient_accumulation": 2, "device_iterations": 2}, "OverlapAccumulationLoop"),
    ({"device_iterations": 2, "replicas": 2}, "OverlapDeviceIterationLoop")])
@pytest.mark.parametrize("setup", [
    {}, {"metrics": False}, {"mix": MixOptions(0.3, 0.2, 0.8)}], ids=["", "no metrics", "mixed"])
def test_transfers_overlap_without_changing_the_training(machine, plan, mode, setup):
    results = []
    for backend in (PopTorchBackend(PopTorchOptions(num_io_tiles=64)), TorchBackend()):
        made = session(backend, setup, **plan)
        count = 16
        mixing = draw(setup["mix"], 5, 0, range(count), 4, SIZE) if "mix" in setup else None
        part = batch(count)
        results.append((made.step(TrainingBatch(part.images, part.labels, mixing), 0),
                        made.weights()))
    assert abs(results[0][0].loss - results[1][0].loss) < 1e-5
    assert_close(results[0][1], results[1][1])
    program = machine.programs[-1]
    assert {found.name for found in program.modes} == {mode}
    assert program.options.toDict()["numIOTiles"] == 64
    assert program.options.toDict()["execution_mode"] == 1  # sharded
    assert program.options._Popart._values["defaultPrefetchBufferingDepth"] == 3


def test_without_tiles_no_transfer_overlaps(machine):
    session()
    assert machine.programs[-1].modes == set()
    assert machine.programs[-1].options.toDict()["execution_mode"] == 0


def test_tiles_for_transfers_and_a_pipeline_exclude_each_other():
    with pytest.raises(UsageError, match="'--num-io-tiles' and pipeline splits"):
        session(options={"num_io_tiles": 32}, pipeline_splits=("1",), gradient_accumulation=3)


def test_round_trips_are_those_of_all_calls(machine):
    made = session(replicas=2)
    assert made.device_latency() is None
    for seconds, number in (((1.0, 3.0, 2.0), 0), ((0.5, 1.5, 1.0), 1)):
        made._executor.getLatency = lambda found=seconds: found
        made.step(batch(8), number)
    assert made.device_latency() == (0.5, 3.0, 1.5)


def test_velocity_scaling_is_that_of_the_first_loss_scaling(machine):
    """A device rescales no velocity that is stored: momentum stays what it is."""
    setup = {"optimizer": optimizer("sgd_combined", weight_decay=0.0, momentum=0.9),
             "loss_scaling": 64.0}
    made, expected = (session(setup=setup, options={"loss_velocity_scaling_ratio": 4.0})
                      for _ in range(2))
    for number in range(3):
        for one, scaling in ((made, 64.0 * 2**number), (expected, 64.0)):
            one.set_rates(0.1, scaling)
            assert one._optimizer.param_groups[0]["velocity_scaling"] == 16
            one.step(batch(4, number), number)
    assert_close(made.weights(), expected.weights())
    for group in made._optimizer.param_groups:  # the double sees it
        group["velocity_scaling"] *= 2
    made._executor.setOptimizer(made._optimizer)
    for one in (made, expected):
        one.step(batch(4, 3), 3)
    with pytest.raises(AssertionError):
        assert_close(made.weights(), expected.weights(), 1e-4)


def test_every_training_option_of_the_record_is_tried_here():
    tried = {name for name, *_ in OPTIONS} | {
        "offload_optimizer", "enable_optimizer_rts", "loss_velocity_scaling_ratio"}
    assert {item.name for item in declared(PopTorchOptions)
            if item.option.only == "training"} == tried - {"recompute"}


class Untraceable(CrossEntropy):
    name, traceable = "by-value", False


@pytest.mark.parametrize(("setup", "options", "message"), [
    ({"tolerate_non_finite": True}, {}, "--skip-non-finite"),
    ({}, {"enable_optimizer_rts": True}, "--enable-optimizer-rts"),
    ({"loss": Untraceable()}, {}, "backend 'poptorch' has no loss 'by-value'"),
    ({}, {"num_io_tiles": 33}, "--num-io-tiles"),
    ({"optimizer": OptimizerChoice("mine", 0.1, 0.0, None, dict)}, {}, "'mine'")])
def test_what_the_device_cannot_do_is_refused(setup, options, message):
    with pytest.raises(UsageError, match=message):
        session(setup=setup, options=options)


# -- life cycle --------------------------------------------------------------------------------


def test_the_model_is_given_back_when_the_session_ends(machine):
    model = network()
    kind = type(model)
    with session(model=model) as made:
        made.step(batch(4), 0)
    assert type(model) is kind
    with session(model=model) as again:  # it can be wrapped once more
        again.step(batch(4), 0)


def test_weights_are_fresh_after_every_call(machine):
    made = session()
    before = made.weights()
    made.step(batch(4), 0)
    after = made.weights()
    assert not torch.equal(before["0.0.weight"], after["0.0.weight"])
    made.step(batch(4), 1)
    assert not torch.equal(made.weights()["0.0.weight"], after["0.0.weight"])


def test_out_of_memory_has_a_hint(machine):
    machine.bytes_per_ipu = 100
    with pytest.raises(IpucnnError, match="cannot be compiled for training") as error:
        session()
    assert "--recompute-mode auto" in error.value.hint


def test_a_state_of_another_number_of_replicas_is_restored(caplog):
    """Its random numbers are for every tile of those replicas; PopART refuses them."""
    caplog.set_level("INFO", "ipucnn.poptorch")
    first, second = session(replicas=2), session(replicas=1)
    first.step(batch(8), 0)
    second.load(first.weights(), first.state())
    assert_close(second.weights(), first.weights(), 0)
    assert second._executor.rng_state == first._executor.rng_state[:1]
    assert "random numbers continue from the seed" in caplog.text
    second.step(batch(4, 1), 1)


def test_a_state_of_another_backend_is_refused():
    other = session(TorchBackend())
    with pytest.raises(IpucnnError, match="not of an IPU"):
        session().load(other.weights(), other.state())


# -- the commands ------------------------------------------------------------------------------

TINY = ["--model", "resnet8-cifar", "--data", "image_folder", "--data-dir", "pictures",
        "--input-size", "32", "--precision", "full", "--batch-size", "4", "--iterations", "3",
        "--epoch", "2", "--lr", "0.05", "--momentum", "0.9", "--progress", "off",
        "--backend", "poptorch"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pictures"
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "4", "--size", "40",
                   "--validation-per-class", "3"]) == 0
    return folder


@pytest.fixture
def cli(pictures, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    use(None)

    def run(*argv: str):
        code = invoke([str(word) for word in argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    yield run
    use(None)


def test_training_validating_and_restoring(cli, machine, tmp_path):
    result = json.loads(cli("train", *TINY, "--validation-mode", "during", "--checkpoint-path", "c",
                            "--validation-frequency", "1", "--json"))
    assert result["backend"] == "poptorch"
    assert result["device"].startswith("IPU version 2")
    assert result["compile_seconds"] > 0
    latency = result["device_latency_ms"]
    assert 0 < latency["min"] <= latency["mean"] <= latency["max"]
    assert [v["images"] for v in result["validations"]] == [24, 24]
    # the validation compiles once, and takes the weights of each epoch
    assert len(machine.programs) == 2
    stored = json.loads(cli("validate", "--checkpoint-path", "c", "--progress", "off", "--json"))
    for before, after in zip(result["validations"], stored["validations"]):
        assert abs(before["loss"] - after["loss"]) < 1e-5
    whole = torch.load("c/resnet8-cifar_image_folder_2.pt", weights_only=True)["model"]
    os.unlink("c/resnet8-cifar_image_folder_2.pt")
    cli("restore", "--checkpoint-path", "c", "--progress", "off")
    again = torch.load("c/resnet8-cifar_image_folder_2.pt", weights_only=True)["model"]
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name


def test_synthetic_data_and_compilation_only(cli, machine):
    synthetic = [*TINY, "--data", "synthetic"]
    position = synthetic.index("--data-dir")
    del synthetic[position:position + 2]
    result = json.loads(cli("train", *synthetic, "--json", "--log-dir", "log"))
    assert result["updates"] == 6
    assert result["device_latency_ms"] is None
    result = json.loads(cli("train", *TINY, "--json", "--log-dir", "log",
                            "--offline-target-ipu-version", "2", "--compile-only"))
    assert result["updates"] == 0
    assert result["device"] == "offline target, IPU version 2"
    assert not machine.programs[-1].attached


# -- a training that is restored ------------------------------------------------------------------


def test_a_restored_training_has_the_settings_of_its_options():
    """Those of the checkpoint are its options, unless `restore` was given others."""
    before = session(setup={"optimizer": optimizer("sgd", weight_decay=0.1, momentum=0.0)})
    before.step(batch(4), 0)
    heavier = {"optimizer": optimizer("sgd", weight_decay=0.5, momentum=0.0)}
    restored = session(setup=heavier)
    restored.load(before.weights(), before.state())
    model = network()
    model.load_state_dict(before.weights())
    fresh = session(setup=heavier, model=model)
    for made in (restored, fresh):
        made.set_rates(0.1, 1.0)
        made.step(batch(4, 1), 1)
    assert_close(restored.weights(), fresh.weights())
    for group, own in zip(restored.state()["optimizer"]["param_groups"],
                          fresh.state()["optimizer"]["param_groups"]):
        assert group["weight_decay"] == own["weight_decay"]


def test_a_restored_velocity_keeps_its_scale():
    def made(scaling):
        return session(setup={"optimizer": optimizer("sgd_combined", momentum=0.9),
                              "loss_scaling": scaling})

    whole, restored = made(64.0), made(1024.0)
    whole.step(batch(4), 0)
    restored.load(whole.weights(), whole.state())
    for one in (whole, restored):
        one.set_rates(0.1, 64.0)
        one.step(batch(4, 1), 1)
    assert_close(whole.weights(), restored.weights())


def test_batch_norm_of_a_single_value_is_one_line():
    model = nn.Sequential(nn.Conv2d(3, 8, SIZE), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5))
    with pytest.raises(UsageError, match="single value per channel") as refused:
        session(model=model, micro_batch=1)
    assert "--batch-size 2" in refused.value.hint
