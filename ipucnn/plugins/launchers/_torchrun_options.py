"""The options of the `torchrun` launcher."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option


@dataclass(frozen=True)
class TorchRunOptions:
    """How many processes are started, and where they find each other."""

    nproc: Optional[int] = option(
        None, "Number of processes on this host (default: the number of GPUs, or 1).",
        minimum=1, maximum=1024,
        names=("--nproc-per-node",), machine=True, switch=True)
    nnodes: str = option(
        "1", "Number of hosts, or its minimum and maximum ('2:4').", metavar="N|MIN:MAX",
        machine=True, switch=True)
    rdzv_endpoint: Optional[str] = option(
        None, "Address of the first host and a free port, at which the hosts meet.",
        metavar="HOST:PORT", machine=True, switch=True)
    rdzv_timeout: int = option(
        300, "Seconds that the hosts wait for each other at the start.", minimum=1, maximum=86400,
        metavar="SECONDS", machine=True, switch=True)
    max_restarts: int = option(
        0, "Number of times that the processes are restarted after a failure; they continue from "
        "the last checkpoint in '--checkpoint-path'.",
        minimum=0, maximum=1000, machine=True, switch=True)

    def __post_init__(self) -> None:
        first, last = self.hosts
        if last > 1 and not self.rdzv_endpoint:
            raise UsageError(f"{self.nnodes} hosts have no place to find each other",
                             "add '--rdzv-endpoint HOST:PORT' with the address of one of them, the "
                             "same on all")
        host, _, port = (self.rdzv_endpoint or "localhost:0").rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"option '--rdzv-endpoint': {self.rdzv_endpoint!r} is not HOST:PORT",
                             "write the address of the first host and a free port: "
                             "'10.0.0.1:29400'")
        del first

    @property
    def hosts(self) -> "tuple[int, int]":
        """The smallest and the largest number of hosts.

        Raises:
            UsageError: they are not numbers.
        """
        low, _, high = self.nnodes.partition(":")
        if not (low.isdecimal() and (high or low).isdecimal()) \
                or not 1 <= int(low) <= int(high or low) <= 65536:
            raise UsageError(f"option '--nnodes': {self.nnodes!r} is not a number of hosts",
                             "write '2', or the smallest and the largest number: '2:4'")
        return int(low), int(high or low)
