"""Every trap of PopTorch that a backend can meet: the double has it, or the backend avoids it.

A test is named after its trap. Those of the double take the fixture `poptorch`; in those of the
backend a session meets the trap and gives the right result all the same.
"""

from __future__ import annotations

import copy

import pytest
import torch
from chosen import optimizer as chosen
from states import assert_close
from torch import nn

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingBatch, TrainingSetup
from ipucnn.plugins.backends.poptorch.engine import PopTorchBackend
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions

SIZE = 16


@pytest.fixture(autouse=True)
def poptorch(poptorch_double):
    """The double, as `import poptorch` gives it."""
    return poptorch_double


@pytest.fixture
def machine(poptorch):
    """The device that the double simulates."""
    return poptorch._machine.MACHINE


class Trained(nn.Module):
    """Returns a loss of a linear layer, made by `loss(logits, labels)`, and the logits."""

    def __init__(self, loss, weight=0.5):
        super().__init__()
        self.layer = nn.Linear(2, 3, bias=False)
        nn.init.constant_(self.layer.weight, weight)
        self.loss = loss

    def forward(self, x, labels):
        logits = self.layer(x)
        return self.loss(logits, labels), logits


class Weighed(nn.Module):
    """Its loss is its only weight times the mean of the input: the gradient is that mean."""

    def __init__(self, poptorch, value=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), value))
        self.marked = poptorch.identity_loss

    def forward(self, x):
        return self.marked((self.weight * x.mean()).sum(), "none")


class Plus(nn.Module):
    """Adds what its buffer holds, in two layers that can be blocks."""

    def __init__(self, value=1.0):
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()
        self.register_buffer("value", torch.tensor(value))

    def forward(self, x):
        return self.second(self.first(x)) + self.value


def inputs(rows=2):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(rows, 2, generator=generator), torch.arange(rows) % 3


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8),
                          nn.ReLU()),
            nn.Sequential(nn.Dropout(0.0), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Sequential(nn.Linear(8, 5)))


def session(backend=None, model=None, options=None, optimizer=None, **plan):
    made = (backend or PopTorchBackend(PopTorchOptions(**(options or {})))).training(
        network() if model is None else model, ExecutionPlan(**{
            "precision": "32.32", "training": True, "seed": 1, "micro_batch": 2, **plan}),
        TrainingSetup(CrossEntropy(), optimizer or chosen(weight_decay=0.0, momentum=0.9)), SIZE)
    made.compile()
    return made


