"""Training through PopART, on the strict double: computation, options, whole commands."""

from __future__ import annotations

import copy
import json
import os
import shlex

import pytest
import torch
from chosen import optimizer
from sample_norms import use_sample_norms
from states import assert_close
from torch import nn
from torchvision.ops import StochasticDepth

from ipucnn.__main__ import invoke
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    OptimizerChoice,
    TrainingBatch,
    TrainingSetup,
)
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, use
from ipucnn.models.build import create_model
from ipucnn.models.surgery import pad_input_channels
from ipucnn.plugins.backends.popart import ipucnn_backends
from ipucnn.plugins.backends.popart.engine import PopArtBackend
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.losses.binary_cross_entropy import BinaryCrossEntropy
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions
from ipucnn.plugins.losses.focal import Focal
from ipucnn.training.setup.parameters import train_from

SIZE = 16
REGISTRY = Registry(PluginSettings(disable_all=True))


@pytest.fixture(autouse=True)
def machine(popart_double, monkeypatch):
    """The device that the double simulates; torch differentiates batch norms as PopART does."""
    use_sample_norms(popart_double, monkeypatch)
    return popart_double._machine.MACHINE


@pytest.fixture
def made(popart_double, monkeypatch):
    """The training sessions that were created with PopART."""
    sessions = []

    class Recorded(popart_double.TrainingSession):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.arguments = kwargs
            sessions.append(self)

    monkeypatch.setattr(popart_double, "TrainingSession", Recorded)
    return sessions


def network(layer=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU6(),
                          layer or nn.Identity()),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))


def choice(name="sgd", decay=0.01, **options):
    if name.startswith("sgd"):
        options.setdefault("momentum", 0.9)
    return optimizer(name, weight_decay=decay, **options)


def session(backend=None, setup=None, options=None, model=None, size=SIZE, **plan):
    trained = (backend or PopArtBackend(PopArtOptions(**(options or {})))).training(
        network() if model is None else copy.deepcopy(model), ExecutionPlan(**{
            "precision": "32.32", "training": True, "seed": 1, "micro_batch": 4, **plan}),
        TrainingSetup(**{"loss": CrossEntropy(), "optimizer": choice(), **(setup or {})}), size)
    trained.compile()
    return trained


def batch(count, seed=0, eight_bit=True, size=SIZE, classes=5):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return TrainingBatch(images if eight_bit else images / 64 - 2,
                         torch.randint(0, classes, (count,), generator=generator))


def trained(made, batches, per_call=1, first=0):
    for number, part in enumerate(batches, first):
        result = made.step(part, number * per_call)
    return result, made.weights()


def assert_like_torch(model=None, setup=None, size=SIZE, classes=5, calls=2, **plan):
    """Train with both backends, and require the same weights and the same losses."""
    count = session(TorchBackend(), setup, model=model, size=size, **plan)._plan.combined_batch
    parts = [batch(count, seed, plan.get("eight_bit_io", True), size, classes)
             for seed in range(calls)]
    results = [trained(session(backend, setup, model=model, size=size, **plan), parts,
                       plan.get("device_iterations", 1))
               for backend in (PopArtBackend(), TorchBackend())]
    assert_close(results[0][1], results[1][1], relative=1e-5)
    for number in range(2):
        assert len(results[number][0].losses) == plan.get("device_iterations", 1)
    torch.testing.assert_close(torch.tensor(results[0][0].losses),
                               torch.tensor(results[1][0].losses), rtol=0, atol=1e-5)
    assert results[0][0].correct == results[1][0].correct
    assert results[0][0].samples == results[1][0].samples == count


# -- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [
    {}, {"micro_batch": 1, "gradient_accumulation": 4}, {"replicas": 4},
    {"device_iterations": 2, "replicas": 2, "gradient_accumulation": 2},
    {"replicas": 2, "gradient_accumulation": 3, "accumulation_reduction": "sum"},
    {"pipeline_splits": ("1",), "gradient_accumulation": 3, "replicas": 2},
    {"pipeline_splits": ("1",), "sharded": True, "replicas": 2},
    {"normalisation": "host", "eight_bit_io": False}, {"normalisation": "none"}])
def test_training_is_that_of_the_torch_backend(plan):
    assert_like_torch(**plan)


@pytest.mark.parametrize("norm", [{}, {"normlayer": "group", "groupnorm_group_num": 4}],
                         ids=["batch", "group"])
