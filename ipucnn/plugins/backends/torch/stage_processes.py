"""Pipeline stages in several processes: assignment of stages, and communication."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from torch import distributed, nn
from torch.torch_version import TorchVersion

from ipucnn.core.errors import IpucnnError, UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.torch.data_parallel import DataParallel, group_of
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.replicas import Buffers

_OLDEST = "2.5"
"""The first version of torch with the required parts of `torch.distributed.pipelining`."""


class StageProcesses(DataParallel):
    """The processes that hold the stages of all replicas.

    With G groups of processes, process number ``stage * G + group`` holds a stage of the replicas
    of its group. So the first G processes read the images, and the processes of one stage, which
    average gradients, are neighbours.

    Attributes:
        stage: number of this process's stage.
        stages: number of stages.
        group: number of its group.
        groups: number of groups.
        line: torch's group of the processes that hold the stages of the same replicas.
    """

    def __init__(self, plan: ExecutionPlan, device: Device) -> None:
        """Connect the stages.

        Raises:
            UnavailableError: this version of torch has no pipelines.
            UsageError: the processes are not connected by torch.distributed.
        """
        if TorchVersion(torch.__version__) < _OLDEST:
            raise UnavailableError(
                f"torch {torch.__version__} has no pipelines between processes",
                f"use torch {_OLDEST} or newer, or start one process, which computes all stages")
        self.stages, self.groups = plan.stages, plan.instances
        super().__init__(plan, device)
        self.first = self.group * self.count

    def _shared(self, plan: ExecutionPlan) -> bool:
        del plan
        return True

    def _connect(self) -> None:
        """Make the groups; collective, in the same order everywhere."""
        self.stage, self.group = divmod(self._instances.index, self.groups)
        self.line: Any = None
        for stage in range(self.stages if self.groups > 1 else 0):
            members = tuple(stage * self.groups + group for group in range(self.groups))
            made = self._group_of(members)
            self._group = made if stage == self.stage else self._group
        for group in range(self.groups):
            members = tuple(stage * self.groups + group for stage in range(self.stages))
            made = self._group_of(members)
            self.line = made if group == self.group else self.line

    def _group_of(self, members: Tuple[int, ...]) -> Any:
        backend = "nccl" if self._device.place.type == "cuda" else "gloo"
        return group_of(backend, self._instances.timeout, members)

    @property
    def is_first(self) -> bool:
        """Whether this process has the first stage."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this process has the last stage."""
        return self.stage == self.stages - 1

    def wrap(self, forward: Callable[..., Any], unused: bool) -> Callable[..., Any]:
        """Return the module whose gradients are averaged; see `DataParallel.wrap`."""
        trained = any(parameter.requires_grad for parameter in forward.parameters()) \
            if isinstance(forward, nn.Module) else True
        return super().wrap(forward, unused) if self.groups > 1 and trained else forward

    def send(self, value: Any, stage: int) -> None:
        """Send a value of any type to the process with a stage of these replicas."""
        distributed.send_object_list([value], stage * self.groups + self.group)

    def receive(self, stage: int) -> Any:
        """Return the value that the process with a stage of these replicas sends."""
        found: List[Any] = [None]
        distributed.recv_object_list(found, stage * self.groups + self.group)
        return found[0]

    def gather(self, value: Any) -> Optional[List[Any]]:
        """Return the values of all processes in the first one, and None in the others."""
        first = self._instances.index == 0
        found: Optional[List[Any]] = [None] * self._instances.count if first else None
        with self.connected():
            distributed.gather_object(value, found)
        return found

    def flags(self, own: bool) -> List[bool]:
        """Return the values of the processes with the stages of these replicas."""
        found = self._instances.gather(own)
        return [found[stage * self.groups + self.group] for stage in range(self.stages)]

    def agree(self, failure: Optional[Exception]) -> None:
        """Raise the error of the first process that has one, in all processes.

        Raises:
            IpucnnError: one of them failed.
        """
        own = None
        if failure is not None:
            own = [isinstance(failure, UsageError), getattr(failure, "message", str(failure)),
                   getattr(failure, "hint", "")]
        found = next((each for each in self._instances.gather(own) if each is not None), None)
        if failure is not None and not isinstance(failure, IpucnnError):
            raise failure
        if found is not None:
            usage, message, hint = found
            raise (UsageError if usage else IpucnnError)(message, hint)

    def sums(self, own: Sequence[float]) -> List[float]:
        """Return the sum of each value over all processes."""
        total = torch.tensor(list(own), dtype=torch.float64)
        distributed.all_reduce(total)
        found: List[float] = total.tolist()
        return found

    def all_buffers(self, own: List[Buffers]) -> List[Buffers]:
        """Return the buffers of all replicas and stages in the first process.

        The others get their own.
        """
        found = self.gather([{name: value.detach().cpu() for name, value in buffers.items()}
                             for buffers in own])
        if found is None:
            return own
        merged: List[Buffers] = []
        for group in range(self.groups):
            for replica in range(self.count):
                merged.append({name: value for stage in range(self.stages) for name, value
                               in found[stage * self.groups + group][replica].items()})
        return merged