def batch(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TrainingBatch(
        torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
        torch.randint(0, 5, (count,), generator=generator))


# -- what goes in ------------------------------------------------------------------------------


def test_first_dimension_that_is_no_multiple(poptorch):
    options = poptorch.Options().deviceIterations(2).replicationFactor(3)
    model = poptorch.inferenceModel(Plus(), options)
    for rows in (1, 5, 7):
        with pytest.raises(AssertionError, match="multiple of 6"):
            model(torch.zeros(rows))


def test_short_last_batch_is_padded():
    plan = ExecutionPlan(precision="32.32", micro_batch=2, device_iterations=2)
    images = batch(5).images
    with PopTorchBackend().inference(network(), plan, SIZE) as found, \
            TorchBackend().inference(network(), plan, SIZE) as expected:
        found.compile()
        expected.compile()
        logits = torch.cat([found(images[:4]), found(images[4:])])
        assert logits.shape == (5, 5)
        torch.testing.assert_close(logits, torch.cat([expected(images[:4]), expected(images[4:])]))


def test_scalar_input_is_passed_whole(poptorch):
    class Times(nn.Module):
        def forward(self, x, factor):
            return x * factor

    model = poptorch.inferenceModel(Times(), poptorch.Options().deviceIterations(2))
    assert model(torch.ones(4), torch.tensor(3.0)).tolist() == [3, 3, 3, 3]


def test_changed_shape_or_type(poptorch):
    model = poptorch.inferenceModel(Plus())
    model(torch.zeros(2))
    for other in (torch.zeros(4), torch.zeros(2, 1), torch.zeros(2, dtype=torch.int32)):
        with pytest.raises(poptorch.Error, match="don't match"):
            model(other)


def test_input_that_is_not_contiguous(poptorch):
    with pytest.warns(UserWarning, match="not contiguous"):
        poptorch.inferenceModel(Plus())(torch.zeros(4, 2).t())
    part = batch(2)
    weights = []
    for images in (part.images, part.images.contiguous(memory_format=torch.channels_last)):
        made = session()
        made.step(TrainingBatch(images, part.labels), 0)  # warnings are errors here
        weights.append(made.weights())
    assert_close(*weights, 1e-6)


def test_input_that_requires_grad(poptorch):
    model = poptorch.inferenceModel(Plus())
    with pytest.warns(UserWarning, match="requires_grad"):
        assert not model(torch.zeros(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("given", "crossed"), [
    (torch.int64, torch.int32), (torch.float64, torch.float32), (torch.bfloat16, torch.float32),
    (torch.float16, torch.float16), (torch.uint8, torch.uint8)])
def test_types_are_narrowed_on_the_way_in(poptorch, machine, given, crossed):
    poptorch.inferenceModel(nn.Identity())(torch.zeros(2, dtype=given))
    assert machine.programs[-1].shapes[0][1] is crossed


@pytest.mark.parametrize(("made", "returned"), [
    (torch.int64, torch.int32), (torch.float64, torch.float32)])
def test_types_are_narrowed_on_the_way_out(poptorch, made, returned):
    class Cast(nn.Module):
        def forward(self, x):
            return x.to(made)

    assert poptorch.inferenceModel(Cast())(torch.ones(2)).dtype is returned


def test_value_that_is_read_while_the_model_is_traced(poptorch):
    class Reads(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(poptorch.Error, match="not known"):
        poptorch.inferenceModel(Reads())(torch.ones(2))


# -- what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "period", "rows"), [
    ("All", None, 12), ("Final", None, 2), ("Sum", None, 2), ("EveryN", 3, 4),
    ("Default", None, 2)])
def test_rows_of_a_training_call(poptorch, mode, period, rows):
    options = poptorch.Options().deviceIterations(3).replicationFactor(2)
    options.Training.gradientAccumulation(2)
    options.outputMode(poptorch.OutputMode[mode], period)
    (losses,) = poptorch.trainingModel(Weighed(poptorch), options)(torch.arange(12.0))
    assert losses.shape == (rows,)


def test_micro_batches_are_iteration_then_accumulation_then_replica(poptorch):
    options = poptorch.Options().deviceIterations(2).replicationFactor(2)
    options.Training.gradientAccumulation(2)
    model = Weighed(poptorch)
    wrapped = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.0))
    # Final: the last accumulation step of the last iteration, one row for each replica
    assert wrapped(torch.arange(8.0))[0].tolist() == [6, 7]


def test_scalar_becomes_a_vector_when_several_return(poptorch):
    model = Weighed(poptorch)
    (alone,) = poptorch.trainingModel(copy.deepcopy(model))(torch.ones(1))
    assert alone.shape == ()
    options = poptorch.Options().replicationFactor(2)
    (both,) = poptorch.trainingModel(model, options)(torch.ones(2))
    assert both.shape == (2,)


def test_sum_is_not_divided(poptorch):
    options = poptorch.Options().deviceIterations(2).outputMode(poptorch.OutputMode.Sum)
    options.Training.gradientAccumulation(3)
    model = Weighed(poptorch)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.0)
    (total,) = poptorch.trainingModel(model, options, optimizer)(torch.ones(6))
    assert float(total) == 6
    plan = {"device_iterations": 2, "gradient_accumulation": 3, "replicas": 2}
    losses = [session(backend, **plan).step(batch(24), 0).loss
              for backend in (PopTorchBackend(), TorchBackend())]
    assert abs(losses[0] - losses[1]) < 1e-5


def test_one_call_makes_as_many_updates_as_there_are_iterations():
    together, apart = session(device_iterations=3), session()
    parts = batch(6)
    together.step(parts, 0)
    for start in (0, 2, 4):
        apart.step(TrainingBatch(parts.images[start:start + 2], parts.labels[start:start + 2]),
                   start // 2)
    assert_close(together.weights(), apart.weights(), 1e-6)


def test_backward_on_an_output(poptorch):
    (loss,) = poptorch.trainingModel(Weighed(poptorch))(torch.ones(1))
    with pytest.raises(RuntimeError):
        loss.backward()


def test_synthetic_outputs_mean_nothing(poptorch):
    options = poptorch.Options().enableSyntheticData(True)
    assert poptorch.inferenceModel(Plus(), options)(torch.zeros(2)).isnan().all()
    made = session(synthetic=True)
    result = made.step(TrainingBatch(None, None), 0)  # what is not finite is no failure
    assert result.correct == 0
    assert made.device_latency() is None


# -- losses ------------------------------------------------------------------------------------


def gradient_step(poptorch, loss):
    """Return the weight after an update of rate 1 with what the double trains."""
    model = Trained(loss)
    poptorch.trainingModel(model, None, poptorch.optim.SGD(model.parameters(), lr=1.0))(*inputs())
    return model.state_dict()["layer.weight"]


def expected_step(loss):
    model = Trained(loss)
    model(*inputs())[0].backward()
    return model.layer.weight.detach() - model.layer.weight.grad


def smoothed(logits, labels):
    return nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)


