"""Replicas in several processes: gradients are averaged by torch's DistributedDataParallel.

Each process holds the same weights and some of the replicas. Li et al., "PyTorch Distributed"
(2020): gradients are averaged in buckets, while the rest of the backward pass runs.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, Callable, ContextManager, Dict, List, Optional, Tuple, cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.instances import ALONE
from ipucnn.core.execution.launching import joined, launched
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.warning_filters import own_filters
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.replicas import Buffers
from ipucnn.plugins.backends.torch.synchronised import synchronise

_made: Dict[Tuple[str, Optional[float], Optional[Tuple[int, ...]]], Any] = {}
"""Groups of torch.distributed that exist, by backend, timeout and members: sessions share them."""


class DataParallel:
    """The replicas of this process among those of all processes.

    Attributes:
        first: number of this process's first replica.
        count: number of replicas of this process.
        total: number of replicas.
        alone: all replicas are this process's.
    """

    def __init__(self, plan: ExecutionPlan, device: Device) -> None:
        """Find the other processes.

        Raises:
            UsageError: they are not connected by torch.distributed.
        """
        self.count, self.total = plan.local_replicas, plan.replicas
        self.alone = not self._shared(plan)
        self._instances = ALONE if self.alone else joined()
        self.first = 0 if self.alone else self._instances.index * self.count
        self._device = device
        self._group: Any = None
        self._module: Optional[DistributedDataParallel] = None
        if self.alone:
            return
        if not self._instances.by_torch:
            launch = launched()
            raise UsageError("the torch backend averages gradients with torch.distributed, which "
                             f"{launch.launcher if launch else 'the launcher'} does not set up",
                             "start the command with 'torchrun', or '--launcher torchrun'")
        if device.place.type == "cuda" and not distributed.is_nccl_available():
            raise UsageError("this build of torch has no NCCL, which connects GPUs",
                             "install the torch of pytorch.org, or use '--device cpu'")
        if device.place.type == "cuda":
            # otherwise NCCL in torch before 2.6 takes memory of the first GPU for each process
            torch.cuda.set_device(device.place)
        self._connect()

    def _shared(self, plan: ExecutionPlan) -> bool:
        """Return whether there are other processes."""
        return plan.instances > 1

    def _connect(self) -> None:
        """Make the group of the gradients, where it is another than that of the hosts."""
        if self._device.place.type == "cuda":
            self._group = group_of("nccl", self._instances.timeout)

    def number(self, micro_batch: int) -> int:
        """Return the number over all processes of a micro-batch of an update of this one."""
        accumulation, replica = divmod(micro_batch, self.count)
        return accumulation * self.total + self.first + replica

    def wrap(self, forward: Callable[..., Any],
             unused: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the module whose backward pass averages gradients over all processes.

        Called again whenever other parameters require gradients.

        Args:
            forward: the model, perhaps compiled.
            unused: some parameters have no gradient.
        """
        if self.alone:
            return forward
        place = self._device.place
        with own_filters():
            # its successor in torch 2.14 also copies the first process's buffers
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            self._module = DistributedDataParallel(
                cast(nn.Module, forward), device_ids=[place] if place.type == "cuda" else None,
                process_group=self._group, broadcast_buffers=False,
                find_unused_parameters=unused)
        return self._module

    def accumulating(self, last: bool) -> ContextManager[Any]:
        """Return the context of a micro-batch; gradients are averaged in the last one only."""
        if self._module is None or last:
            return nullcontext()
        context: ContextManager[Any] = self._module.no_sync()
        return context

    def synchronise(self, model: nn.Module) -> int:
        """Make batch norms use the statistics of all processes, and return their number."""
        return synchronise(model, self._group, self.total // self.count)

    def connected(self) -> ContextManager[None]:
        """Return the context of the exchanges; see `Instances.connected`."""
        return self._instances.connected()

    def mean(self, value: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to average a scalar over all processes; the result, `(1,)`, waits for it."""
        if self.alone:
            return lambda: value.reshape(1)
        total = value.detach().double().reshape(1)
        work = distributed.all_reduce(total, group=self._group, async_op=True)

        def result() -> torch.Tensor:
            work.wait()
            return total / self._instances.count

        return result

    def all_buffers(self, own: List[Buffers]) -> List[Buffers]:
        """Return the buffers of the replicas of all processes, in the first process.

        The others get their own.
        """
        if self.alone:
            return own
        found: Optional[List[Any]] = [None] * self._instances.count if self.first == 0 else None
        with self.connected():
            distributed.gather_object([_to_host(buffers) for buffers in own], found)
        return own if found is None else [buffers for part in found for buffers in part]

    def own(self, buffers: List[Buffers]) -> List[Buffers]:
        """Return this process's part of all replicas' buffers; missing ones are the first's."""
        return [buffers[number] if number < len(buffers) else buffers[0]
                for number in range(self.first, self.first + self.count)]

    def close(self) -> None:
        """Release the model."""
        self._module = None


def group_of(backend: str, seconds: Optional[float],
             members: Optional[Tuple[int, ...]] = None) -> Any:
    """Return a group of torch.distributed; collective, in the same order everywhere.

    torch keeps groups until the process ends, and those of `nccl` take memory of the GPU.

    Args:
        backend: `nccl` or `gloo`.
        seconds: until an exchange fails; None for torch's default.
        members: numbers of its processes; all when None.
    """
    key = backend, seconds, members
    if key not in _made:
        # torch 2.0 does not accept None as the timeout
        limit: Dict[str, Any] = {} if seconds is None else {
            "timeout": timedelta(seconds=seconds)}
        _made[key] = distributed.new_group(
            None if members is None else list(members), backend=backend, **limit)
    return _made[key]


def _to_host(buffers: Buffers) -> Dict[str, torch.Tensor]:
    return {name: value.detach().cpu() for name, value in buffers.items()}
