"""The `poprun` launcher of the Poplar SDK: PopDist describes the processes, Horovod connects them.

Both are imported when a process joins. IPUs reduce gradients among themselves; Horovod
transfers data between the hosts: seeds, initial weights, metrics.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence

from ipucnn.core.checks import OK, WARNING, Check
from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launcher import Launch, Launcher
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LauncherSpec

if TYPE_CHECKING:
    import torch

    from ipucnn.core.execution.plan import ExecutionPlan

TOTAL, LOCAL, OFFSET = ("POPDIST_NUM_TOTAL_REPLICAS", "POPDIST_NUM_LOCAL_REPLICAS",
                        "POPDIST_REPLICA_INDEX_OFFSET")

_POPDIST = "install the popdist wheel of the Poplar SDK, whose 'poprun' started this process"

_HOROVOD = ("build Horovod against this environment's torch: HOROVOD_WITH_PYTORCH=1 "
            "pip install --no-build-isolation --no-binary horovod 'ipucnn[horovod]' "
            "(docs/many-hosts.md)")
"""Hint for a Horovod that does not load because it was built for another version of torch."""


class PopRunLauncher(Launcher):
    """Recognises and connects the instances that `poprun` starts."""

    def launch(self, environment: Mapping[str, str]) -> Optional[Launch]:
        """Read PopDist's variables; see `Launcher.launch`.

        Source: the variables that PopDist documents, in a log of `poprun`.

        Raises:
            UsageError: a variable is not a number, or the instances differ in size.
        """
        if TOTAL not in environment:
            return None
        total = _number(environment, TOTAL, 1, minimum=1)
        local = _number(environment, LOCAL, 1, minimum=1)
        offset = _number(environment, OFFSET, 0, minimum=0)
        if total % local or offset % local:
            raise UsageError(f"poprun gave this instance {local} of {total} replicas",
                             "let '--num-replicas' be a multiple of '--num-instances'")
        return Launch(offset // local, total // local, total)

    def environment(self, index: int, count: int) -> Dict[str, str]:
        """Return PopDist's variables; see `Launcher.environment`."""
        return {TOTAL: str(count), LOCAL: "1", OFFSET: str(index)}

    def join(self) -> Instances:
        """Connect the instances; see `Launcher.join`."""
        popdist = _needed("popdist", _POPDIST)
        if popdist.getNumInstances() > 1:
            return PopRunInstances()
        popdist.init()
        return ALONE

    def check(self, plan: ExecutionPlan) -> None:
        """Require as many pipeline stages as `poprun` gives IPUs to each replica.

        Raises:
            UsageError: the numbers differ.
        """
        given = _needed("popdist", _POPDIST).getNumIpusPerReplica()
        if given != plan.stages:
            raise UsageError(
                f"poprun gives each replica {given} IPUs, and the model has {plan.stages} pipeline "
                "stages", f"start poprun with '--ipus-per-replica {plan.stages}', or change "
                          "'--pipeline-splits'")

    def command(self, plan: ExecutionPlan, hosts: Sequence[str],
                flags: Mapping[str, Any]) -> List[str]:
        """Return the `poprun` command of a plan; see `Launcher.command`."""
        words = ["poprun", f"--num-instances={plan.instances}", f"--num-replicas={plan.replicas}",
                 f"--ipus-per-replica={plan.stages}"]
        if hosts:
            words.append("--host=" + ",".join(hosts))
        return words + [f"{flag}={_text(value)}" for flag, value in flags.items()]