def test_smoothing_is_lost_without_identity_loss(poptorch):
    def plain(logits, labels):
        return nn.functional.cross_entropy(logits, labels)

    lost = gradient_step(poptorch, smoothed)
    torch.testing.assert_close(lost, expected_step(plain))
    assert not torch.allclose(lost, expected_step(smoothed))
    kept = gradient_step(poptorch, lambda x, y: poptorch.identity_loss(smoothed(x, y), "none"))
    torch.testing.assert_close(kept, expected_step(smoothed))


def test_arithmetic_after_a_loss_is_lost_without_identity_loss(poptorch):
    def three_times(logits, labels):
        return 3 * nn.functional.nll_loss(logits.log_softmax(1), labels)

    def once(logits, labels):
        return nn.functional.nll_loss(logits.log_softmax(1), labels)

    torch.testing.assert_close(gradient_step(poptorch, three_times), expected_step(once))
    torch.testing.assert_close(
        gradient_step(poptorch, lambda x, y: poptorch.identity_loss(three_times(x, y), "none")),
        expected_step(three_times))


def test_final_loss_of_a_session_is_marked():
    for smoothing in (0.0, 0.3):
        weights = []
        for backend in (PopTorchBackend(), TorchBackend()):
            made = backend.training(
                network(), ExecutionPlan(precision="32.32", training=True, micro_batch=2, seed=1),
                TrainingSetup(CrossEntropy(CrossEntropyOptions(smoothing)),
                              chosen("sgd", lr=0.5, weight_decay=0.0)), SIZE)
            made.compile()
            made.step(batch(2), 0)
            weights.append(made.weights())
        assert_close(*weights, 1e-6)


def test_no_loss(poptorch):
    with pytest.raises(poptorch.Error, match="Couldn't find a loss"):
        gradient_step(poptorch, lambda logits, labels: logits.sum())


def test_two_losses(poptorch):
    def two(logits, labels):
        return (nn.functional.cross_entropy(logits, labels)
                + nn.functional.mse_loss(logits, torch.zeros_like(logits)))

    with pytest.raises(poptorch.Error, match="Multiple independent losses"):
        gradient_step(poptorch, two)
    torch.testing.assert_close(
        gradient_step(poptorch, lambda x, y: poptorch.identity_loss(two(x, y), "none")),
        expected_step(two))


def test_loss_that_is_no_scalar_is_seeded_with_ones(poptorch):
    def each(logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    torch.testing.assert_close(
        gradient_step(poptorch, lambda x, y: poptorch.identity_loss(each(x, y), "none")),
        expected_step(lambda x, y: each(x, y).sum()))


def test_class_weights(poptorch):
    def weighed(logits, labels):
        return nn.functional.cross_entropy(logits, labels, weight=torch.ones(3))

    with pytest.raises(poptorch.Error, match="class weights"):
        gradient_step(poptorch, weighed)


@pytest.mark.parametrize(("kind", "update"), [("Mean", 1.5), ("Sum", 6.0)])
def test_reduction_over_accumulation_and_replicas(poptorch, kind, update):
    options = poptorch.Options().replicationFactor(2)
    options.Training.gradientAccumulation(2)
    options.Training.accumulationAndReplicationReductionType(poptorch.ReductionType[kind])
    model = Weighed(poptorch)
    poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=1.0))(
        torch.arange(4.0))
    assert float(1 - model.state_dict()["weight"]) == update


def test_reduction_of_a_session_is_the_mean(machine):
    made = session(gradient_accumulation=2, replicas=2)
    assert machine.programs[-1].options.Training.mean_reduction is True
    other = session(TorchBackend(), gradient_accumulation=2, replicas=2)
    for part in (batch(8), batch(8, 1)):
        made.step(part, 0)
        other.step(part, 0)
    assert_close(made.weights(), other.weights(), 1e-6)


def test_loss_scaling_changes_nothing_but_the_arithmetic(poptorch):
    found = []
    for scaling in (1.0, 64.0):
        model = Weighed(poptorch)
        (loss,) = poptorch.trainingModel(model, None, poptorch.optim.SGD(
            model.parameters(), lr=1.0, loss_scaling=scaling))(torch.full((1,), 3.0))
        found.append((float(loss), float(model.state_dict()["weight"])))
    assert found[0] == found[1] == (3.0, -2.0)


# -- the model ---------------------------------------------------------------------------------


