"""Backends whose calls take a known time, for tests of measurements."""

import time
from dataclasses import dataclass
from typing import Optional

import ipucnn
from ipucnn.plugin import Backend, InferenceSession, Probe

CLASSES = 5


@dataclass(frozen=True)
class LaneOptions:
    """Options of `hare`."""

    lanes: Optional[int] = ipucnn.option(None, "Number of lanes.", minimum=1)


class Session(InferenceSession):
    """Sleeps for each call."""

    def __init__(self, plan, seconds):
        self.samples_per_call, self.facts, self._seconds = plan.micro_batch, {}, seconds

    def compile(self):
        return 0.0

    def __call__(self, images):
        import torch

        time.sleep(self._seconds)
        assert images.dtype == torch.uint8
        return torch.zeros(len(images), CLASSES)


class Tortoise(Backend):
    """Takes 30 ms."""

    def probe(self):
        return Probe(usable=True, device="sand", versions={"tortoise": "1"})

    def inference(self, model, plan, input_size):
        return Session(plan, 0.03)


class Hare(Tortoise):
    """Takes 8 ms in one lane, and 1 ms in several."""

    def __init__(self, options=None):
        self.options = options or LaneOptions()

    def variants(self, plan):
        return [{"lanes": 1}, {"lanes": 2}]

    def inference(self, model, plan, input_size):
        return Session(plan, 0.008 if self.options.lanes in (None, 1) else 0.001)


class Mole(Tortoise):
    """Fails when it is called."""

    def inference(self, model, plan, input_size):
        raise RuntimeError("the mole is underground\nand stays there")


class Shrew(Tortoise):
    """Wants to vary an option that it does not have."""

    def variants(self, plan):
        return [{"holes": 2}]


class Wreck(Tortoise):
    """Has an engine that is installed, and fails."""

    def __init__(self):
        raise RuntimeError("the wreck has sunk")


@ipucnn.hookimpl
def ipucnn_backends():
    """Return the records."""
    both = ("16.16", "32.32")
    return [
        ipucnn.BackendSpec(name="tortoise", summary="slow", target=Tortoise, preference=9,
                           precisions=both, features=("batch-size-auto", "compile-only")),
        ipucnn.BackendSpec(name="hare", summary="fast", target=Hare, preference=5,
                           options=LaneOptions, precisions=both, features=("batch-size-auto",)),
        ipucnn.BackendSpec(name="mole", summary="broken", target=Mole, preference=1),
        ipucnn.BackendSpec(name="shrew", summary="wrong", target=Shrew),
        ipucnn.BackendSpec(name="wreck", summary="sunk", target=Wreck, preference=99,
                           precisions=("int8", *both))]
