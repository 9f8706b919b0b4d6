"""Runs a stage of a pipeline with the schedules of torch.distributed.pipelining.

Source: Huang et al., "GPipe" (2019); Narayanan et al., "PipeDream" (2019), for the schedule of one
forward and one backward pass in turn (1F1B), which stores the activations of fewer micro-batches.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, List, Optional, Sequence, Tuple

import torch
from torch import fx, nn

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.plugins.backends.torch.cutting import Cut
from ipucnn.plugins.backends.torch.stage_processes import StageProcesses

Shapes = List[Tuple[Tuple[int, ...], torch.dtype]]
"""Shape and type of each tensor that a stage passes on."""


class StageModule(nn.Module):
    """One stage as the schedule calls it: micro-batch after micro-batch.

    Args:
        stage: its part of the model.
        last: it computes the model's outputs.

    Attributes:
        around: returns the context in which a micro-batch, by its number, is computed.
        failure: the exception of the last call.
    """

    def __init__(self, stage: fx.GraphModule, last: bool) -> None:
        super().__init__()
        self.stage = stage
        self.last = last
        self.around: Callable[[int], ContextManager[Any]] = lambda _: nullcontext()
        self.failure: Optional[Exception] = None
        self._calls = 0

    def begin(self) -> None:
        """Count micro-batches from 0."""
        self._calls, self.failure = 0, None

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the model's outputs, or the tensors that the next stage needs."""
        number, self._calls = self._calls, self._calls + 1
        try:
            with self.around(number):
                outputs = self.stage(*(_channels_last(value) for value in inputs))
        except Exception as error:  # the schedule reports it as an error of its own
            self.failure = error
            raise
        if self.last:
            return outputs
        passed = tuple(value.contiguous() for value in outputs)
        if self.training and torch.is_grad_enabled():
            # gradients pass through all stages, even if the layers of a stage are frozen
            passed = tuple(value if value.requires_grad else value.detach().requires_grad_()
                           for value in passed)
        return passed


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def cut(processes: StageProcesses, model: nn.Module, splits: Sequence[str]) -> Cut:
    """Return a model cut into stages; collective, so that no process leaves before the others.

    Raises:
        UsageError: it cannot be cut.
    """
    found: Optional[Cut] = None
    failure: Optional[UsageError] = None
    try:
        found = Cut(model, splits)
    except UsageError as error:
        failure = error
    with processes.connected():
        processes.agree(failure)
    assert found is not None
    return found


def check_passed(outputs: Any, split: str) -> None:
    """Check the values that a stage passes to the next.

    Raises:
        UsageError: it contains other values than tensors of numbers.
    """
    for value in outputs:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise UsageError(
                f"the stage that begins at {split!r} needs a value of type {kind} from the one "
                "before it, and processes exchange floating-point tensors", "name another split")


def tried(processes: StageProcesses, splits: Sequence[str], images: Optional[torch.Tensor],
          call: Callable[[Tuple[torch.Tensor, ...]], Any],
          place: torch.device) -> Tuple[Tuple[torch.Tensor, ...], Tuple[torch.Tensor, ...]]:
    """Call every stage once, on zeros of the shapes that it will receive; collective.

    Args:
        processes: those of the stages.
        splits: paths of the modules at which stages begin.
        images: those of a micro-batch, for the first stage.
        call: of this process's stage.
        place: the device.

    Returns:
        Inputs and outputs of this process's stage.

    Raises:
        IpucnnError: a stage failed; all processes raise the same error.
    """
    failure: Optional[Exception] = None
    inputs: Tuple[torch.Tensor, ...] = ()
    outputs: Tuple[torch.Tensor, ...] = ()
    with processes.connected():
        given: Optional[Shapes] = None if processes.is_first else processes.receive(
            processes.stage - 1)
    if images is not None:
        inputs = (images,)
    elif given is not None:
        inputs = tuple(torch.zeros(shape, dtype=kind, device=place) for shape, kind in given)
    if inputs:
        try:
            found = call(inputs)
            outputs = (found,) if isinstance(found, torch.Tensor) else tuple(found)
            if not processes.is_last:
                check_passed(outputs, splits[processes.stage])
        except Exception as error:  # the others wait for this process
            failure = error
    if not processes.is_last:
        shapes = None if failure or not inputs else [
            (tuple(value.shape), value.dtype) for value in outputs]
        with processes.connected():
            processes.send(shapes, processes.stage + 1)
    processes.agree(failure)
    return inputs, outputs


class Pipeline:
    """A stage with its schedule.

    Args:
        processes: those of the stages.
        module: the stage, perhaps wrapped for the average of gradients.
        stage: the stage itself.
        tensors: inputs and outputs of a micro-batch.
        micro_batches: number of micro-batches in a pass.
        training: the schedule, and the loss of outputs and number of a micro-batch; None in
            inference.
    """

    def __init__(self, processes: StageProcesses, module: nn.Module, stage: StageModule,
                 tensors: Tuple[Tuple[torch.Tensor, ...], Tuple[torch.Tensor, ...]],
                 micro_batches: int,
                 training: Optional[Tuple[str, Callable[[Any, int], torch.Tensor]]] = None) -> None:
        from torch.distributed.pipelining import (  # torch 2.0 has no such module
            PipelineStage,
            Schedule1F1B,
            ScheduleGPipe,
        )

        self._processes, self._stage = processes, stage
        self._numbers = torch.arange(micro_batches)
        self._loss = training is not None
        inputs, outputs = (tuple(value.detach() for value in each) for each in tensors)
        if training is not None:
            for value in (*(() if processes.is_first else inputs), *outputs):
                value.requires_grad_()
        part = PipelineStage(module, processes.stage, processes.stages,
                             (inputs or outputs)[0].device, input_args=inputs, output_args=outputs,
                             group=processes.line)
        name, loss = training or ("gpipe", None)
        kind: Any = Schedule1F1B if name == "1f1b" else ScheduleGPipe
        more = {}
        if "scale_grads" in inspect.signature(kind.__init__).parameters:
            more["scale_grads"] = False  # losses are weighted before
        self._schedule = kind(part, micro_batches, loss_fn=None if loss is None else (
            lambda found, number: loss(found, int(number))), **more)

    def __call__(self, images: Optional[torch.Tensor]) -> Any:
        """Run all micro-batches; return the outputs in the process of the last stage.

        Args:
            images: those of all micro-batches, in the process of the first stage.
        """
        self._stage.begin()
        settings = {"target": self._numbers} if self._loss and self._processes.is_last else {}
        try:
            return self._schedule.step(*(() if images is None else (images,)), **settings)
        except RuntimeError:
            failure = self._stage.failure
            if isinstance(failure, (IpucnnError, RuntimeError)):
                raise failure from None
            raise