def test_training_flag_is_that_of_the_wrapping(poptorch):
    class Flagged(Weighed):
        def forward(self, x):
            return super().forward(x * (2 if self.training else 1))

    for training, expected in ((True, 2), (False, 1)):
        model = Flagged(poptorch).train(training)
        wrapped = poptorch.trainingModel(model)
        wrapped.compile(torch.ones(1))
        model.train(not training)
        assert float(wrapped(torch.ones(1))[0]) == expected
    made = session(model=network().eval())
    before = made.weights()["0.1.running_mean"]
    made.step(batch(2), 0)
    assert not torch.equal(before, made.weights()["0.1.running_mean"])


def test_buffers_in_place_with_replicas(poptorch):
    class Normed(Weighed):
        def __init__(self, poptorch):
            super().__init__(poptorch)
            self.norm = nn.BatchNorm1d(1)

        def forward(self, x):
            return super().forward(self.norm(x))

    rows = torch.arange(8.0).view(8, 1)
    options = poptorch.Options().replicationFactor(2)
    with pytest.raises(poptorch.Error, match=r"broadcastBuffers\(False\)"):
        poptorch.trainingModel(Normed(poptorch), options)(rows)
    poptorch.trainingModel(Normed(poptorch), poptorch.Options())(rows)
    options = poptorch.Options().replicationFactor(2).broadcastBuffers(False)
    model = Normed(poptorch)
    poptorch.trainingModel(model, options)(rows)
    # every replica has its own statistics, and the host reads those of the first
    assert float(model.state_dict()["norm.running_mean"]) == pytest.approx(0.1 * 1.5)


def test_running_statistics_of_a_session_are_those_of_the_first_replica():
    both, first = session(replicas=2), session()
    part = batch(4)
    both.step(part, 0)
    first.step(TrainingBatch(part.images[:2], part.labels[:2]), 0)
    for name in ("0.1.running_mean", "0.1.running_var"):
        torch.testing.assert_close(both.weights()[name], first.weights()[name])


def test_wrapping_twice(poptorch):
    model = Weighed(poptorch)
    wrapped = poptorch.trainingModel(model)
    with pytest.raises(RuntimeError, match="already been wrapped"):
        poptorch.trainingModel(model)
    wrapped.destroy()  # which does nothing without a program
    assert type(model) is not Weighed
    wrapped(torch.ones(1))
    wrapped.destroy()
    assert type(model) is Weighed
    poptorch.trainingModel(model)(torch.ones(1))


def test_saved_weights_need_no_poptorch():
    made = session()
    made.step(batch(2), 0)
    saved = made.weights()
    assert list(saved) == list(network().state_dict())
    assert {type(value) for value in saved.values()} == {torch.Tensor}
    assert not {value.data_ptr() for value in saved.values()} & {
        value.data_ptr() for value in made._program.state_dict().values()}


def test_host_weights_are_stale_until_they_are_read(poptorch):
    model = Weighed(poptorch)
    held = model.weight.detach()
    wrapped = poptorch.trainingModel(model, None, poptorch.optim.SGD(model.parameters(), lr=1.0))
    wrapped(torch.ones(1))
    assert float(held) == 1
    model.state_dict()
    assert float(held) == 0
    wrapped(torch.ones(1))
    assert float(held) == 0
    assert wrapped.copyWeightsToHostIfNeeded()
    assert not wrapped.copyWeightsToHostIfNeeded()
    assert float(held) == -1


def test_weights_changed_on_the_host_are_not_those_of_the_device(poptorch):
    model = Plus()
    wrapped = poptorch.inferenceModel(model)
    assert wrapped(torch.zeros(1)).tolist() == [1]
    model.value.fill_(5.0)
    assert wrapped(torch.zeros(1)).tolist() == [1]
    wrapped.copyWeightsToDevice()
    assert wrapped(torch.zeros(1)).tolist() == [5]


def test_other_weights_of_a_session_reach_the_device():
    plan = ExecutionPlan(precision="32.32", micro_batch=2)
    other = network()
    torch.nn.init.normal_(other[2][0].weight)
    images = batch(2).images
    with PopTorchBackend().inference(copy.deepcopy(other), plan, SIZE) as expected, \
            PopTorchBackend().inference(network(), plan, SIZE) as made:
        expected.compile()
        made.compile()
        assert not torch.allclose(made(images), expected(images))
        made.load(other.state_dict())
        torch.testing.assert_close(made(images), expected(images))
        made.pause()
        made.load(network().state_dict())  # while it is away from the device
        assert not torch.allclose(made(images), expected(images))


