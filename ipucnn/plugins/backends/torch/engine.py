"""The backend itself: what it finds here, and which plans it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Tuple

import torch  # noqa: TID253

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import Backend, ExecutionPlan, InferenceSession, Probe
from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
from ipucnn.plugins.backends.torch import compiler
from ipucnn.plugins.backends.torch.devices import Device, pick
from ipucnn.plugins.backends.torch.inference import TorchInferenceSession, memory_errors
from ipucnn.plugins.backends.torch.training import TorchTrainingSession

_CPU, _NATIVE_HALF = 10, 17
"""Ranks for `--backend auto`: below the engines made for CPUs, but before those that compute in
float32 where this one has bfloat16; measured in benchmarks/results/engines.json. On CUDA it has its
record's rank, before all of them."""


class TorchBackend(Backend):
    """Runs plans on CPU or CUDA with PyTorch."""

    def probe(self) -> Probe:
        """Describe the best device; PyTorch always has one."""
        return self._described(pick())

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe the device that the plan asks for."""
        try:
            device = pick(plan.option("device"))
            probe = self._described(device)
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        if plan.half:
            native = device.place.type == "cpu" and not device.emulates_half
            return replace(probe, preference=_NATIVE_HALF) if native else probe
        return replace(probe, notes=())  # they are on half precision

    def _described(self, device: Device) -> Probe:
        notes: Tuple[str, ...] = ()
        if device.emulates_half:
            notes = ("this CPU has no bfloat16 arithmetic: half precision rounds the weights to "
                     "bfloat16 and computes in float32",)
        return Probe(usable=True, device=device.name, versions={"torch": torch.__version__},
                     half=str(device.half).replace("torch.", ""), notes=notes,
                     preference=_CPU if device.place.type == "cpu" else None)

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Make an inference session; see `Backend.inference`."""
        if plan.option("compile_only") and not plan.option("compile"):
            raise UsageError("'--compile-only' has nothing to compile on the torch backend",
                             "add '--compile'")
        if plan.option("model_cache_path") and not plan.option("compile"):
            raise UsageError("'--model-cache-path' keeps compiled models, and nothing is compiled",
                             "add '--compile'")
        if plan.option("compile"):
            compiler.check()
        with memory_errors(plan.micro_batch):
            return TorchInferenceSession(model, plan, input_size, pick(plan.option("device")))

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Make a training session; see `Backend.training`."""
        for option in ("compile_only", "model_cache_path"):
            if plan.option(option):
                raise UsageError(f"'--{option.replace('_', '-')}' has no meaning in training on "
                                 "the torch backend", "leave it out")
        if plan.option("compile"):
            compiler.check()
            if plan.replicas > 1:
                raise UsageError("'--compile' cannot train several replicas on one device",
                                 "leave it out, or use '--gradient-accumulation' instead")
        with memory_errors(plan.micro_batch):
            return TorchTrainingSession(model, plan, setup, input_size,
                                        pick(plan.option("device")))
