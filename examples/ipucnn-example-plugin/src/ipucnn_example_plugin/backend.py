"""The backend; imported when it is probed or used."""

import time

import torch

from ipucnn.plugin import Backend, InferenceSession, Probe, normalise


class Reference(Backend):
    """Eager torch on the CPU, as a simple reference.

    Args:
        options: the arithmetic (`options.ReferenceOptions`).
    """

    def __init__(self, options):
        self._options = options

    def probe(self):
        """Return that the backend is usable, because torch always supports the CPU."""
        return Probe(usable=True, device="CPU", versions={"torch": torch.__version__})

    def inference(self, model, plan, input_size):
        """Return a session. Its precision is 32.32, the only one in the record's `precisions`."""
        return ReferenceSession(model, plan, input_size, self._options.reference_arithmetic)


class ReferenceSession(InferenceSession):
    """Runs the micro-batches of a call one after the other.

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
        """Warm up, and return the duration in seconds."""
        start = time.perf_counter()
        self._classify(torch.zeros(self._plan.micro_batch, 3, self._size, self._size))
        return time.perf_counter() - start

    def __call__(self, images):
        """Return the logits of `images`, `(n, classes)`; None stands for a full synthetic batch."""
        if images is None:  # synthetic data is generated on the device, here the CPU
            images = torch.zeros(self.samples_per_call, 3, self._size, self._size)
        parts = [self._classify(part) for part in images.split(self._plan.micro_batch)]
        return torch.cat(parts)

    def _classify(self, images):
        with torch.no_grad():
            # with 'host', the loader has normalised the images; with 'none', the model takes 0..255
            if self._plan.normalisation == "device":
                images = normalise(images, preprocessing=self._plan.preprocessing)
            return self._model(images.to(self._type)).float()
