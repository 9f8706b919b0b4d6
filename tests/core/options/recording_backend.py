"""A backend that computes next to nothing and records what a job gives it, for `--plugin`.

`EVENTS` has everything that a session was created and called with, in a form that is equal for
equal jobs.
"""

from __future__ import annotations

import hashlib

import torch

from ipucnn.core.execution.backend import Backend, InferenceSession, Probe
from ipucnn.core.execution.training_session import StepResult, TrainingSession
from ipucnn.core.loggers import Logger
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import FEATURES, BackendSpec, LoggerSpec, ModelSpec

EVENTS = []


def digest(value):
    """Return a short text that is equal for equal tensors."""
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous()
        content = hashlib.sha256(value.numpy().tobytes()).hexdigest()[:16]
        return f"{value.dtype} {tuple(value.shape)} {content}"
    if isinstance(value, dict):
        return {name: digest(item) for name, item in value.items()}
    return repr(value)


def network(model):
    """Return the parts of a model that a backend sees."""
    return (repr(model), digest(dict(model.state_dict())),
            [name for name, weight in model.named_parameters() if weight.requires_grad])


def recorded_feed(_, request):
    """Record the request for a loader; the job then loads the images itself."""
    EVENTS.append(("feed", request.batch_size, {
        name: value for name, value in request.how.items() if name != "transform"}))


class RecordingLogger(Logger):
    """Records the checkpoints that are written."""

    def start(self, run):
        pass

    def row(self, row):
        pass

    def checkpoint(self, path, epoch, update):
        EVENTS.append(("checkpoint", path.name, epoch, update))


class RecordedInference(InferenceSession):
    """Answers with a function of each image."""

    def __init__(self, model, plan, input_size):
        EVENTS.append(("inference", network(model), repr(plan), input_size))
        self._plan, self.samples_per_call, self.facts = plan, plan.local_batch, {}
        outputs = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        self._classes = outputs[-1].out_features

    feed = recorded_feed

    def compile(self):
        return 0.0

    def __call__(self, images):
        EVENTS.append(("classify", digest(images)))
        if images is None:
            return torch.zeros(self._plan.local_batch, self._classes)
        places = torch.arange(self._classes) + 1.0
        return torch.sin(images.float().mean((1, 2, 3))[:, None] * places)


class RecordedTraining(TrainingSession):
    """Calls the loss and the optimizer on a few numbers instead of a model's."""

    def __init__(self, model, plan, setup, input_size):
        EVENTS.append(("training", network(model), repr(plan), input_size, repr(setup.mix),
                       setup.loss_scaling, setup.ema_decay, setup.tolerate_non_finite,
                       setup.metrics, setup.optimizer.weight_decay,
                       sorted(getattr(setup, "rate_factors", {}).items()),
                       getattr(setup, "head", "")))
        self._plan, self._setup, self.facts = plan, setup, {}
        self._weights = {name: value.clone() for name, value in model.state_dict().items()}
        outputs = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        self._classes = outputs[-1].out_features
        self._weight = torch.nn.Parameter(torch.linspace(-0.5, 0.5, 4))
        self._optimizer = setup.optimizer.build([{"params": [self._weight]}],
                                                lr=setup.optimizer.lr)

    feed = recorded_feed

    def compile(self):
        return 0.0

    def set_rates(self, lr, loss_scaling):
        EVENTS.append(("rates", lr, loss_scaling))
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def step(self, batch, update):
        EVENTS.append(("step", digest(batch.images), digest(batch.labels), repr(batch.mixing)))
        loss = 1.0
        if batch.labels is not None:
            logits = torch.sin(torch.arange(len(batch.labels) * self._classes, dtype=torch.float32)
                               ).view(len(batch.labels), -1)
            loss = float(self._setup.loss(logits, batch.labels, batch.mixing,
                                          self._plan.micro_batch))
        self._weight.grad = torch.cos(torch.arange(4.0) * (update + 1))
        self._optimizer.step()
        EVENTS.append(("update", loss, digest(self._weight)))
        return StepResult(loss, self._plan.local_batch)

    def weights(self, ema=False):
        scale = self._setup.ema_decay if ema else 1.0
        return {name: value * scale + float(self._weight[0].detach())
                if value.is_floating_point() else value for name, value in self._weights.items()}

    def state(self):
        return {"updates": 1}

    def load(self, weights, state, ema=None):
        self._weights = weights


class RecordingBackend(Backend):
    """Usable everywhere."""

    def probe(self):
        return Probe(usable=True, device="none")

    def inference(self, model, plan, input_size):
        return RecordedInference(model, plan, input_size)

    def quantised(self, model, plan, input_size, calibration):
        EVENTS.append(("calibration", [digest(batch) for batch in calibration.batches(8)]
                       if hasattr(calibration, "batches") else repr(calibration)))
        return RecordedInference(model, plan, input_size)

    def training(self, model, plan, setup, input_size):
        return RecordedTraining(model, plan, setup, input_size)


def small(num_classes):
    """Return a convolution with batch norm, another, and a classifier."""
    from torch import nn

    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        nn.Sequential(nn.Conv2d(32, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes)))


@hookimpl
def ipucnn_backends():
    return [BackendSpec(name="recording", summary="records", target=RecordingBackend,
                        training=True, precisions=("16.16", "16.32", "32.32", "int8"),
                        features=tuple(sorted(FEATURES)))]


@hookimpl
def ipucnn_loggers():
    return [LoggerSpec(name="recorder", summary="records checkpoints", target=RecordingLogger)]


@hookimpl
def ipucnn_models():
    return [ModelSpec(name="small", summary="two convolutions", target=small, family="small",
                      input_size=16, source="the tests")]
