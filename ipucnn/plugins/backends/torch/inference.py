"""The inference session: an optimised model, called one micro-batch at a time."""

from __future__ import annotations

import copy
import threading
import time
from itertools import chain
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch

from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.normalisation import normalise_on_device
from ipucnn.models.batch_dependence import depends_on_batch
from ipucnn.models.memory_checks import check_layers
from ipucnn.models.surgery import convert, full_precision_norms
from ipucnn.models.tracing import resolve_splits
from ipucnn.plugins.backends._calls import divided
from ipucnn.plugins.backends.torch import compiler
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.errors import device_errors, empty_cache
from ipucnn.plugins.backends.torch.folding import fold_batch_norms, round_weights
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.prefetch import Prefetching, begun_answer
from ipucnn.plugins.backends.torch.settings import ProcessSettings

_ON_CARDS = 2
"""Calls in flight on a CUDA device: one is computed while the result of the other is read."""

_GRAPHED = 32
"""Maximum number of images of a compiled call that is recorded as a CUDA graph: for larger calls,
the overhead of launching kernels is negligible, and a graph keeps their memory."""


class TorchInferenceSession(Prefetching, InferenceSession):
    """Calls take a micro-batch or a part of it, because the device does not run all D x R at once.

    Replicas share the device, so the combined batch of the plan is D x R such calls or more.
    """

    _gets_images = True
    """Whether the images are an input of this process's part of the model."""

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                 device: Device, options: TorchOptions) -> None:
        self._options = options
        plan = self._plan = self._in_calls(model, plan.local(), input_size, device)
        self.samples_per_call = plan.micro_batch
        self._device = device
        self._shape = (plan.micro_batch, 3, input_size, input_size)
        self._type = device.half_arithmetic if plan.half else torch.float32
        # other models are faster with weights that are constants, and made ready in no time
        self.reloadable = options.compile and plan.validation
        self._module = copy.deepcopy(model) if self.reloadable else None
        self._settings = ProcessSettings(device, plan.half, training=False,
                                         threads=options.threads)
        with self._settings.restored_on_error():
            model = self._placed(model.eval().requires_grad_(False))
            splits = resolve_splits(model, plan.pipeline_splits, input_size)
            self.facts: Dict[str, Any] = {
                "weights_type": _name(device.half if plan.half else torch.float32),
                "arithmetic": _name(self._type),
                "compiled": options.compile,
                "images_per_call": plan.micro_batch,
            }
            if device.place.type == "cpu":
                self.facts["threads"] = torch.get_num_threads()
            self._model = self._made_ready(self._own(model, splits))
            self._call: Callable[..., torch.Tensor] = self._model
            if device.place.type == "cuda":
                self.in_flight = _ON_CARDS
            self._synthetic = self._example() if plan.synthetic else None

    def _in_calls(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  device: Device) -> ExecutionPlan:
        """Return the plan with micro-batches of as many images as a call computes."""
        fixed = plan.micro_batch if depends_on_batch(model.eval()) else None
        return divided(plan, input_size, self._options.images_per_call,
                       device.place.type == "cpu", fixed)

    def _placed(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the model on the device, unless only a part of it is used."""
        if self._device.place.type == "cpu":
            check_layers(model, self._plan, self._shape[-1])
        return model.to(self._device.place)

    def _own(self, model: torch.nn.Module, splits: List[str]) -> torch.nn.Module:
        """Return the part of the model that this process computes."""
        if splits:
            self.facts["stages"] = _stage_balance(
                model, splits, self._floats(self._device.place), self._wait)
            self.facts["stage_processes"] = 1
        return model

    def compile(self) -> float:
        """Compile if selected; otherwise execute a warm-up call, which allocates buffers."""
        started = time.perf_counter()
        if self._options.compile:
            example = self._example()
            graphs = self._device.place.type == "cuda" and self._can_record()
            self.facts["cuda_graphs"] = graphs
            self._call = compiler.compiled(self._model, self._options.model_cache_path, graphs,
                                           freezing=not self.reloadable)
            compiler.first_call(lambda: self._run(example))
            if graphs:
                self._run(example)  # the second call records the graph
        elif self.warm_up:
            self._run(self._example())
        self._wait()
        return time.perf_counter() - started

    def _can_record(self) -> bool:
        """Return whether calls are recorded as a CUDA graph; torch has the graphs of a thread.

        In torch 2.13 and older, recording fails in other threads than the main one.
        """
        return self.samples_per_call <= _GRAPHED and not self.any_thread \
            and threading.current_thread() is threading.main_thread()

    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify up to a micro-batch; see `InferenceSession.__call__`."""
        with device_errors(self._plan.micro_batch):
            return self._on_device(images).cpu()

    def start(self, images: Optional[torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Start a call; see `InferenceSession.start`. A CUDA device can compute ahead.

        The logits are copied to the host in the same stream, before the next call.
        """
        if self.in_flight == 1:
            return super().start(images)
        with device_errors(self._plan.micro_batch):
            answer = begun_answer(self._on_device(images), self._device.place)

        def read() -> torch.Tensor:
            with device_errors(self._plan.micro_batch):  # errors of the call are detected here
                answer.done.synchronize()
            return answer.host

        return read

    def _on_device(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Return the logits of up to a micro-batch where they were computed, float32."""
        if images is None:
            if self._synthetic is None:
                raise ValueError("this session's plan is not synthetic: it needs images")
            return self._run(self._synthetic).float()
        count = images.shape[0]
        images = images.to(self._device.place, non_blocking=True)
        if count < self.samples_per_call and self._options.compile:
            # a compiled program has one shape: pad the last short batch, cut its logits
            padding = images.new_zeros((self.samples_per_call - count, *images.shape[1:]))
            images = torch.cat([images, padding])
        return self._run(images)[:count].float()

    def load(self, weights: Dict[str, torch.Tensor]) -> None:
        """Load other weights into the compiled model; see `InferenceSession.load`."""
        self._settings.apply()
        model = copy.deepcopy(self._module)
        assert model is not None
        model.load_state_dict(weights)
        model = self._made_ready(model.eval().requires_grad_(False).to(self._device.place))
        with torch.no_grad():
            for own, new in zip(chain(self._model.parameters(), self._model.buffers()),
                                chain(model.parameters(), model.buffers())):
                own.copy_(new)

    def pause(self) -> None:
        """Leave the settings of the process to other sessions; the next call sets them again."""
        self._settings.restore()

    def close(self) -> None:
        """Release the model and its device memory."""
        self._call = self._model = self._module = None  # type: ignore[assignment]
        self._synthetic = self._pinned = self._lane = None
        self._settings.restore()
        empty_cache(self._device)

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        if self._plan.normalisation != "device":  # the hook on the model casts otherwise
            images = images.to(self._type)
        self._settings.apply()  # after `pause`
        # torch.compile's frozen weights are not inference tensors
        without = torch.no_grad if self._options.compile else torch.inference_mode
        with device_errors(self._plan.micro_batch), without():
            logits: torch.Tensor = self._call(
                images.contiguous(memory_format=torch.channels_last))
            return logits

    def _made_ready(self, model: torch.nn.Module) -> torch.nn.Module:
        """Fold, round, cast and lay out the model, in this order."""
        plan, device = self._plan, self._device
        keep_norms = plan.full_precision_norm and plan.half
        if not keep_norms:
            model, self.facts["folded_batch_norms"] = fold_batch_norms(
                model, None if device.emulates_half else self._type)
        if plan.half and device.emulates_half:
            round_weights(model, device.half, norms=not keep_norms)
        convert(model, self._type, norms=not keep_norms)
        if keep_norms:
            full_precision_norms(model, self._type)
        else:
            _single_batch_norms(model)
        if plan.normalisation == "device" and self._gets_images:
            normalise_on_device(model, self._type, preprocessing=plan.preprocessing)
        return model.to(device.place).to(memory_format=torch.channels_last)

    def _floats(self, device: torch.device) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self._plan.seed or 0)
        return torch.randn(self._shape, generator=generator, dtype=torch.float32).to(device)

    def _example(self) -> torch.Tensor:
        """Return random images in the plan's format, on the device."""
        images = self._floats(self._device.place)
        if self._plan.normalisation == "host":
            return images
        images = (images * 64 + 128).clamp(0, 255)
        return images.to(torch.uint8) if self._plan.eight_bit_io else images

    def _wait(self) -> None:
        if self._device.place.type == "cuda":
            with device_errors(self._plan.micro_batch):
                torch.cuda.synchronize(self._device.place)


def _single_batch_norms(model: torch.nn.Module) -> None:
    """Store the parameters of layers with running statistics in their type, float32.

    torch computes them for half-precision images if all of their tensors are float32.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._NormBase) \
                and module.running_mean is not None:
            module.float()


def _stage_balance(model: torch.nn.Module, splits: Sequence[str], images: torch.Tensor,
                   wait: Callable[[], None]) -> List[Dict[str, Any]]:
    """Measure each pipeline stage's share of the compute; the slowest one limits throughput."""
    times: List[float] = []

    def mark(*_: Any) -> None:
        wait()
        times.append(time.perf_counter())

    hooks = [model.get_submodule(split.replace("/", ".")).register_forward_pre_hook(mark)
             for split in splits]
    try:
        with torch.inference_mode():
            for _ in range(2):  # the first pass allocates
                times.clear()
                mark()
                model(images)
                mark()
    finally:
        for hook in hooks:
            hook.remove()
    shares = [(after - before) / (times[-1] - times[0]) for before, after in zip(times, times[1:])]
    return [{"begins_at": begin, "share": round(share, 4)}
            for begin, share in zip(["input", *splits], shares)]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "")
