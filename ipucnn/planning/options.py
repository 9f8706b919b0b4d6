"""The options of `ipucnn plan` that `train` does not have: the system, and the estimates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.conversion import TooManyDigitsError, size_in_bytes
from ipucnn.core.options.declaration import option

GENERATION_NAMES = ("mk1", "mk2")
"""Generations of IPUs that `--device-memory` accepts."""

IPU_LAUNCHER = "poprun"
"""The launcher for IPUs; others start processes on GPUs and CPUs."""

ESTIMATE = "Estimate"
"""Group of the options of estimates."""

POPRUN = "PopRun"
"""Group of the options that are passed to `poprun` unchanged, under the same name."""


@dataclass(frozen=True)
class LaunchProfileOptions:
    """The settings of a launch profile: an IPU system, its hosts, and options of `poprun`.

    Raises:
        UsageError: two options contradict each other.
    """

    instances: Optional[int] = option(
        None, "Host processes that share the replicas equally (default: as many as "
        "'--instances-per-host' allows).", group="Launch", minimum=1)
    instances_per_host: int = option(
        1, "Maximum number of instances on one host; the largest number that divides the replicas "
        "equally is used.", group="Launch", minimum=1)
    ipus: Optional[int] = option(
        None, "Number of IPUs of the system; a training that needs more is refused.",
        group="Launch",
        minimum=1)
    num_hosts: Optional[int] = option(
        None, "Number of host servers (default: as many as '--hosts' names, or 1).",
        group="Launch", minimum=1)
    hosts: Tuple[str, ...] = option(
        (), "Names or addresses of the host servers.", group="Launch", names=("--host",),
        metavar="HOST...")

    vipu_server_host: Optional[str] = option(None, "Host of the V-IPU server.", group=POPRUN)
    vipu_server_port: Optional[int] = option(None, "Port of the V-IPU server.", group=POPRUN,
                                             minimum=1, maximum=65535)
    vipu_server_timeout: Optional[int] = option(
        None, "Seconds to wait for the V-IPU server.", group=POPRUN, minimum=1)
    vipu_partition: Optional[str] = option(None, "V-IPU partition to use or to create.",
                                           group=POPRUN)
    vipu_partition_attempts: Optional[int] = option(
        None, "Number of attempts to bind to the partition.", group=POPRUN, minimum=1)
    vipu_allocation: Optional[str] = option(
        None, "V-IPU allocation in which a partition is created.", group=POPRUN)
    update_partition: Optional[bool] = option(None, "Update the partition if needed.",
                                              group=POPRUN)
    reset_partition: Optional[bool] = option(None, "Reset the partition first.", group=POPRUN)
    remove_partition: Optional[bool] = option(
        None, "Remove the partition afterwards, if it was created for this.", group=POPRUN)
    num_ilds: Optional[int] = option(None, "Number of IPU-Link domains.", group=POPRUN, minimum=1)
    executable_cache_path: Optional[str] = option(
        None, "Folder of compiled models, so that one instance compiles for all.", group=POPRUN,
        metavar="DIR")
    numa_aware: Optional[bool] = option(None, "Bind instances to NUMA nodes.", group=POPRUN)
    print_topology: Optional[bool] = option(
        None, "Print the placement of instances and replicas.", group=POPRUN)
    only_output_from_instance: Optional[int] = option(
        None, "Print the output of this instance only, without the errors of the others.",
        group=POPRUN,
        minimum=0)
    only_stdout_from_instance: Optional[int] = option(
        None, "Print the standard output of this instance only, and the errors of all.",
        group=POPRUN, minimum=0)
    mpi_global_args: Optional[str] = option(
        None, "Arguments of 'mpirun' for all instances together, as one string.", group=POPRUN,
        metavar="ARGUMENTS")
    mpi_local_args: Optional[str] = option(
        None, "Arguments of 'mpirun' for each instance, as one string: '-x NAME' passes a "
        "variable.", group=POPRUN, metavar="ARGUMENTS")

    def __post_init__(self) -> None:
        for name in self.host_names:
            if "[" in name:
                raise UsageError(f"host {name!r} is a range",
                                 "name every host, separated by spaces")
        named, wanted = len(self.host_names), self.num_hosts
        if wanted and named and named != wanted:
            raise UsageError(f"{named} hosts are named but '--num-hosts' is {wanted}",
                             f"name {wanted}, or add '--num-hosts {named}'")
        if self.instances and self.instances % self.host_count:
            raise UsageError(
                f"{self.instances} instances cannot be divided among {self.host_count} hosts",
                f"use a number of instances that is a multiple of {self.host_count}")

    @property
    def host_names(self) -> Tuple[str, ...]:
        """The list of hosts; as in `poprun`, users may separate them by commas."""
        return tuple(name for part in self.hosts for name in part.split(",") if name)

    @property
    def host_count(self) -> int:
        """The number of hosts."""
        return self.num_hosts or len(self.host_names) or 1

    def instances_for(self, replicas: int) -> int:
        """Return the number of instances that share this many replicas.

        Raises:
            UsageError: the hosts cannot share them evenly.
        """
        if self.instances:
            return self.instances
        share, rest = divmod(replicas, self.host_count)
        if rest:
            raise UsageError(
                f"{replicas} replicas cannot be divided among {self.host_count} hosts",
                f"use a number of replicas that is a multiple of {self.host_count}, or other "
                "'--num-hosts'")
        return self.host_count * next(count for count in range(self.instances_per_host, 0, -1)
                                      if share % count == 0)


@dataclass(frozen=True)
class PlanOptions(LaunchProfileOptions):
    """Options of `ipucnn plan` that `train` does not have."""

    launch: Optional[str] = option(
        None, "Launch profile, or YAML file, that describes a system and the start of a training "
        "on it; or the name of a launcher ('poprun', 'torchrun') to print only its command.",
        group="Launch",
        metavar="NAME|FILE", switch=True)
    poprun: bool = option(
        False, "Print only the 'poprun' command that launches this training.", group="Launch",
        switch=True)

    device_memory: Optional[str] = option(
        None, "Memory into which a stage must fit, also for '--pipeline-splits auto:N': that of "
        "an IPU ('mk1', 'mk2') or the size of a GPU's memory ('24GB').", group=ESTIMATE,
        metavar="mk1|mk2|SIZE", switch=True, basic=True)
    rate: Optional[str] = option(
        None, "Measured throughput for estimates of time: images per second of all devices, or a "
        "file of '--result' (of train, run or data bench), which is scaled to the number of "
        "replicas.",
        group=ESTIMATE, metavar="IMAGES/S|FILE", switch=True, basic=True)
    samples: Optional[int] = option(
        None, "Number of images per epoch, if the dataset does not state it.",
        group=ESTIMATE, minimum=1, switch=True, basic=True)
    picture: Optional[str] = option(
        None, "Write a picture of the stages to this file (SVG).", group=ESTIMATE,
        metavar="FILE", switch=True, basic=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picture and Path(self.picture).suffix.lower() != ".svg":
            raise UsageError(f"option '--picture': {self.picture!r} is not an SVG file",
                             "give it a name that ends in '.svg'")
        _ = self.device  # refuses a size that is none

    @property
    def device(self) -> Optional[Tuple[str, int]]:
        """The value of `--device-memory`: a generation of IPUs, or "" and the bytes of a GPU.

        Raises:
            UsageError: it is neither.
        """
        text = self.device_memory
        if text is None or text.lower() in GENERATION_NAMES:
            return text and (text.lower(), 0)  # type: ignore[return-value]
        try:
            size = size_in_bytes(text)
        except TooManyDigitsError:
            size = text
        if not isinstance(size, int) or size < 1:
            raise UsageError(f"option '--device-memory': {text!r} is not a memory size",
                             "write 'mk1' or 'mk2' for an IPU, or the size of a GPU's memory: "
                             "'24GB'")
        return "", size

    @property
    def system(self) -> str:
        """The name of the system that has the IPUs, for messages."""
        return f"launch profile {self.launch!r}" if self.launch else "the system"