@pytest.mark.parametrize("plan", [
    {"device_iterations": 2}, {"gradient_accumulation": 3, "pipeline_splits": ("layer2",)}],
    ids=["whole", "stages"])
def test_a_network_for_cifar(norm, plan):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = create_model("resnet8-cifar", weights="random", registry=REGISTRY, **norm).module
    assert_like_torch(model, size=32, classes=10, micro_batch=2, **plan)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "rmsprop_tf", "lamb"])
def test_optimizers_have_the_defaults_of_the_registered_ones(name):
    assert_like_torch(setup={"optimizer": optimizer(name, lr=0.01)}, calls=3)


def test_centered_rmsprop():
    assert_like_torch(setup={"optimizer": choice("rmsprop", centered=True, optimizer_eps=1e-3)})


def test_without_momentum_there_is_no_optimizer_state():
    setup = {"optimizer": choice(momentum=0.0)}
    assert_like_torch(setup=setup)
    assert session(setup=setup).state() == {"popart": {}}


def test_label_smoothing():
    assert_like_torch(setup={"loss": CrossEntropy(CrossEntropyOptions(0.1))},
                      gradient_accumulation=2)


def test_frozen_layers_keep_their_weights_and_statistics(made):
    model = network()
    with torch.no_grad():
        model[0][1].running_var.fill_(2.5)
    train_from(model, "1")
    assert_like_torch(model)
    assert "0.0.weight" not in made[-1]._trained
    assert "1.0.weight" in made[-1]._trained


def test_a_norm_layer_cannot_learn_with_resting_statistics():
    model = network()
    make = model.train
    model.train = lambda mode=True: (make(mode), model[0][1].eval())[0]
    with pytest.raises(UsageError, match="norm layer '0/1'"):
        PopArtBackend().training(model, ExecutionPlan(training=True, precision="32.32"),
                                 TrainingSetup(CrossEntropy(), choice()), SIZE)


@pytest.mark.parametrize("training", [True, False])
def test_group_norms_are_popart_s_own(popart_double, monkeypatch, training):
    """`--enable-fast-groupnorm` changes no other operator."""
    import onnx

    graphs = []
    name = "TrainingSession" if training else "InferenceSession"
    real = getattr(popart_double, name)
    monkeypatch.setattr(popart_double, name, lambda **given: (
        graphs.append(onnx.load_from_string(given["fnModel"]).graph), real(**given))[1])
    if training:
        session()
    else:
        model, images = network().eval(), batch(4, eight_bit=False).images
        with torch.no_grad():
            expected = model(images)
        with PopArtBackend().inference(model, ExecutionPlan(
                micro_batch=4, precision="32.32", normalisation="none", eight_bit_io=False),
                SIZE) as made:
            made.compile()
            torch.testing.assert_close(made(images), expected, rtol=1e-5, atol=1e-5)
    norms = [node for node in graphs[0].node if "Norm" in node.op_type]
    assert ("ai.graphcore", "GroupNormalization") in [(n.domain, n.op_type) for n in norms]
    assert "InstanceNormalization" not in [n.op_type for n in norms]


def test_half_precision(made):
    found = trained(session(precision="16.16"), [batch(4, seed) for seed in range(3)])[1]
    expected = trained(session(TorchBackend()), [batch(4, seed) for seed in range(3)])[1]
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    assert_close(found, expected, 0.02)
    assert made[0].getInfo("0.0.weight").data_type_lcase() == "float16"
    assert made[0].getInfo(made[0].arguments["loss"]).data_type_lcase() == "float32"