def test_wrapper_of_a_submodule_does_not_follow_the_training(poptorch):
    model = Trained(lambda x, y: poptorch.identity_loss(smoothed(x, y), "none"))
    x, labels = inputs()
    training = poptorch.trainingModel(model, None, poptorch.optim.SGD(model.parameters(), lr=1.0))
    part = poptorch.inferenceModel(model.layer)
    before = part(x)
    training(x, labels)
    assert torch.equal(part(x), before)
    training.copyWeightsToHostIfNeeded()
    part.copyWeightsToDevice()
    assert not torch.equal(part(x), before)


# -- blocks ------------------------------------------------------------------------------------


def test_block_twice(poptorch):
    model = Plus()
    assert poptorch.BeginBlock(model.second, ipu_id=1) is model.second
    with pytest.raises(poptorch.Error, match="already been assigned"):
        poptorch.BeginBlock(model.second, ipu_id=1)
    poptorch.removeBlocks(model)
    poptorch.BeginBlock(model.second, ipu_id=1)


def test_stage_numbers_that_go_down(poptorch):
    model = Plus()
    poptorch.BeginBlock(model.first, ipu_id=1)
    poptorch.BeginBlock(model.second, ipu_id=0)
    with pytest.raises(poptorch.Error, match="stage 0 comes after stage 1"):
        poptorch.inferenceModel(model, poptorch.Options().deviceIterations(2))(torch.zeros(2))


@pytest.mark.parametrize("splits", [("2", "1"), ("1", "1"), ("9",)])
def test_splits_that_are_no_stages_are_refused(splits):
    with pytest.raises(UsageError):
        session(pipeline_splits=splits, gradient_accumulation=5)


def test_blocks_of_a_session_are_in_the_order_of_the_model(machine):
    session(pipeline_splits=("1", "2"), gradient_accumulation=5, compile_only=True,
            options={"offline_target_ipu_version": 2})
    assert list(machine.programs[-1].blocks.items()) == [("1", 1), ("2", 2)]


def test_accumulation_that_does_not_fill_the_pipeline(poptorch, machine):
    class Staged(Weighed):
        def __init__(self, poptorch):
            super().__init__(poptorch)
            self.last = poptorch.BeginBlock(nn.Identity(), ipu_id=1)

        def forward(self, x):
            return super().forward(self.last(x))

    def run(accumulation, strategy=None):
        options = poptorch.Options()
        options.Training.gradientAccumulation(accumulation)
        if strategy:
            options.setExecutionStrategy(strategy)
        return poptorch.trainingModel(Staged(poptorch), options)(torch.ones(accumulation))

    with pytest.raises(poptorch.Error, match=r"stages \(3\)"):
        run(2)
    run(3)
    run(1, poptorch.ShardedExecution())
    machine.ipus = 1  # the hardware is looked at first
    with pytest.raises(poptorch.Error, match="Failed to acquire 2"):
        run(2)
    with pytest.raises(UsageError, match="at least 3"):
        session(pipeline_splits=("1",), gradient_accumulation=2)


# -- options -----------------------------------------------------------------------------------


def test_options_are_frozen_by_their_use(poptorch):
    options = poptorch.Options()
    wrapped = poptorch.inferenceModel(Plus(), options)
    for frozen in (options, wrapped.options):
        with pytest.raises(AttributeError, match="frozen"):
            frozen.deviceIterations(2)
        with pytest.raises(AttributeError, match="frozen"):
            frozen.Training.gradientAccumulation(2)
        with pytest.raises(AttributeError, match="frozen"):
            frozen._Popart.set("enableStableNorm", True)
    with PopTorchBackend().inference(network(), ExecutionPlan(), SIZE) as one, \
            PopTorchBackend().inference(network(), ExecutionPlan(), SIZE) as two:
        one.compile()
        two.compile()  # every session has options of its own


def test_accumulation_of_an_inference(poptorch):
    options = poptorch.Options()
    options.Training.gradientAccumulation(2)
    with pytest.raises(poptorch.Error, match="gradientAccumulation to 1"):
        poptorch.inferenceModel(Plus(), options)


def test_partials_type_replaces_the_convolution_options(poptorch):
    options = poptorch.Options()
    options._Popart.set("convolutionOptions", {"availableMemoryProportion": "0.2"})
    options.Precision.setPartialsType(torch.half)
    assert options._Popart._values["convolutionOptions"] == {"partialsType": "half"}


