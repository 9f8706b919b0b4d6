"""The processes of `torchrun`, connected by a Gloo group of torch.distributed.

Values of hosts are exchanged over Gloo, also with GPUs, for which gradients use a separate group
(`ipucnn.plugins.backends.torch.data_parallel`).
"""

from __future__ import annotations

import atexit
import os
import re
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Dict, Iterator, List

import torch  # the launcher imports this module when processes join
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ipucnn.core.errors import IpucnnError, UnavailableError, UsageError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.launcher import Launch

TIMEOUT = "IPUCNN_RANK_TIMEOUT"
_ANSWER = 5.0
SECONDS = 600.0
"""Default timeout of a process that waits for the others, which the variable overrides. It must be
longer than the writing of a checkpoint by the first process."""


def join(launch: Launch) -> Instances:
    """Connect this process to the others.

    Raises:
        UnavailableError: they cannot be reached.
    """
    if not distributed.is_available():
        raise UnavailableError("this build of torch has no torch.distributed",
                               "install the torch of pytorch.org")
    try:
        store, rank, count = next(rendezvous("env://", timeout=_timeout()))
        # restarted processes must not find the addresses of the previous ones
        distributed.init_process_group("gloo", store=PrefixStore(f"gloo{launch.restarts}", store),
                                       rank=rank, world_size=count, timeout=_timeout())
    except (RuntimeError, ValueError, OSError) as error:
        raise UnavailableError(
            f"the {launch.count} processes cannot be connected: {_first_line(error)}",
            "check that the hosts reach each other; GLOO_SOCKET_IFNAME names the network "
            "interface to use") from error
    atexit.register(_leave)
    return DistributedInstances(launch, PrefixStore(f"alive{launch.restarts}", store))


def _leave() -> None:
    if distributed.is_initialized():
        # a Gloo thread that frees the tensors of the last exchange needs Python's lock, which the
        # destructor of its group holds while it waits for the thread (torch 2.0)
        time.sleep(0.1)
        distributed.destroy_process_group()


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT, "") or str(SECONDS)
    try:
        seconds = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        seconds = timedelta()
    if seconds < timedelta(seconds=1):
        raise UsageError(f"environment variable {TIMEOUT} is {text!r}",
                         "set it to a number of seconds, at least 1")
    return seconds


class DistributedInstances(Instances):
    """The processes of a torch.distributed world.

    Args:
        launch: the place of this process.
        store: by which processes find out which others respond after a lost connection.
    """

    by_torch = True

    def __init__(self, launch: Launch, store: Store) -> None:
        self.index, self.count = launch.index, launch.count
        self.timeout = _timeout().total_seconds()
        self._store = store

    def gather(self, value: Any) -> List[Any]:
        """See `Instances.gather`."""
        found: List[Any] = [None] * self.count
        with self.connected():
            distributed.all_gather_object(found, value)
        return found

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Instances.sum`."""
        total = tensor.clone()
        with self.connected():
            distributed.all_reduce(total)
        return total

    def share(self, weights: Dict[str, torch.Tensor]) -> None:
        """See `Instances.share`."""
        with self.connected():
            for _, value in sorted(weights.items()):
                distributed.broadcast(value, 0)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """See `Instances.connected`; the error names the instances that do not respond."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            if not re.search(r"(?i)connection|timed? ?out|gloo|nccl|socket|peer", text):
                raise
            raise IpucnnError(
                f"the exchange with the other instances failed{self._missing()}: "
                f"{_first_line(error)}",
                "see the error of the instance that failed; 'ipucnn restore' continues from the "
                "last checkpoint, with fewer processes too") from error

    def _missing(self) -> str:
        """Return the instances that do not respond within some seconds."""
        missing: List[int] = []
        try:
            self._store.set(str(self.index), "")
        except (RuntimeError, OSError):  # the store was in the first instance, which has ended
            return ""
        until = time.monotonic() + _ANSWER
        for number in range(self.count):
            left = timedelta(seconds=max(0.1, until - time.monotonic()))
            try:
                self._store.wait([str(number)], left)
            except (RuntimeError, OSError):
                missing.append(number)
        names = ", ".join(str(number + 1) for number in missing[:8])
        return f", instance {names} does not respond" if missing else ""


def _first_line(error: BaseException) -> str:
    """Return the first sentence of an error, without the place in the sources of Gloo.

    NCCL states the cause after others: processes that share a GPU, shared memory that is too small.
    """
    text = str(error)
    text = text.partition("Last error:\n")[2].strip() or text.strip()
    text = (text.splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*\.\w+:\d+\] ", "", text).partition(". ")[0]