class Gain(nn.Module):
    """A learned factor without dimensions."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, values):
        return self.gain * values


def test_a_scalar_has_no_weight_decay():
    assert_like_torch(network(Gain()), {"optimizer": choice(decay=0.5)})


def test_padded_input_is_trained_and_restored():
    model = network()
    pad_input_channels(model)
    assert_like_torch(model, size=24)
    made, again = session(model=model), session(model=model)
    weights = trained(made, [batch(4)])[1]
    assert weights["0.0.weight"].shape == (8, 3, 3, 3)
    again.load(weights, made.state())
    assert_close(again.weights(), weights, 0)
    assert_close(*(trained(one, [batch(4, 1)], first=1)[1] for one in (made, again)), 0)


def test_a_loss_that_is_not_finite_is_raised_with_its_update():
    bad = batch(8, eight_bit=False)
    bad.images[4:] *= float("inf")
    with pytest.raises(NonFiniteLoss) as error:
        session(eight_bit_io=False, normalisation="host", device_iterations=2).step(bad, 6)
    assert error.value.update == 7


def test_without_metrics_no_predictions_cross(made):
    result = session(setup={"metrics": False}).step(batch(4), 0)
    assert result.correct == 0
    assert list(made[0].dataFlow.anchors()) == [made[0].arguments["loss"]]


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), StochasticDepth(0.5, "row")],
                         ids=["dropout", "stochastic depth"])
def test_what_is_random_depends_on_the_number_of_the_update(layer):
    model, plan = network(layer), {"replicas": 2, "gradient_accumulation": 2, "micro_batch": 2}
    parts = [batch(8, seed) for seed in range(4)]
    one = trained(session(model=model, **plan), parts)[1]
    joined = [TrainingBatch(torch.cat([a.images, b.images]), torch.cat([a.labels, b.labels]))
              for a, b in (parts[:2], parts[2:])]
    assert_close(trained(session(model=model, device_iterations=2, **plan), joined, 2)[1], one, 0)
    assert not torch.equal(trained(session(model=model, **plan, seed=2), parts)[1]["2.2.weight"],
                           one["2.2.weight"])


# -- options -----------------------------------------------------------------------------------

OPTIONS = [
    ("auto_loss_scaling", True, "automaticLossScalingSettings.enabled", "True"),
    ("num_io_tiles", 32, "useHostCopyOps", "True"),
    ("num_io_tiles", 32, "enableExplicitMainLoops", "True"),
    ("num_io_tiles", 32, "defaultBufferingDepth", "3"),
    ("disable_stable_batchnorm", True, "enableStableNorm", "False"),
    ("enable_fp_exceptions", True, "enableFloatingPointChecks", "True"),
    ("enable_stochastic_rounding", True, "enableStochasticRounding", "True"),
    ("recompute", "auto", "autoRecomputation", "RecomputationType.Standard"),
    ("recompute", "manual", "autoRecomputation", "RecomputationType.RecomputeAll"),
    ("syncless_collectives", "auto", "gclOptions", "{'useSynclessCollectives': 'auto'}"),
    ("max_bytes_per_tile", 0, "gclOptions", "{'maxBytesPerTile': '0'}"),
    ("offload_optimizer", True, "optimizerStateTensorLocationSettings.location.storage",
     "TensorStorage.OffChip"),
    ("enable_optimizer_rts", True,
     "optimizerStateTensorLocationSettings.location.replicatedTensorSharding",
     "ReplicatedTensorSharding.On"),
]


def setting(session, path):
    value = session.arguments["userOptions"]
    for name in path.split("."):
        value = getattr(value, name)
    return str(value)


@pytest.mark.parametrize(("name", "value", "field", "meaning"), OPTIONS)
def test_option_reaches_popart(made, name, value, field, meaning):
    plan = {"replicas": 2, "precision": "16.16" if name == "auto_loss_scaling" else "32.32"}
    session(**plan)
    assert setting(made[-1], field) != meaning
    if name == "recompute":
        session(**plan, recompute=value)
    else:
        session(**plan, options={name: value})
    assert setting(made[-1], field) == meaning


def test_gradients_are_averaged_whatever_the_shape(made):
    session(replicas=2, gradient_accumulation=3)
    options = made[-1].arguments["userOptions"]
    assert (options.accumulationFactor, options.replicatedGraphCount) == (3, 2)
    assert str(options.accumulationAndReplicationReductionType) == "ReductionType.Mean"
    session(replicas=2, gradient_accumulation=3, accumulation_reduction="sum")
    options = made[-1].arguments["userOptions"]
    assert str(options.accumulationAndReplicationReductionType) == "ReductionType.Sum"


def test_a_pipeline_recomputes_in_its_own_way(made):
    session(recompute="auto", pipeline_splits=("1",), gradient_accumulation=3)
    assert setting(made[-1], "autoRecomputation") == "RecomputationType.Pipeline"


def test_recomputation_keeps_what_is_named(made):
    import onnx

    session_ = session(recompute="manual", recompute_checkpoints=("0", "1/0"))
    assert session_.facts["kept_for_backward"] == 4
    nodes = onnx.load_from_string(made[-1].arguments["fnModel"]).graph.node
    kept = [node.name for node in nodes if node.op_type != "Constant" and node.name
            and not any("recompute" in one.name for one in node.attribute)]
    assert [name.split("/")[-1] for name in kept] == ["Conv", "BatchNormalization", "Relu", "Conv"]


def test_velocity_scaling_is_that_of_the_first_loss_scaling():
    trained_ = session(setup={"optimizer": choice("sgd_combined"), "loss_scaling": 64.0},
                       options={"loss_velocity_scaling_ratio": 4.0})
    assert trained_._optimizer.velocityScalings().getDefault().val() == 16
    trained_.set_rates(0.1, 128.0)
    assert trained_._optimizer.velocityScalings().getDefault().val() == 16
    assert trained_.step(batch(4), 0).loss > 0


def test_every_training_option_of_the_record_is_tried_here():
    tried = {name for name, *_ in OPTIONS} | {"loss_velocity_scaling_ratio"}
    (record,) = ipucnn_backends()
    assert {item.name for item in declared(PopArtOptions)
            if item.option.only == "training"} == tried - {"recompute", "num_io_tiles"}
    assert set(record.features) == {
        "accumulation-sum", "compile-only", "recompute", "sharding"}


@pytest.mark.parametrize(("setup", "options", "plan", "message"), [
    ({"tolerate_non_finite": True}, {}, {}, "--skip-non-finite"),
    ({}, {"auto_loss_scaling": True}, {}, "precision 32.32 has none"),
    ({}, {"num_io_tiles": 64}, {"pipeline_splits": ("1",), "gradient_accumulation": 3},
     "exclude each other"),
    ({"loss": Focal()}, {}, {}, "backend 'popart' has no loss 'focal' .its losses: cross-entropy"),
    ({"loss": BinaryCrossEntropy()}, {}, {}, "no loss 'binary-cross-entropy'"),
    ({"loss": CrossEntropy(CrossEntropyOptions(class_weights=(1, 2, 3, 4, 5)))}, {}, {},
     "no class weights of loss 'cross-entropy'"),
    ({}, {"enable_optimizer_rts": True}, {}, "--enable-optimizer-rts"),
    ({}, {}, {"recompute": "auto", "recompute_checkpoints": ("0",)}, "--recompute-mode manual"),
    ({}, {}, {"recompute": "manual", "recompute_checkpoints": ("0",),
              "pipeline_splits": ("1",), "gradient_accumulation": 3}, "--recompute-mode manual"),
    ({"optimizer": OptimizerChoice("mine", 0.1, 0.0, None, dict)}, {}, {}, "'mine'"),
    ({"optimizer": choice(nesterov=True)}, {}, {}, "'--nesterov'"),
    ({"optimizer": choice(dampening=0.1)}, {}, {}, "'--dampening'")])
def test_what_the_device_cannot_do_is_refused(setup, options, plan, message):
    with pytest.raises(UsageError, match=message):
        session(setup=setup, options=options, **plan)


# -- life cycle --------------------------------------------------------------------------------


def test_a_cached_program_has_the_constants_of_its_training(machine, tmp_path):
    """PopART recognises a program without looking at the values of its constants."""
    options = {"model_cache_path": str(tmp_path)}
    resting = network()
    train_from(resting, "1")
    expected = trained(session(TorchBackend(), model=resting), [batch(4)])[1]
    other = copy.deepcopy(resting)
    with torch.no_grad():
        other[0][0].weight.mul_(2)
    for model in (other, resting, resting):
        found = trained(session(model=model, options=options), [batch(4)])[1]
    assert_close(found, expected)
    assert [event["event"] for event in machine.events if event["event"] != "run"] == [
        "compiled", "compiled", "loaded"]


@pytest.mark.parametrize(("name", "event"), [("sgd", "loaded"), ("sgd_combined", "compiled")])
def test_a_cached_program_has_the_optimizer_state_of_its_training(machine, tmp_path, name, event):
    other = network()
    with torch.no_grad():
        other[0][0].weight.mul_(2)
    for model in (other, network()):
        session(model=model, setup={"optimizer": choice(name)},
                options={"model_cache_path": str(tmp_path)})
    assert [one["event"] for one in machine.events] == ["compiled", event]


def test_saved_weights_replace_frozen_ones():
    resting = network()
    train_from(resting, "1")
    parts = [batch(4, seed) for seed in range(4)]
    whole = session(model=resting)
    trained(whole, parts[:2])
    saved = whole.weights(), whole.state()
    expected = trained(whole, parts[2:], first=2)[1]
    with torch.no_grad():
        resting[0][0].weight.zero_()
    again = session(model=resting)
    again.load(*saved)
    assert_close(trained(again, parts[2:], first=2)[1], expected, 0)


def test_a_state_of_another_backend_or_optimizer_is_refused():
    other = session(TorchBackend())
    with pytest.raises(IpucnnError, match="not of PopART"):
        session().load(other.weights(), other.state())
    other = session(setup={"optimizer": choice("adam")})
    with pytest.raises(IpucnnError, match="not of optimizer 'sgd'"):
        session().load(other.weights(), other.state())


def test_the_ipus_are_free_while_a_training_is_detached(machine):
    with session() as made:
        assert machine.taken
        made.step(batch(4), 0)
        before = made.weights()
        with made.detached():
            assert not machine.taken
            assert_close(made.weights(), before, 0)
        made.step(batch(4), 1)
    assert not machine.taken


def test_out_of_memory_has_a_hint(machine):
    machine.bytes_per_ipu = 100
    with pytest.raises(IpucnnError, match="cannot be compiled for training") as error:
        session()
    assert "--enable-recompute" in error.value.hint


# -- the commands ------------------------------------------------------------------------------

OLD = ("--backend popart --data-dir=./data/cifar10 --size 8 --dataset CIFAR-10 --batch-size 20 "
       "--replication-factor 2 --base-learning-rate -7 --momentum 0.9 --epochs 2 --norm-groups 4 "
       "--norm-type GROUP --precision 32 --batches-per-step 2 --no-prng --progress off --json ")


@pytest.fixture
def cli(small_cifar10, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use(None)

    def run(command: str):
        code = invoke(shlex.split(command))
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out) if "--json" in command else out

    yield run
    use(None)


def read(path):
    return torch.load(path, weights_only=True)["model"]


def test_training_validating_and_restoring(cli, machine):
    result = cli("train " + OLD + "--checkpoint-path c --validation-mode during "
                 "--validation-frequency 1")
    assert result["backend"] == "popart"
    assert (result["updates"], result["images"]) == (24, 480)
    assert [v["images"] for v in result["validations"]] == [50, 50]
    # the validation compiles once, and takes the weights of each epoch
    assert [event["session"] for event in machine.events if event["event"] == "compiled"] == [
        "TrainingSession", "InferenceSession"]
    stored = cli("validate --checkpoint-path c --progress off --json")
    for before, after in zip(result["validations"], stored["validations"]):
        assert abs(before["loss"] - after["loss"]) < 1e-5
    whole = read("c/resnet8-cifar_cifar10_2.pt")
    os.unlink("c/resnet8-cifar_cifar10_2.pt")
    cli("restore --checkpoint-path c --progress off")
    again = read("c/resnet8-cifar_cifar10_2.pt")
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name
    cli("train " + OLD.replace("popart", "torch") + "--checkpoint-path t --no-validation")
    assert_close(read("t/resnet8-cifar_cifar10_2.pt"), whole)


def test_a_pipeline_on_the_emulated_ipu(cli, machine):
    machine.ipus = 0
    result = cli("train " + OLD.replace("--replication-factor 2", "--num-ipus 2 --pipeline "
                                        "--gradient-accumulation-factor 3")
                 + "--simulation --recompute --no-validation --log-dir log")
    assert result["plan"]["stages"] == 2
    assert result["device"].startswith("IPU model")


def test_ipus_without_a_pipeline_take_turns(cli, made):
    result = cli("train " + OLD.replace("--replication-factor 2", "--num-ipus 2").replace(
        "--epochs 2", "--epochs 1") + "--valid-per-epoch 1 --log-dir log")
    assert (result["plan"]["stages"], result["plan"]["gradient_accumulation"]) == (2, 1)
    assert len(result["session"]["stages_begin_at"]) == 2
    assert [v["images"] for v in result["validations"]] == [50]
    options = made[-1].arguments["userOptions"]
    assert options.enablePipelining is False
    assert str(options.virtualGraphMode) == "VirtualGraphMode.Manual"


def test_synthetic_data_and_compilation_only(cli, machine):
    synthetic = OLD.replace("--size 8 --dataset CIFAR-10", "--model resnet8-cifar --data synthetic"
                            ).replace("--data-dir=./data/cifar10", "--iterations 2")
    assert cli("train " + synthetic + "--no-validation --log-dir log")["updates"] == 8
    result = cli("train " + OLD + "--no-validation --log-dir log --compile-only "
                 "--offline-target-ipu-version 2")
    assert result["updates"] == 0
    assert result["device"] == "offline target, IPU version 2"
