"""The inference session: one compiled program that takes the whole combined batch."""

from __future__ import annotations

import time
from typing import Any, Dict, Optional, Tuple

import poptorch
import torch

from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.models.surgery import normalise_on_device
from ipucnn.plugins.backends._ipu.batches import full_batch
from ipucnn.plugins.backends._ipu.settings import PROFILE_FOLDER
from ipucnn.plugins.backends.poptorch.errors import device_errors, release
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.poptorch.programs import (
    InferenceProgram,
    constants_of,
    in_precision,
    place_stages,
)
from ipucnn.plugins.backends.poptorch.settings import inference_options
from ipucnn.plugins.backends.poptorch.worker_processes import FedByProcesses


class PopTorchInferenceSession(FedByProcesses, InferenceSession):
    """Calls take the local batch, B x D x R, which the program always runs in full."""

    reloadable = True

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                 options: PopTorchOptions) -> None:
        self.samples_per_call = plan.local_batch
        self._plan = plan
        self._options = options
        self._shape = (plan.local_batch, 3, input_size, input_size)
        self._type = torch.float16 if plan.half else torch.float32
        self._ran = False
        model = model.eval()
        constants = constants_of(model, plan, options)
        splits = place_stages(model, plan, input_size)
        name = str(self._type).replace("torch.", "")
        self.facts: Dict[str, Any] = {"weights_type": name, "arithmetic": name,
                                      "ipus": plan.devices}
        if splits:
            self.facts["stages_begin_at"] = ["input", *splits]
        if options.profile:
            self.facts["profile"] = PROFILE_FOLDER
        self._program = InferenceProgram(self._made_ready(model), self._type,
                                         overlap=bool(options.num_io_tiles))
        with device_errors("be prepared", plan):
            self._executor = poptorch.inferenceModel(self._program.eval(),
                                                     inference_options(plan, options, constants))
        # PopTorch requires inputs even if the device generates its own; it reads only their shape
        self._synthetic = self._example() if plan.synthetic else None

    def compile(self) -> float:
        """Compile for the IPUs, or take the program from the cache, and load it."""
        started = time.perf_counter()
        with device_errors("be compiled", self._plan):
            self._executor.compile(self._example())
        return time.perf_counter() - started

    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify up to a combined batch; see `InferenceSession.__call__`."""
        if images is None:
            if self._synthetic is None:
                raise ValueError("this session's plan is not synthetic: it needs images")
            return self._run(self._synthetic)
        # a compiled program has one shape: pad the last short batch, cut its logits
        batch = full_batch(images, self.samples_per_call, self._input_type)
        return self._run(batch)[:len(images)]

    def load(self, weights: Dict[str, torch.Tensor]) -> None:
        """Load other weights into the compiled program; see `InferenceSession.load`."""
        with device_errors("take other weights", self._plan):
            self._program.model.load_state_dict(weights)
            if self._executor.isAttachedToDevice():
                self._executor.copyWeightsToDevice()

    def pause(self) -> None:
        """Detach from the IPUs; the next call attaches again and copies the weights."""
        with device_errors("leave the IPUs", self._plan):
            if self._executor.isAttachedToDevice():
                self._executor.detachFromDevice()

    def device_latency(self) -> Optional[Tuple[float, float, float]]:
        """Return the round trip of the last call's device iterations; None for synthetic data."""
        if self._plan.synthetic or not self._ran:
            return None
        shortest, longest, mean = self._executor.getLatency()
        return (shortest, longest, mean) if longest > 0 else None

    def close(self) -> None:
        """Release the IPUs and the program, and end the worker processes."""
        self.stop_loading()
        release(self._executor)

    @property
    def _input_type(self) -> torch.dtype:
        return torch.uint8 if self._plan.eight_bit_io else self._type

    def _example(self) -> torch.Tensor:
        return torch.zeros(self._shape, dtype=self._input_type)

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        with device_errors("run", self._plan):
            logits: torch.Tensor = self._executor(batch)
        self._ran = True
        return logits.float()

    def _made_ready(self, model: torch.nn.Module) -> torch.nn.Module:
        plan = self._plan
        model = in_precision(model, plan, self._type)
        if plan.normalisation == "device":
            normalise_on_device(model, arithmetic=self._type,
                                preprocessing=plan.preprocessing)
        return model
