"""The inference session of a process that holds one pipeline stage."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Tuple

import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.errors import device_errors
from ipucnn.plugins.backends.torch.inference import TorchInferenceSession
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.pipeline import Pipeline, StageModule, cut, tried
from ipucnn.plugins.backends.torch.stage_processes import StageProcesses


class PipelineInferenceSession(TorchInferenceSession):
    """Computes one stage; other processes compute the other stages.

    The process of the first stage is called with images, D x R micro-batches at a time, and
    receives the outputs of the last one. The others compute within `finish` until the first one
    calls it.
    """

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                 device: Device, options: TorchOptions) -> None:
        self._line = StageProcesses(plan, device)
        self._gets_images = self._line.is_first
        super().__init__(model, plan, input_size, device, options)
        self.in_flight = 1
        local = plan.local()
        self._count = local.device_iterations * local.replicas
        self.samples_per_call = self._count * plan.micro_batch
        self.facts["stage_processes"] = self._line.stages

    def _in_calls(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  device: Device) -> ExecutionPlan:
        del model, input_size, device
        if self._options.images_per_call:
            raise UsageError("'--images-per-call' cannot be used with pipeline stages in several "
                             "processes, which compute whole micro-batches", "leave it out")
        return plan

    def _placed(self, model: torch.nn.Module) -> torch.nn.Module:
        return model

    def _own(self, model: torch.nn.Module, splits: List[str]) -> torch.nn.Module:
        self._splits = splits
        return cut(self._line, model, splits).stage(self._line.stage)

    def compile(self) -> float:
        """Call every stage once, and then all together."""
        started = time.perf_counter()
        line, place = self._line, self._device.place
        stage = StageModule(self._model, line.is_last)  # type: ignore[arg-type]

        def call(inputs: Tuple[torch.Tensor, ...]) -> Any:
            with device_errors(self._plan.micro_batch), torch.no_grad():
                return stage(*inputs)

        images = self._fitting(self._example()) if line.is_first else None
        tensors = tried(line, self._splits, images, call, place)
        self._pipeline = Pipeline(line, stage, stage, tensors, self._count)
        with line.connected():
            self._passed(None if images is None else torch.cat([images] * self._count))
        self._wait()
        return time.perf_counter() - started

    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify up to D x R micro-batches; see `InferenceSession.__call__`."""
        if images is None:
            if self._synthetic is None:
                raise ValueError("this session's plan is not synthetic: it needs images")
            images = torch.cat([self._synthetic] * self._count)
        count = images.shape[0]
        images = self._fitting(images.to(self._device.place, non_blocking=True))
        if count < self.samples_per_call:
            images = torch.cat([images, images.new_zeros(
                (self.samples_per_call - count, *images.shape[1:]))])
        line = self._line
        with line.connected():
            for stage in range(1, line.stages):
                line.send(True, stage)
            self._passed(images)
            logits: torch.Tensor = line.receive(line.stages - 1)
        return logits[:count]

    def finish(self) -> None:
        """End a pass over images, or compute this stage until then."""
        line = self._line
        with line.connected():
            if line.is_first:
                for stage in range(1, line.stages):
                    line.send(False, stage)
                return
            with _without_interrupts():  # the first process ends the pass
                while line.receive(0):
                    logits = self._passed(None)
                    if line.is_last:
                        line.send(logits.float().cpu(), 0)

    def close(self) -> None:
        """Release the model and its device memory."""
        self._pipeline = None  # type: ignore[assignment]
        super().close()

    def _passed(self, images: Optional[torch.Tensor]) -> Any:
        with device_errors(self._plan.micro_batch), torch.no_grad():
            return self._pipeline(images)

    def _fitting(self, images: torch.Tensor) -> torch.Tensor:
        return images if self._plan.normalisation == "device" else images.to(self._type)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, which a terminal sends to all processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
