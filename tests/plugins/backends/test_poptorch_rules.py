"""The rules of `tests/doubles/rules/poptorch.json`, from both sides."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from chosen import optimizer
from torch import nn

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingBatch, TrainingSetup
from ipucnn.models.surgery import pad_input_channels
from ipucnn.plugins.backends.poptorch.engine import PopTorchBackend
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, load, save


@pytest.fixture(autouse=True)
def poptorch(poptorch_double):
    """The double, as `import poptorch` gives it."""
    return poptorch_double


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                             nn.Flatten(), nn.Linear(4, 5))


def session(name="adam", model=None, **options):
    made = PopTorchBackend(PopTorchOptions(**options)).training(
        model or network(), ExecutionPlan(precision="32.32", training=True, seed=1, micro_batch=2),
        TrainingSetup(CrossEntropy(), optimizer(name, weight_decay=0.01)), 16)
    made.compile()
    return made


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TrainingBatch(
        torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=generator),
        torch.randint(0, 5, (2,), generator=generator))


# -- PReLU -------------------------------------------------------------------------------------


class _Parametric(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.before, self.after = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4, 5)
        self.prelu = nn.PReLU(4)

    def forward(self, images):
        return self.after(self.prelu(self.before(images)).mean((2, 3)))


def test_prelu_has_no_gradient(poptorch):
    class Trained(_Parametric):
        def forward(self, images):
            return poptorch.identity_loss(super().forward(images), "sum")

    model = Trained().train()
    options = poptorch.Options()
    made = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
    made(torch.ones(1, 3, 16, 16))
    made.copyWeightsToHost()
    for name, value in _Parametric().state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) is not name.startswith("after")


@pytest.mark.parametrize("precision", ["32.32", "16.32"])
def test_layers_before_prelu_are_trained(precision):
    weights = []
    for backend in (PopTorchBackend(), TorchBackend()):
        with backend.training(_Parametric(), ExecutionPlan(
                precision=precision if backend.__class__ is PopTorchBackend else "32.32",
                training=True, seed=1, micro_batch=2), TrainingSetup(
                    CrossEntropy(), optimizer("sgd", momentum=0.9)), 16) as made:
            made.compile()
            made.step(batch(), 0)
            weights.append(made.weights())
    tolerance = 1e-5 if precision == "32.32" else 1e-2
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=tolerance, atol=tolerance)
    assert not torch.equal(weights[0]["before.weight"], _Parametric().before.weight)


# -- betas -------------------------------------------------------------------------------------


def test_betas_that_are_a_list_are_refused(poptorch):
    model = network()
    made = poptorch.optim.Adam(model.parameters(), lr=0.1, betas=(0.9, 0.99))
    made.param_groups[0]["betas"] = [0.9, 0.99]
    with pytest.raises(AssertionError, match="Expected a pair for betas"):
        poptorch.trainingModel(model, optimizer=made)


def stored(made, folder):
    """Return weights and state after they were in a file."""
    path = save(Checkpoint(
        model="net", dataset="shapes", position=Position(0, 1, 2), weights=made.weights(),
        ema=None, session=made.state(), progress={}, options={}, class_names=(), versions={}),
        folder)
    read = load(path)
    return read.weights, read.session


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_a_restored_state_has_the_types_it_was_made_of(tmp_path, name):
    whole = session(name)
    whole.step(batch(0), 0)
    weights, state = stored(whole, tmp_path)
    expected = [type(value) for value in whole.state()["optimizer"]["param_groups"][0].values()]
    found = state["optimizer"]["param_groups"][0]
    assert [type(value) for value in found.values()] == expected
    assert isinstance(found["betas"], tuple)
    found["betas"] = list(found["betas"])  # as files of before have it
    again = session(name)
    again.load(weights, state)
    for made in (whole, again):
        made.step(batch(1), 1)
    for name, value in whole.weights().items():
        assert torch.equal(value, again.weights()[name])


# -- several processes -------------------------------------------------------------------------


@pytest.fixture
def open_mpi(monkeypatch):
    """Set the variables that `mpirun -np 2` sets in its second process."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")


def test_variables_of_open_mpi_make_one_of_several_processes(poptorch, open_mpi):
    options = poptorch.Options()
    assert (options.Distributed.numProcesses, options.Distributed.processId) == (2, 1)
    with pytest.raises(poptorch.Error, match="nothing connected the processes"):
        poptorch.inferenceModel(nn.Identity(), options)(torch.zeros(1))


def test_open_mpi_without_poprun_is_one_process(poptorch, open_mpi):
    session().step(batch(), 0)
    assert poptorch._machine.MACHINE.programs[-1].options.Distributed.numProcesses == 1


