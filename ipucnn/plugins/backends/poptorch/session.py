"""An inference session: one compiled program that takes the whole combined batch."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Tuple

import poptorch
import torch  # noqa: TID253

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution import ExecutionPlan, InferenceSession
from ipucnn.core.surgery import full_precision_norms, normalise_on_device, resolve_splits
from ipucnn.plugins.backends.poptorch.settings import PROFILE_FOLDER, inference_options

log = logging.getLogger("ipucnn.poptorch")


class PopTorchInferenceSession(InferenceSession):
    """Calls take the combined batch, B x D x R: the program runs that many samples each time."""

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int) -> None:
        self.samples_per_call = plan.combined_batch
        self._plan = plan
        self._shape = (plan.combined_batch, 3, input_size, input_size)
        self._type = torch.float16 if plan.half else torch.float32
        self._ran = False
        model = model.eval()
        splits = resolve_splits(model, plan.pipeline_splits, input_size)
        for stage, split in enumerate(splits, start=1):
            poptorch.BeginBlock(model.get_submodule(split.replace("/", ".")), user_id=split,
                                ipu_id=stage)
        name = str(self._type).replace("torch.", "")
        self.facts: Dict[str, Any] = {"weights_type": name, "arithmetic": name,
                                      "ipus": plan.devices}
        if splits:
            self.facts["stages_begin_at"] = ["input", *splits]
        if plan.option("profile"):
            self.facts["profile"] = PROFILE_FOLDER
        self._program = _Program(self._made_ready(model), self._type,
                                 overlap=bool(plan.option("num_io_tiles", 0)))
        self._executor = poptorch.inferenceModel(self._program.eval(), inference_options(plan))
        # PopTorch wants inputs also when the device makes its own; it reads only their shape
        self._synthetic = self._example() if plan.synthetic else None

    def compile(self) -> float:
        """Compile for the IPUs, or take the program from the cache, and load it."""
        started = time.perf_counter()
        with self._device_errors("be compiled"):
            self._executor.compile(self._example())
        return time.perf_counter() - started

    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify up to a combined batch; see `InferenceSession.__call__`."""
        if images is None:
            if self._synthetic is None:
                raise ValueError("this session's plan is not synthetic: it needs images")
            return self._run(self._synthetic)
        count = images.shape[0]
        if count > self.samples_per_call:
            raise ValueError(f"{count} images for a program of {self.samples_per_call}")
        batch = images.to(self._input_type).contiguous()
        if count < self.samples_per_call:
            # a compiled program has one shape: pad the last short batch, cut its logits
            padding = batch.new_zeros((self.samples_per_call - count, *batch.shape[1:]))
            batch = torch.cat([batch, padding])
        return self._run(batch)[:count]

    def device_latency(self) -> Optional[Tuple[float, float, float]]:
        """Return the round trip of the last call's device iterations; none for synthetic data."""
        if self._plan.synthetic or not self._ran:
            return None
        shortest, longest, mean = self._executor.getLatency()
        return (shortest, longest, mean) if longest > 0 else None

    def close(self) -> None:
        """Release the IPUs and the program."""
        try:
            self._executor.destroy()
        except poptorch.Error as error:
            # what broke the device was already reported by the call that met it
            log.debug("the program could not be released: %s", error)

    @property
    def _input_type(self) -> torch.dtype:
        return torch.uint8 if self._plan.eight_bit_io else self._type

    def _example(self) -> torch.Tensor:
        return torch.zeros(self._shape, dtype=self._input_type)

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        with self._device_errors("run"):
            logits: torch.Tensor = self._executor(batch)
        self._ran = True
        return logits.float()

    def _made_ready(self, model: torch.nn.Module) -> torch.nn.Module:
        plan = self._plan
        model = model.to(self._type)
        if plan.half and plan.full_precision_norm:
            full_precision_norms(model)
        if plan.normalisation == "device":
            normalise_on_device(model, arithmetic=self._type)
        return model

    @contextmanager
    def _device_errors(self, doing: str) -> Iterator[None]:
        """Turn what PopTorch raises into one line with what to try."""
        try:
            yield
        except poptorch.Error as error:
            message = str(getattr(error, "message", "") or error).strip()
            line = message.splitlines()[0] if message else type(error).__name__
            raise IpucnnError(f"the model cannot {doing} on the IPU: {line}",
                              _what_to_try(error, message, self._plan)) from error


class _Program(torch.nn.Module):
    """What runs on the device: the model between the marks for overlapped transfers."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, overlap: bool) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.overlap = overlap

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.overlap:  # the mark must be the first thing that an input meets
            images = poptorch.set_overlap_for_input(
                images, poptorch.OverlapMode.OverlapDeviceIterationLoop)
        logits: torch.Tensor = self.model(images.to(self.dtype))
        if self.overlap:
            logits = poptorch.set_overlap_for_output(
                logits, poptorch.OverlapMode.OverlapDeviceIterationLoop)
        return logits


def _what_to_try(error: Exception, message: str, plan: ExecutionPlan) -> str:
    told = f"{getattr(error, 'type', '')} {message}".lower()
    if "out of memory" in told or "memory_allocation" in told:
        return (f"try a smaller '--batch-size' than {plan.micro_batch}, more pipeline splits, a "
                "lower '--available-memory-proportion', '--half-partial', or '--precision half'")
    if "failed to acquire" in told:
        return ("'gc-monitor' shows who uses the IPUs; with POPTORCH_WAIT_FOR_IPU=1 the run waits "
                "for them")
    if isinstance(error, poptorch.RecoverableError):
        action = getattr(error, "recovery_action", "")
        return f"the IPUs need a reset ({action}): see 'gc-reset', then run again"
    if isinstance(error, poptorch.UnrecoverableError):
        return "the IPU hardware failed: 'gc-monitor' and the system's log say more"
    return "POPTORCH_LOG_LEVEL=INFO shows what led to it"
