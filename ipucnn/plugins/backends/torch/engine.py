"""The backend's probe, and creation of its sessions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.backend import Backend, InferenceSession, Probe
from ipucnn.core.execution.launching import stages_apart
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
from ipucnn.plugins.backends._calls import measured_images
from ipucnn.plugins.backends._gpus import of_instance
from ipucnn.plugins.backends._options import check_proportions
from ipucnn.plugins.backends._threads import measured_threads
from ipucnn.plugins.backends.torch import compiler
from ipucnn.plugins.backends.torch.devices import Device, pick
from ipucnn.plugins.backends.torch.errors import device_errors
from ipucnn.plugins.backends.torch.inference import TorchInferenceSession
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.pipeline_inference import PipelineInferenceSession
from ipucnn.plugins.backends.torch.pipeline_training import PipelineTrainingSession
from ipucnn.plugins.backends.torch.training import TorchTrainingSession

_CPU, _NATIVE_HALF = 10, 17
"""For `--backend auto`: below the engines made for CPUs, but before those that compute in
float32 where this one has bfloat16. On CUDA it has its record's rank, before all of them."""


class TorchBackend(Backend):
    """Runs plans on CPU or CUDA with PyTorch."""

    def __init__(self, options: Optional[TorchOptions] = None) -> None:
        self.options = options or TorchOptions()

    def probe(self) -> Probe:
        """Describe the selected device, or the best one."""
        try:
            return self._described(self._device())
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe the selected device, or the best one, for a plan."""
        probe = self._probe_for(plan)
        if not probe.usable or plan.stages == 1 or stages_apart(plan.stages):
            return probe
        return replace(probe, notes=(
            *probe.notes, f"one process computes all {plan.stages} pipeline stages: the splits are "
            "checked, and change nothing"))

    def _probe_for(self, plan: ExecutionPlan) -> Probe:
        probe = self.probe()
        if not probe.usable:
            return probe
        device = self._device_for(plan)
        probe = replace(probe, half=_name(device.half))
        if not device.emulates_half:
            probe = replace(probe, precision="16.32" if plan.training else "16.16")
        if plan.half:
            native = device.place.type == "cpu" and not device.emulates_half
            return replace(probe, preference=_NATIVE_HALF) if native else probe
        return replace(probe, notes=())  # the notes are about half precision

    def _staged(self, plan: ExecutionPlan) -> bool:
        """Return whether this process holds one stage of the model.

        Raises:
            UsageError: it does, and the options are for whole models.
        """
        if not stages_apart(plan.stages):
            return False
        if self.options.compile:
            raise UsageError("'--compile' is for whole models, and each process has one of "
                             f"{plan.stages} pipeline stages", "leave it out")
        return True

    def _device(self) -> Device:
        return pick(of_instance(self.options.device))

    def _device_for(self, plan: ExecutionPlan) -> Device:
        device = self._device()
        return device.for_training() if plan.training or plan.validation else device

    def _described(self, device: Device) -> Probe:
        notes: Tuple[str, ...] = ()
        if device.emulates_half:
            notes = ("this CPU has no bfloat16 arithmetic: half precision rounds the weights to "
                     "bfloat16 and computes in float32",)
        return Probe(usable=True, device=device.name, versions=_versions(device),
                     half=_name(device.half), notes=notes,
                     preference=_CPU if device.place.type == "cpu" else None)

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:
        """Return images per call on a CPU; with `--compile`, which takes long, only the default."""
        if self.options.compile or plan.stages > 1 or self._device().place.type != "cpu":
            return ({},)
        found = [{"images_per_call": size} for size in measured_images(
            plan.micro_batch, plan.preprocessing.input_size)]
        every = measured_threads(self.options.threads)
        return [*found, {**found[0], "threads": every}] if every else found

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Create an inference session; see `Backend.inference`."""
        options = self.options
        if plan.compile_only and not options.compile:
            raise UsageError("'--compile-only' has nothing to compile on the torch backend",
                             "add '--compile'")
        if options.model_cache_path and not options.compile:
            raise UsageError("'--model-cache-path' keeps compiled models, and nothing is compiled",
                             "add '--compile'")
        if options.compile:
            compiler.check()
        with device_errors(plan.micro_batch):
            kind = PipelineInferenceSession if self._staged(plan) else TorchInferenceSession
            return kind(model, plan, input_size, self._device_for(plan), options)

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Create a training session; see `Backend.training`."""
        options = self.options
        check_proportions(options.available_memory_proportion, plan.stages)
        for flag, given in (("--compile-only", plan.compile_only),
                            ("--model-cache-path", options.model_cache_path)):
            if given:
                raise UsageError(f"'{flag}' has no effect in training on the torch backend",
                                 "leave it out")
        if options.sync_batchnorm and stages_apart(plan.stages) and plan.local_replicas > 1:
            raise UsageError(
                f"'--sync-batchnorm' over {plan.local_replicas} replicas of a process is not for "
                "stages in several processes", f"start {plan.replicas * plan.stages} processes")
        if options.compile:
            compiler.check()
            if options.sync_batchnorm and plan.instances > 1:
                raise UsageError("'--compile' does not compile what '--sync-batchnorm' exchanges",
                                 "leave one of them out")
            if plan.local_replicas > 1:
                raise UsageError("'--compile' cannot train several replicas on one device",
                                 "leave it out, or use '--gradient-accumulation' instead")
        with device_errors(plan.micro_batch):
            kind = PipelineTrainingSession if self._staged(plan) else TorchTrainingSession
            return kind(model, plan, setup, input_size, self._device().for_training(), options)


def _versions(device: Device) -> Dict[str, str]:
    """Return the versions of torch and of the libraries that compute on a device."""
    found: Dict[str, str] = {"torch": torch.__version__}
    if device.place.type == "cuda":
        libraries: Dict[str, Any] = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
        with suppress(RuntimeError):  # the installed library does not match
            version: Any = torch.backends.cudnn.version
            libraries["cuDNN"] = version()
        found.update((name, str(version)) for name, version in libraries.items() if version)
    return found


def _name(kind: torch.dtype) -> str:
    return str(kind).replace("torch.", "")