def test_engine_options_replace_what_profiling_set(poptorch, machine):
    options = poptorch.Options().enableProfiling("there")
    options._Popart.setEngineOptions({"opt.internalExchangeOptimisationTarget": "memory"})
    assert "autoReport.all" not in options._Popart._values["engineOptions"]
    session(options={"profile": True, "exchange_memory_target": "memory",
                     "enable_stochastic_rounding": True})
    assert set(machine.programs[-1].options._Popart._values["engineOptions"]) == {
        "autoReport.all", "autoReport.directory", "debug.allowOutOfMemory",
        "opt.internalExchangeOptimisationTarget", "target.deterministicWorkers"}


def test_unknown_option_is_found_when_compiling(poptorch):
    options = poptorch.Options()
    options._Popart.set("enableStableNorms", True)
    with pytest.raises(poptorch.Error, match="enableStableNorms"):
        poptorch.inferenceModel(Plus(), options)(torch.zeros(1))


def test_cycle_count_is_not_offered(poptorch):
    wrapped = poptorch.inferenceModel(Plus())
    assert not hasattr(wrapped, "cycleCount")
    with pytest.raises(AttributeError):
        poptorch.Options().logCycleCount(True)


# -- transfers that overlap --------------------------------------------------------------------


@pytest.mark.parametrize(("marks", "mode", "message"), [
    ("all", "Final", "Unsupported output mode"),
    ("used before", "Sum", "must be the only op"), ("used beside", "Sum", "must be the only op"),
    ("computed", "Sum", "not a tensor input"), ("returned twice", "Sum", "returned twice"),
    ("changed after", "Sum", "not a tensor output"), ("all", "Sum", None)])
def test_marks_of_overlapped_transfers(poptorch, marks, mode, message):
    overlap = poptorch.OverlapMode.OverlapAccumulationLoop

    class Marked(Weighed):
        def forward(self, x):
            raw = x
            extra = (x * 2).sum() if marks == "used before" else 0
            x = poptorch.set_overlap_for_input(x + 0 if marks == "computed" else x, overlap)
            loss = super().forward(x + extra + (raw if marks == "used beside" else 0))
            loss = poptorch.set_overlap_for_output(loss, overlap)
            if marks == "returned twice":
                return loss, loss
            return (loss * 2 if marks == "changed after" else loss,)

    options = poptorch.Options().setExecutionStrategy(poptorch.ShardedExecution())
    options.TensorLocations.numIOTiles(32)
    options.outputMode(poptorch.OutputMode[mode])
    wrapped = poptorch.trainingModel(Marked(poptorch), options)
    if message is None:
        wrapped(torch.ones(2))
    else:
        with pytest.raises(poptorch.Error, match=message):
            wrapped(torch.ones(2))


# -- optimizers --------------------------------------------------------------------------------


def updates(poptorch, optimizer, count=1, **given):
    """Return the weight after updates with a gradient of 1."""
    model = Weighed(poptorch)
    wrapped = poptorch.trainingModel(model, None, optimizer(model.parameters(), **given))
    for _ in range(count):
        wrapped(torch.ones(1))
    return float(model.state_dict()["weight"])


def test_step_of_the_optimizer_never_runs(poptorch):
    class Stepless(poptorch.optim.SGD):
        def step(self, closure=None):
            raise AssertionError("it ran")

    assert updates(poptorch, Stepless, lr=0.25) == 0.75


def test_dampening_also_on_the_first_step(poptorch):
    given = {"lr": 1.0, "momentum": 0.5, "dampening": 0.75}
    assert updates(poptorch, poptorch.optim.SGD, **given) == 0.75
    weight = nn.Parameter(torch.ones(1))  # torch leaves it out once
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], **given).step()
    assert weight.tolist() == [0]


def test_velocity_of_separate_tensors_is_scaled_like_the_loss(poptorch):
    """A larger scale is not applied to what is stored: momentum is smaller once."""
    model = Weighed(poptorch)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5, loss_scaling=1.0)
    wrapper = poptorch.trainingModel(model, optimizer=optimizer)
    wrapper(torch.ones(1))
    assert float(model.state_dict()["weight"]) == 0  # a velocity of 1
    optimizer.loss_scaling = 2.0
    wrapper.setOptimizer(optimizer)
    wrapper(torch.ones(1))
    assert float(model.state_dict()["weight"]) == -(0.5 / 2 + 1)


def test_adamw_corrects_its_bias_in_any_case(poptorch):
    given = {"lr": 0.125, "weight_decay": 0.0}
    with_it = updates(poptorch, poptorch.optim.AdamW, bias_correction=True, **given)
    assert with_it == pytest.approx(1 - 0.125)
    assert updates(poptorch, poptorch.optim.AdamW, bias_correction=False, **given) == with_it