class PopRunInstances(Instances):
    """The instances of a `poprun`, connected.

    Raises:
        UnavailableError: PopDist or Horovod is missing, or Horovod sees other processes.
    """

    def __init__(self) -> None:
        popdist = _needed("popdist", _POPDIST)
        popdist.init()
        self.index, self.count = popdist.getInstanceIndex(), popdist.getNumInstances()
        self._hvd = _needed("horovod.torch", _HOROVOD)
        self._hvd.init()
        if (self._hvd.rank(), self._hvd.size()) != (self.index, self.count):
            raise UnavailableError(
                f"Horovod sees process {self._hvd.rank()} of {self._hvd.size()}, and poprun "
                f"started instance {self.index} of {self.count}",
                "Horovod must be built with the MPI or Gloo that poprun starts processes with")

    def gather(self, value: Any) -> List[Any]:
        """Send values as JSON, in which integers are exact; see `Instances.gather`."""
        import torch

        text = json.dumps(value).encode("utf-8")
        encoded = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        sizes = self._hvd.allgather(torch.tensor([len(text)])).tolist()
        parts = self._hvd.allgather(encoded).split(sizes)
        return [json.loads(bytes(part.tolist()).decode("utf-8")) for part in parts]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Instances.sum`."""
        summed: torch.Tensor = self._hvd.allreduce(tensor, op=self._hvd.Sum)
        return summed

    def share(self, weights: Dict[str, torch.Tensor]) -> None:
        """See `Instances.share`."""
        self._hvd.broadcast_parameters(weights, root_rank=0)


def checks(environment: Optional[Mapping[str, str]] = None,
           find: Optional[Callable[[str], Any]] = None) -> List[Check]:
    """Check Horovod, and the other requirements of a process started by `poprun`.

    Args:
        environment: the environment variables; those of this process when None.
        find: returns the specification of a module, or None where there is none.
    """
    variables = os.environ if environment is None else environment
    find = find or _found
    total, local = variables.get(TOTAL), variables.get(LOCAL)
    horovod = _check_horovod(find("horovod"), needed=bool(total))
    if total is None and local is None:
        return [horovod]
    if not (total and local):
        return [Check("poprun", WARNING, "only some of poprun's POPDIST variables are set",
                      "unset them, or start the command with 'poprun'"), horovod]
    return [Check("poprun", OK, f"{local} of {total} replicas are this instance's"),
            Check("popdist", OK, "installed") if find("popdist") else Check(
                "popdist", WARNING, "not installed; it provides an instance's index and replicas",
                "install the popdist wheel of the Poplar SDK's folder"), horovod]


def _check_horovod(spec: Any, needed: bool) -> Check:
    """Check whether Horovod is installed and was built for the installed torch.

    Its build records the version of torch in a file of its package, so that torch is not imported.

    Args:
        spec: of its package; None where it is not installed.
        needed: whether `poprun` started this process.
    """
    if spec is None:
        return Check("horovod", WARNING, "not installed; it exchanges values between instances",
                     _HOROVOD) if needed else Check(
            "horovod", OK, "not installed; only several instances of poprun need it")
    built = ""
    for folder in spec.submodule_search_locations or ():
        with suppress(OSError, ValueError, AttributeError):
            about = json.loads(Path(folder, "metadata.json").read_text(encoding="utf-8"))
            built = str(about.get("pytorch") or about.get("torch") or "")
    from ipucnn.core.environment import version_of  # only `doctor` needs it

    torch = version_of("torch")
    if not built:
        return Check("horovod", WARNING, "it was built without PyTorch", _HOROVOD)
    if built.partition("+")[0] != torch.partition("+")[0]:
        return Check("horovod", WARNING, f"it was built for torch {built}, and torch "
                     f"{torch or 'is not'} {'is ' if torch else ''}installed", _HOROVOD)
    version = version_of("horovod")
    return Check("horovod", OK, f"{version + ', ' if version else ''}built for torch {built}")


def _found(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _number(environment: Mapping[str, str], name: str, default: int, minimum: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal() or int(text) < minimum:
        raise UsageError(f"environment variable {name} is {text!r}",
                         "it is set by poprun: unset it to run one process")
    return int(text)


def _text(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _needed(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"poprun started this process, and '{name}' cannot be imported: "
                               f"{error}", remedy) from error


@hookimpl
def ipucnn_launchers() -> List[LauncherSpec]:
    """Return the record of the `poprun` launcher."""
    return [LauncherSpec(name="poprun", summary="Graphcore's poprun, with PopDist and Horovod",
                         target="ipucnn.plugins.launchers.poprun:PopRunLauncher",
                         checks="ipucnn.plugins.launchers.poprun:checks",
                         variables=(TOTAL,))]
