"""The backend; imported when it is probed or used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Optional

import torch
from ipucnn.plugin import Backend, ExecutionPlan, InferenceSession, Probe, normalise

if TYPE_CHECKING:
    from ipucnn_frozen_backend.options import BackendOptions


class FrozenBackendBackend(Backend):
    """Plain eager torch on the CPU, in single precision."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options

    def probe(self) -> Probe:
        """Return whether the device can be used; never raises."""
        return Probe(usable=True, device="CPU", versions={"torch": torch.__version__})

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Return a session; plans that the record does not offer were refused before."""
        return FrozenBackendSession(model, plan, input_size, self._options)


class FrozenBackendSession(InferenceSession):
    """Classifies one micro-batch after another."""

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                 options: BackendOptions) -> None:
        self._last = options.frozen_backend_channels_last
        layout = torch.channels_last if self._last else torch.contiguous_format
        self._model = model.float().eval().to(memory_format=layout)  # type: ignore[call-overload]
        self._plan, self._size = plan, input_size
        self.samples_per_call = plan.combined_batch
        self.facts: Dict[str, Any] = {"arithmetic": "float32, eager"}

    def compile(self) -> float:
        """Warm up, and return the seconds it took."""
        start = time.perf_counter()
        self._classify(torch.zeros(self._plan.micro_batch, 3, self._size, self._size))
        return time.perf_counter() - start

    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Return the logits of up to a combined batch of images, float32 on the host."""
        if images is None:  # synthetic data: made on the device
            images = torch.zeros(self.samples_per_call, 3, self._size, self._size)
        return torch.cat([self._classify(part) for part in images.split(self._plan.micro_batch)])

    def _classify(self, images: torch.Tensor) -> torch.Tensor:
        if self._plan.normalisation == "device":
            images = normalise(images, preprocessing=self._plan.preprocessing)
        images = images.float()
        if self._last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            logits: torch.Tensor = self._model(images)
        return logits