def test_amsgrad(poptorch):
    for kind in (poptorch.optim.Adam, poptorch.optim.AdamW):
        with pytest.raises(ValueError, match="amsgrad"):
            kind(Weighed(poptorch).parameters(), lr=0.1, amsgrad=True)


def test_value_that_was_not_given_is_constant(poptorch):
    model = Weighed(poptorch)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.5)
    wrapped = poptorch.trainingModel(model, None, optimizer)
    wrapped(torch.ones(1))
    optimizer.param_groups[0]["lr"] = 0.25
    wrapped.setOptimizer(optimizer)
    wrapped(torch.ones(1))
    assert float(model.state_dict()["weight"]) == 0.25
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(poptorch.Error, match="constant"):
        wrapped.setOptimizer(optimizer)


def test_value_that_torch_has_by_default_is_constant(poptorch):
    for given, fine in ((0.0, False), (0.5, True)):
        model = Weighed(poptorch)
        optimizer = poptorch.optim.SGD(
            model.parameters(), lr=0.5, **({"weight_decay": given} if given else {}))
        wrapped = poptorch.trainingModel(model, None, optimizer)
        wrapped.compile(torch.ones(1))
        optimizer.param_groups[0]["weight_decay"] = 0.25
        if fine:
            wrapped.setOptimizer(optimizer)
        else:
            with pytest.raises(poptorch.Error, match="constant"):
                wrapped.setOptimizer(optimizer)


def test_changed_rate_must_be_sent_to_the_device(poptorch):
    model = Weighed(poptorch)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.5)
    wrapped = poptorch.trainingModel(model, None, optimizer)
    wrapped(torch.ones(1))
    optimizer.param_groups[0]["lr"] = 0.25
    with pytest.raises(AssertionError, match="without setOptimizer"):
        wrapped(torch.ones(1))


@pytest.mark.parametrize("name", ["sgd", "sgd_combined", "adam", "adamw", "rmsprop", "rmsprop_tf",
                                  "lamb"])
def test_rates_of_a_session_reach_the_device(name):
    made = session(optimizer=chosen(name, weight_decay=0.0))
    made.set_rates(0.0, 8.0)
    before = made.weights()["2.0.weight"]
    made.step(batch(2), 0)
    assert torch.equal(before, made.weights()["2.0.weight"])
    made.set_rates(0.1, 8.0)
    made.step(batch(2), 1)
    assert not torch.equal(before, made.weights()["2.0.weight"])


@pytest.mark.parametrize(("name", "given"), [
    ("sgd", {"momentum": 0.9}), ("sgd_combined", {"momentum": 0.9}),
    ("adamw", {"beta1": 0.8, "beta2": 0.99, "optimizer_eps": 1e-4}),
    ("rmsprop", {"momentum": 0.9, "rmsprop_decay": 0.9, "optimizer_eps": 1e-3}),
    ("rmsprop_tf", {"momentum": 0.9, "rmsprop_decay": 0.9, "optimizer_eps": 1e-3}),
    ("lamb", {"beta1": 0.8, "beta2": 0.99, "optimizer_eps": 1e-4})])
def test_updates_of_a_session_are_those_of_the_torch_backend(name, given):
    """Also in the second call, at another rate: RMSprop's buffer may hold the rate or not."""
    weights = []
    for backend in (PopTorchBackend(), TorchBackend()):
        made = session(backend, optimizer=chosen(name, lr=0.01, **given))
        for number, rate in enumerate((0.01, 0.002, 0.02)):
            made.set_rates(rate, 1.0)
            made.step(batch(2, number), number)
        weights.append(made.weights())
    assert_close(*weights, tolerance=1e-5)


def test_plain_state_of_torch_cannot_be_loaded(poptorch):
    weight = nn.Parameter(torch.ones(1))
    plain = torch.optim.SGD([weight], lr=0.1).state_dict()
    with pytest.raises(RuntimeError, match="Only IPU optimizer states"):
        poptorch.optim.SGD([weight], lr=0.1).load_state_dict(plain)
    made = session()
    with pytest.raises(IpucnnError, match="not of an IPU"):
        made.load(made.weights(), {"optimizer": plain})


# -- life cycle --------------------------------------------------------------------------------


def test_compiling_twice(poptorch):
    wrapped = poptorch.inferenceModel(Plus())
    wrapped.compile(torch.zeros(1))
    with pytest.warns(UserWarning, match="already compiled"):
        wrapped.compile(torch.zeros(1))


def dropping():
    model = network()
    model[1][0].p = 0.5
    return model


