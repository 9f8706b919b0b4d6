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


@dataclass(frozen=True)
class WingOptions:
    """Options of `swift`."""

    wings: Optional[int] = ipucnn.option(None, "Number of wings.", minimum=1)


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


class Weather:
    """What slows down all other calls, as other programs on the machine do."""

    storm = False


class Flying(Session):
    """Takes three times as long in a storm, which a session can end or begin."""

    def __init__(self, plan, seconds, *, calms=False, brews=False):
        super().__init__(plan, seconds)
        self._calm, self._calms, self._brews = seconds, calms, brews

    def compile(self):
        if self._calms:
            Weather.storm = False
        return 0.0

    @property
    def seconds(self):
        """How long a call takes now."""
        return self._calm * (3 if Weather.storm else 1)

    def __call__(self, images):
        self._seconds = self.seconds
        return super().__call__(images)

    def close(self):
        if self._brews:
            Weather.storm = True


class Eagle(Tortoise):
    """Takes 5 ms, and is measured in a storm."""

    def inference(self, model, plan, input_size):
        Weather.storm = True
        return Flying(plan, 0.005)


class Stork(Tortoise):
    """Takes 8 ms, and is measured after the storm."""

    def inference(self, model, plan, input_size):
        return Flying(plan, 0.008, calms=True)


class Swift(Tortoise):
    """Takes 8 ms with one wing, and up to 9 ms with others; the storm begins after the fourth."""

    def __init__(self, options=None):
        self.options = options or WingOptions()

    def variants(self, plan):
        return [{"wings": 4}, {"wings": 3}, {"wings": 2}, {"wings": 1}]

    def inference(self, model, plan, input_size):
        Weather.storm = False
        wings = self.options.wings or 1
        return Flying(plan, {1: 0.008, 2: 0.0083, 3: 0.0083, 4: 0.009}[wings], brews=wings == 4)


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
        ipucnn.BackendSpec(name="eagle", summary="fast", target=Eagle, preference=9,
                           precisions=both),
        ipucnn.BackendSpec(name="stork", summary="slower", target=Stork, preference=5,
                           precisions=both),
        ipucnn.BackendSpec(name="swift", summary="fast", target=Swift, options=WingOptions,
                           precisions=both),
        ipucnn.BackendSpec(name="mole", summary="broken", target=Mole, preference=1),
        ipucnn.BackendSpec(name="shrew", summary="wrong", target=Shrew),
        ipucnn.BackendSpec(name="wreck", summary="sunk", target=Wreck, preference=99,
                           precisions=("int8", *both))]
