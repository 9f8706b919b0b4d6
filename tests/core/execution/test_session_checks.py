"""What sessions of third-party backends return is checked, and errors name the plugin."""

from __future__ import annotations

import json
import math
import textwrap

import numpy
import pytest
import torch

from ipucnn.core.errors import PluginError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.session_checks import (
    checked_weights,
    compiled,
    logits_of,
    opened,
    result_of_step,
)
from ipucnn.core.execution.training_session import NonFiniteLoss, StepResult

WHO = "backend 'mine' of ipucnn-mine 1.0"
GOOD = torch.zeros(2, 3)


class Session(InferenceSession):
    """A session whose attributes a test sets."""

    samples_per_call = 2

    def __init__(self, seconds=0.5, **values):
        self.facts = {}
        vars(self).update(values, seconds=seconds)

    def compile(self):
        return self.seconds

    def __call__(self, images):
        return GOOD


@pytest.mark.parametrize("found", [GOOD, GOOD.double(), GOOD.half(), GOOD.numpy()])
def test_logits_are_arrays_and_tensors_of_the_host(found):
    assert logits_of(lambda: found, 2, 3, WHO) is found


@pytest.mark.parametrize(("found", "shown"), [
    (None, "None"), (GOOD.tolist(), "an object of type 'list'"),
    ((GOOD,), "an object of type 'tuple'"),
    (GOOD[:1], "a tensor of torch.float32 (1, 3)"),
    (GOOD[:, :2], "a tensor of torch.float32 (2, 2)"),
    (GOOD.flatten(), "a tensor of torch.float32 (6,)"), (GOOD.long(), "a tensor of torch.int64"),
    (GOOD.bfloat16(), "a tensor of torch.bfloat16"), (GOOD.to("meta"), "(2, 3) on meta"),
    (GOOD.clone().requires_grad_(), "without a gradient"),
])
def test_other_logits_are_an_error_of_the_plugin(found, shown):
    with pytest.raises(PluginError) as raised:
        logits_of(lambda: found, 2, 3, WHO)
    assert raised.value.message.startswith(f"the session of {WHO} returned ")
    assert shown in raised.value.message
    assert logits_of(lambda: found, 2, 3, "") is found  # a built-in one


def test_started_calls_are_functions():
    with pytest.raises(PluginError, match=f"'start' of the session of {WHO} returned a tensor"):
        logits_of(GOOD, 2, 3, WHO)


@pytest.mark.parametrize(("session", "message"), [
    (Session(None), "'compile' of the session of .* returned None"),
    (Session(samples_per_call=0), "'samples_per_call' of the session of .* is 0"),
    (Session(samples_per_call=None), "'samples_per_call' .* is None"),
    (Session(in_flight=1.5), "'in_flight' .* is 1.5"), (Session(facts=None), "'facts' .* is None"),
    (Session(notes="one"), "'notes' .* is 'one'"),
])
def test_compiled_sessions_have_their_attributes(session, message):
    with pytest.raises(PluginError, match=message):
        compiled(session, WHO)
    assert compiled(session, "") == session.seconds


def test_a_backend_returns_a_session():
    with pytest.raises(PluginError, match=f"^{WHO} returned None, expected an object of type"):
        opened(None, InferenceSession, WHO)


@pytest.mark.parametrize(("result", "message"), [
    (None, "'step' of the session of .* returned None"), (0.5, "returned 0.5 of type 'float'"),
    (StepResult(torch.tensor(0.5), 4), "'loss' .* is a tensor"),
    (StepResult(0.5, None), "'samples' .* is None"),
    (StepResult(0.5, 4, torch.tensor(1)), "'correct' .* is a tensor"),
    (StepResult(0.5, 4, 1, (), None), "'skipped' .* is None"),
])
def test_a_step_returns_numbers(result, message):
    with pytest.raises(PluginError, match=message):
        result_of_step(result, 3, WHO)


def test_numbers_of_numpy_become_built_in_ones():
    found = result_of_step(StepResult(numpy.float32(0.5), numpy.int64(4), numpy.int64(1)), 3, WHO)
    assert json.loads(json.dumps([found.loss, found.samples, found.correct])) == [0.5, 4, 1]


def test_a_loss_that_is_not_finite_ends_a_training():
    with pytest.raises(NonFiniteLoss) as raised:
        result_of_step(StepResult(math.nan, 4), 3, WHO)
    assert raised.value.update == 3


@pytest.mark.parametrize(("weights", "message"), [
    (None, "'weights' of the session of .* returned None"), ({}, "lack 'w'"),
    ({"model.w": GOOD}, "lack 'w'"), ({"w": GOOD, "v": GOOD}, "'v' .* is not one of the model"),
    ({"w": GOOD.flatten()}, r"'w' .* expected a tensor of shape \(2, 3\)"),
    ({"w": GOOD.numpy()}, "'w' .* expected a tensor"), ({"w": GOOD.half()}, "expected float32"),
])
def test_weights_are_those_of_the_model(weights, message):
    with pytest.raises(PluginError, match=message):
        checked_weights(weights, {"w": (2, 3)}, WHO)
    assert checked_weights({"w": GOOD}, {"w": (2, 3)}, WHO) == {"w": GOOD}


PLUGIN = """
    import ipucnn

    def build():
        from ipucnn.plugins.backends.torch.engine import TorchBackend
        from ipucnn.plugins.backends.torch.inference import TorchInferenceSession

        class Mine(TorchBackend):
            def inference(self, *arguments):
                made = super().inference(*arguments)
                made.start = lambda images: lambda: None
                return made

            def training(self, *arguments):
                made = super().training(*arguments)
                made.step = lambda batch, update: None
                return made

        return Mine()

    def bare():
        from ipucnn.plugin import Backend, Probe

        class Bare(Backend):
            def probe(self):
                return Probe(usable=True, device="none")

        return Bare()

    @ipucnn.hookimpl
    def ipucnn_backends():
        return [ipucnn.BackendSpec(name=name, summary="s", target=target, training=True)
                for name, target in (("mine", build), ("bare", bare))]
"""
SMALL = ("--model", "resnet8-cifar", "--data", "shapes", "--batch-size", "4", "--iterations", "1",
         "--precision", "full")


@pytest.mark.parametrize(("backend", "words", "message"), [
    ("mine", ("run", "--weights", "random"), "the session of backend 'mine' of mine returned None"),
    ("mine", ("train", "--epoch", "1", "--no-checkpoints", "--no-report"),
     "'step' of the session of backend 'mine' of mine returned None"),
    ("bare", ("run", "--weights", "random"), "backend 'bare' of mine does not implement"),
    ("bare", ("train", "--epoch", "1", "--no-checkpoints", "--no-report"),
     "backend 'bare' of mine does not implement 'training'"),
])
def test_errors_are_one_line_and_name_the_plugin(cli, tmp_path, monkeypatch, backend, words,
                                                 message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(textwrap.dedent(PLUGIN))
    done = cli("--plugin", tmp_path / "mine.py", *words, "--backend", backend, *SMALL)
    assert (done.code, "Traceback" in done.err) == (2, False), done.err
    error, = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert message in error


def test_predictions_of_python_are_checked_too(tmp_path, isolated_registry):
    import ipucnn

    (tmp_path / "mine.py").write_text(textwrap.dedent(PLUGIN))
    isolated_registry(tmp_path / "mine.py")
    model = ipucnn.load("resnet8-cifar", backend="mine", weights="random", precision="full")
    with model, pytest.raises(PluginError, match="the session of backend 'mine' of mine returned"):
        model.predict(numpy.zeros((32, 32, 3), numpy.uint8))