def test_detached_training_continues_unchanged():
    """Attaching loads weights, optimizer and random numbers, which detaching has read."""
    left, stayed = session(model=dropping()), session(model=dropping())
    for number in range(3):
        left.step(batch(2, number), number)
        stayed.step(batch(2, number), number)
        with left.detached():
            assert not left._executor.isAttachedToDevice()
    assert_close(left.weights(), stayed.weights(), 0)


def test_random_numbers_of_a_device_that_is_left_are_read(poptorch):
    made = session(model=dropping())
    executor = made._executor
    made.step(batch(2), 0)
    read = executor.rng_state
    made.step(batch(2), 1)
    executor.detachFromDevice()
    executor.attachToDevice()
    assert executor.rng_state != read


def test_detaching_twice_and_calling_what_is_gone(poptorch):
    wrapped = poptorch.inferenceModel(Plus())
    with pytest.raises(poptorch.Error, match="not been compiled"):
        wrapped.detachFromDevice()
    wrapped.compile(torch.zeros(1))
    wrapped.detachFromDevice()
    with pytest.raises(poptorch.Error, match="not attached"):
        wrapped.detachFromDevice()
    assert wrapped(torch.zeros(1)).tolist() == [1]  # a call attaches
    with pytest.raises(poptorch.Error, match="already attached"):
        wrapped.attachToDevice()


def test_model_of_an_offline_target_cannot_run(poptorch):
    options = poptorch.Options().useOfflineIpuTarget(2)
    assert options.connection_type == poptorch.ConnectionType.Never
    wrapped = poptorch.inferenceModel(Plus(), options)
    wrapped.compile(torch.zeros(1))
    with pytest.raises(AssertionError, match="offline"):
        wrapped(torch.zeros(1))
    with pytest.raises(UsageError, match="cannot be run here"):
        session(options={"offline_target_ipu_version": 2})


def test_offline_target_and_the_ipu_model(poptorch, monkeypatch):
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    options = poptorch.Options().useOfflineIpuTarget(2)
    with pytest.raises(poptorch.Error, match="not supported for the IPU model"):
        poptorch.inferenceModel(Plus(), options).compile(torch.zeros(1))
    with pytest.raises(UsageError, match="exclude each other"):
        session(options={"offline_target_ipu_version": 2}, compile_only=True)


def test_cache_and_the_ipu_model(monkeypatch, tmp_path):
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    with pytest.raises(UsageError, match="keeps no compiled models"):
        session(options={"model_cache_path": str(tmp_path / "cache")})
    assert not (tmp_path / "cache").exists()


def test_connection_and_the_ipu_model(monkeypatch):
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    with pytest.raises(UsageError, match="without IPUs to take"):
        session(options={"connection_type": "ondemand"})


def test_latency_before_a_run_and_with_synthetic_data(poptorch):
    wrapped = poptorch.inferenceModel(Plus())
    assert wrapped.getLatency() == (0, 0, 0)
    wrapped(torch.zeros(1))
    assert wrapped.getLatency()[0] > 0
    synthetic = poptorch.inferenceModel(Plus(), poptorch.Options().enableSyntheticData(True))
    synthetic(torch.zeros(1))
    assert synthetic.getLatency() == (0, 0, 0)
    made = session()
    assert made.device_latency() is None
    made.step(batch(2), 0)
    shortest, longest, mean = made.device_latency()
    assert 0 < shortest <= mean <= longest


def test_mixed_convolution_takes_its_weights_in_the_type_of_its_input(poptorch):
    assert poptorch.inferenceModel(nn.Conv2d(1, 1, 1, bias=False))(
        torch.ones(1, 1, 2, 2, dtype=torch.half)).dtype is torch.half


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 1, 1), nn.PReLU()], ids=["bias", "prelu"])
def test_mixed_operands_that_torch_refuses(poptorch, layer):
    with pytest.raises(RuntimeError, match="should be the same"):
        poptorch.inferenceModel(layer)(torch.ones(1, 1, 2, 2, dtype=torch.half))


def test_mixed_operands_of_a_session_have_the_type_of_its_images():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(4, 5))
    mixed = session(model=network, precision="16.32")
    mixed.step(batch(2), 0)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_device_that_is_no_power_of_two(poptorch, monkeypatch):
    options = poptorch.Options().replicationFactor(3)
    with pytest.raises(poptorch.Error, match="minimum of 4"):
        poptorch.inferenceModel(Plus(), options)(torch.zeros(3))
    with pytest.raises(UsageError, match="powers of two"):
        session(replicas=3)
    poptorch.inferenceModel(Plus(), poptorch.Options().replicationFactor(3).autoRoundNumIPUs())(
        torch.zeros(3))
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    session(replicas=3).step(batch(6), 0)
