"""The backend; imported when it is probed or used."""

import time

import torch

from ipucnn.core.execution.backend import Backend, InferenceSession, Probe
from ipucnn.data.normalisation import normalise


class Reference(Backend):
    """Plain eager torch on the CPU: slow, simple, and right.

    Args:
        options: the arithmetic (`options.ReferenceOptions`).
    """

    def __init__(self, options):
        self._options = options

    def probe(self):
        """Say that it can be used: torch always has a CPU."""
        return Probe(usable=True, device="CPU", versions={"torch": torch.__version__})

    def inference(self, model, plan, input_size):
        """Return a session; the record's `precisions` make sure that the plan's is 32.32."""
        return ReferenceSession(model, plan, input_size, self._options.reference_arithmetic)


class ReferenceSession(InferenceSession):
    """Runs one micro-batch after the other.

    Args:
        model: the network.
        plan: what to execute.
        input_size: height and width of the images.
        arithmetic: `float32` or `float64`.
    """

    def __init__(self, model, plan, input_size, arithmetic):
        self.samples_per_call = plan.combined_batch
        self.facts = {"arithmetic": f"{arithmetic}, eager"}
        self._type = getattr(torch, arithmetic)
        self._model, self._plan, self._size = model.to(self._type).eval(), plan, input_size

    def compile(self):
        """Warm up, and return the seconds that took."""
        start = time.perf_counter()
        self._classify(torch.zeros(self._plan.micro_batch, 3, self._size, self._size))
        return time.perf_counter() - start

    def __call__(self, images):
        """Return the logits of `images`, `(n, classes)`; of a whole batch when it is None."""
        if images is None:  # synthetic data: made on the device, which here is the host
            images = torch.zeros(self.samples_per_call, 3, self._size, self._size)
        parts = [self._classify(part) for part in images.split(self._plan.micro_batch)]
        return torch.cat(parts)

    def _classify(self, images):
        with torch.no_grad():
            # On the host the loader has normalised already; 'none' feeds 0..255 as they are.
            if self._plan.normalisation == "device":
                images = normalise(images)
            return self._model(images.to(self._type)).float()
