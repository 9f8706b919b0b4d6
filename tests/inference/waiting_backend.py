"""A backend whose compilation ends when an image has been read."""

import os
import time
from pathlib import Path

import numpy

import ipucnn
from ipucnn.plugin import Backend, InferenceSession, Probe

SEEN = "TEST_IMAGE_IS_READ"
"""The variable with the name of the file that appears when an image is read."""

PATIENCE = 20.0


class Session(InferenceSession):
    """Returns zeros."""

    takes_arrays = True

    def __init__(self, plan):
        self.samples_per_call, self.facts = plan.micro_batch, {}

    def compile(self):
        begin = time.monotonic()
        while not Path(os.environ[SEEN]).exists():
            if time.monotonic() - begin > PATIENCE:
                raise RuntimeError("no image was read")
            time.sleep(0.01)
        if os.environ[SEEN].endswith("fails"):
            raise ipucnn.IpucnnError("the compiler failed")
        return 0.0

    def __call__(self, images):
        return numpy.zeros((len(images), 5), numpy.float32)


class Waiting(Backend):
    """Executes everything."""

    def probe(self):
        return Probe(usable=True, device="test", versions={})

    def inference(self, model, plan, input_size):
        return Session(plan)


@ipucnn.hookimpl
def ipucnn_backends():
    """Return the record."""
    return [ipucnn.BackendSpec(name="waiting", summary="waits", target=Waiting,
                               precisions=("32.32",))]
