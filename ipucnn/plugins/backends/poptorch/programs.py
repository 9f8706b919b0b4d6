"""The modules compiled for the device: a model with normalisation, mixing and loss."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, List, Optional, Tuple

import poptorch
import torch
from torch.overrides import TorchFunctionMode

from ipucnn.core.execution.accuracy import is_correct
from ipucnn.core.execution.losses import Loss
from ipucnn.core.execution.mixing import Mixing
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingSetup
from ipucnn.data.mixup import mix_images
from ipucnn.models.surgery import (
    convert,
    full_precision_norms,
    normalise_on_device,
    resolve_splits,
)
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions


class InferenceProgram(torch.nn.Module):
    """The model between the marks for overlapped transfers."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, overlap: bool) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.overlap = overlap

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of a micro-batch."""
        if self.overlap:  # the mark must be the first operation on an input
            images = poptorch.set_overlap_for_input(
                images, poptorch.OverlapMode.OverlapDeviceIterationLoop)
        logits: torch.Tensor = self.model(images.to(self.dtype))
        if self.overlap:
            logits = poptorch.set_overlap_for_output(
                logits, poptorch.OverlapMode.OverlapDeviceIterationLoop)
        return logits


class _Trainable(TorchFunctionMode):
    """Replaces calls that PopTorch does not train as torch does.

    PopART has no gradient for PReLU, so that layers before it would not be trained; it is computed
    from operators that have one. Source: PopART 3.3, `op/prelu.cpp` and
    `Ir::growGradientVarUpdateOp`.

    For precision 16.32, parameters of some operators are cast to the type of their input. torch
    checks the types of these operators before PopTorch, which casts the same way, receives them.
    Source: PopTorch 3.3, `RegisterOptionalAtenOps.cpp.inc`, which has `convolution`, and not
    `conv2d`; torch 2.0.1, `Convolution.cpp`.

    Args:
        mixed: whether parameters are cast.
    """

    _CHECKED = (torch.conv1d, torch.conv2d, torch.conv3d)

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self._mixed = mixed

    def __torch_function__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        if func in (torch.prelu, torch.Tensor.prelu):
            return _prelu(*args, **(kwargs or {}))
        if self._mixed and func in self._CHECKED:
            args = [value.to(args[0].dtype) if isinstance(value, torch.Tensor) else value
                    for value in args]
        return func(*args, **(kwargs or {}))


def _prelu(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    slope = weight.to(input.dtype)
    if slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (input.dim() - 2))
    return torch.where(input > 0, input, slope * input)


class TrainingProgram(torch.nn.Module):
    """Normalisation, mixing, the model, its loss and its hits, all on the device.

    Args:
        model: to train, in the precision of its weights.
        loss: of a micro-batch.
        dtype: type of computation.
        plan: its micro-batch size, and where images are normalised (on the device: 0 to 255).
        metrics: whether to count hits.
        overlap: how far transfers run ahead of the computation; None without tiles for them.
    """

    def __init__(self, model: torch.nn.Module, loss: Loss, dtype: torch.dtype,
                 plan: ExecutionPlan, metrics: bool,
                 overlap: Optional[poptorch.OverlapMode] = None) -> None:
        super().__init__()
        self.front = torch.nn.Identity()
        if plan.normalisation == "device":
            normalise_on_device(self.front, dtype, arithmetic=dtype,
                                preprocessing=plan.preprocessing)
        self.model = model
        self.loss = loss
        self.dtype = dtype
        self.micro_batch = plan.micro_batch
        self.share = plan.summed_share
        self.mixed = plan.precision == "16.32"
        self.metrics = metrics
        self.overlap = overlap

    def forward(self, images: torch.Tensor, labels: torch.Tensor,
                coefficients: Optional[torch.Tensor] = None,
                boxes: Optional[torch.Tensor] = None, kept: Optional[torch.Tensor] = None
                ) -> Tuple[torch.Tensor, ...]:
        """Return the loss of a micro-batch and, if counted, its hits."""
        given: List[Any] = [images, labels, coefficients, boxes, kept]
        if self.overlap is None:
            return self._computed(*given)
        # the mark must be the first operation on an input, and the last on an output
        marked: List[Any] = [
            None if tensor is None else poptorch.set_overlap_for_input(tensor, self.overlap)
            for tensor in given]
        return tuple(poptorch.set_overlap_for_output(output, self.overlap)
                     for output in self._computed(*marked))

    def _computed(self, images: torch.Tensor, labels: torch.Tensor,
                  coefficients: Optional[torch.Tensor], boxes: Optional[torch.Tensor],
                  kept: Optional[torch.Tensor]) -> Tuple[torch.Tensor, ...]:
        images = self.front(images).to(self.dtype)
        mixing = None
        if coefficients is not None or boxes is not None:
            mixing = Mixing(coefficients, boxes, kept)
            images = mix_images(images, mixing, self.micro_batch)
        with _Trainable(self.mixed):
            logits = self.model(images).float()
        # the device minimises what it recognises as the loss; without this mark it would be the
        # inner likelihood, and label smoothing and mixing would get no gradient
        loss = self.loss(logits, labels, mixing, self.micro_batch)
        loss = poptorch.identity_loss(loss if self.share == 1 else loss * self.share, "none")
        if not self.metrics:
            return (loss,)
        return loss, is_correct(logits, labels).float().sum()


def place_stages(model: torch.nn.Module, plan: ExecutionPlan, input_size: int) -> Tuple[str, ...]:
    """Begin a pipeline stage at each split of the plan, and return the splits.

    Raises:
        UsageError: a split is unknown or out of order.
    """
    splits = resolve_splits(model, plan.pipeline_splits, input_size)
    for stage, split in enumerate(splits, start=1):
        poptorch.BeginBlock(model.get_submodule(split.replace("/", ".")), user_id=split,
                            ipu_id=stage)
    return tuple(splits)


def in_precision(model: torch.nn.Module, plan: ExecutionPlan,
                 weights: torch.dtype) -> torch.nn.Module:
    """Return the model with weights and norm layers in the precision of the plan.

    PopTorch copies the memory of weights as it is, so that they are made contiguous.
    """
    single = plan.half and plan.full_precision_norm
    convert(model, weights, norms=not single)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.contiguous()
    if single:
        full_precision_norms(model, torch.float16)
    return model


def constants_of(model: torch.nn.Module, plan: ExecutionPlan, options: PopTorchOptions,
                 setup: Optional[TrainingSetup] = None) -> str:
    """Return a digest of the parts of a program that PopART's cache does not compare.

    PopART recognises a cached program by its operators and some options, without the values of
    constants, the number of buffers and the variant of RMSprop. Weights are no constants.

    Args:
        model: before stages are marked and precision is changed.
        plan: of the program.
        options: of the backend.
        setup: of a training.
    """
    parts = [str(model), plan.preprocessing, plan.normalisation, plan.eight_bit_io,
             options.prefetch_depth, options.num_io_tiles]
    if setup is not None:
        parts += [type(setup.loss).__qualname__, sorted(vars(setup.loss).items()),
                  setup.optimizer.name]
    return sha256(repr(parts).encode("utf-8")).hexdigest()[:32]