def test_processes_without_a_cache_are_warned(poptorch, open_mpi, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for folder in (None, str(tmp_path)):
        options = poptorch.Options()
        options.enableExecutableCaching(folder)
        with caplog.at_level(logging.WARNING, "poptorch"):
            poptorch.inferenceModel(nn.Identity(), options)(torch.zeros(1))
    assert caplog.text.count("compiling the model once per process") == 1


def test_instances_of_poprun_share_a_cache(monkeypatch, caplog, tmp_path):
    from ipucnn.plugins.backends.poptorch.settings import default_cache

    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    monkeypatch.delenv("POPTORCH_CACHE_DIR", raising=False)
    assert default_cache() is None
    monkeypatch.setenv("POPDIST_NUM_TOTAL_REPLICAS", "2")
    monkeypatch.setenv("POPDIST_NUM_LOCAL_REPLICAS", "1")
    with caplog.at_level(logging.INFO, "ipucnn.poptorch"):
        assert default_cache() == str(tmp_path / "poptorch")
    assert "--model-cache-path" in caplog.text
    monkeypatch.setenv("POPTORCH_CACHE_DIR", "elsewhere")  # the user's own choice
    assert default_cache() is None


# -- errors of the Python layer ----------------------------------------------------------------


def test_an_assertion_of_poptorch_is_one_line():
    made = session()
    made._optimizer.param_groups[0]["betas"] = [0.9, 0.99]
    with pytest.raises(IpucnnError, match="Expected a pair for betas") as caught:
        made.set_rates(0.5, 1.0)
    assert "POPTORCH_LOG_LEVEL" in caught.value.hint


def test_a_mistake_of_ipucnn_is_not_an_error_of_poptorch(monkeypatch):
    made = session()

    def wrong(*_args):
        raise TypeError("ours")

    monkeypatch.setattr(made, "_inputs", wrong)
    with pytest.raises(TypeError, match="ours"):
        made.step(batch(), 0)


# -- the cache ---------------------------------------------------------------------------------


def test_a_variable_names_the_cache(poptorch, monkeypatch, tmp_path):
    monkeypatch.setenv("POPTORCH_CACHE_DIR", str(tmp_path))
    assert poptorch.Options()._Popart._values["cachePath"] == str(tmp_path)


@pytest.mark.parametrize("by_variable", [False, True])
def test_programs_with_other_constants_have_folders_of_their_own(poptorch, monkeypatch, tmp_path,
                                                                 by_variable):
    """PopTorch's cache is PopART's, which looks at no value of a constant."""
    folders = []
    given = {} if by_variable else {"model_cache_path": str(tmp_path)}
    if by_variable:
        monkeypatch.setenv("POPTORCH_CACHE_DIR", str(tmp_path))
    for smoothing, depth in ((0.0, None), (0.0, None), (0.1, None), (0.0, 5)):
        made = PopTorchBackend(PopTorchOptions(prefetch_depth=depth, **given)).training(
            network(), ExecutionPlan(precision="32.32", training=True, micro_batch=2),
            TrainingSetup(CrossEntropy(CrossEntropyOptions(smoothing)), optimizer("sgd")), 16)
        made.compile()
        options = poptorch._machine.MACHINE.programs[-1].options
        folders.append(options._Popart._values["cachePath"])
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_variants_of_rmsprop_have_folders_of_their_own(tmp_path):
    for name in ("rmsprop", "rmsprop_tf", "rmsprop"):
        session(name, model_cache_path=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


# -- recomputation -----------------------------------------------------------------------------


@pytest.mark.parametrize("explicit", [False, True])
def test_nothing_is_recomputed_in_loops_unless_explicitly(poptorch, explicit):
    class Overlapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, value):
            mode = poptorch.OverlapMode.OverlapAccumulationLoop
            value = poptorch.set_overlap_for_input(value, mode)
            return poptorch.identity_loss(value * self.weight, "sum")

    options = poptorch.Options().outputMode(poptorch.OutputMode.Sum)
    options.setExecutionStrategy(poptorch.ShardedExecution())
    options.TensorLocations.numIOTiles(32)
    options._Popart.set("autoRecomputation", 1)
    options._Popart.set("explicitRecomputation", explicit)
    poptorch.trainingModel(Overlapped(), options)(torch.ones(1))
    assert poptorch._machine.MACHINE.programs[-1].recomputes == explicit


# -- memory of weights -------------------------------------------------------------------------


def in_another_layout():
    return network().to(memory_format=torch.channels_last)


def test_weights_that_are_not_contiguous_are_read_in_another_order(poptorch):
    images = torch.rand(1, 3, 16, 16)
    found = [poptorch.inferenceModel(model.eval())(images)
             for model in (network(), in_another_layout())]
    assert not torch.allclose(*found)


def test_weights_of_another_layout_are_made_contiguous():
    plan, images = ExecutionPlan(precision="32.32", micro_batch=2), batch().images
    answers = []
    for model in (network(), in_another_layout()):
        with PopTorchBackend().inference(model, plan, 16) as made:
            made.compile()
            answers.append(made(images))
    assert torch.equal(*answers)
    trained = []
    for model in (network(), in_another_layout()):
        made = session(model=model)
        made.step(batch(0), 0)
        trained.append(made.weights())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


class Computed(nn.Linear):
    """Its saved state is a part of its weight."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"][:1]


def test_a_state_that_is_computed_is_refused(poptorch):
    with pytest.raises(poptorch.Error, match="computes 'weight'"):
        poptorch.inferenceModel(Computed(2, 2))(torch.zeros(1, 2))


def test_padded_weights_are_themselves_in_a_state_of_variables():
    padded = network()
    pad_input_channels(padded)
    made, expected = session(model=padded), session()
    for one in (made, expected):
        one.step(batch(0), 0)
    for name, value in expected.weights().items():
        torch.testing.assert_close(made.weights()[name], value)
    again = session(model=padded)
    again.load(made.weights(), made.state())
    for one in (made, again):
        one.step(batch(1), 1)
    for name, value in made.weights().items():
        assert torch.equal(value, again.weights()[name])


def test_a_warning_about_a_call_of_poptorch_is_not_shown(monkeypatch):
    made = session()
    wrapped = type(made._program)
    plain = wrapped.state_dict

    def state_dict(self, *args, **kwargs):
        warnings.warn("Positional args are being deprecated, use kwargs instead.", stacklevel=2)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(wrapped, "state_dict", state_dict)
    made.load(made.weights(), made.state())
