"""The instances that `poprun` starts: PopDist knows them, Horovod carries what they tell.

Both are imported only under `poprun`. The IPUs reduce gradients among themselves; what goes
through Horovod is the host's: seeds, first weights, figures.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Dict, List

import torch  # noqa: TID253

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE, BUILD_HOROVOD, Instances
from ipucnn.core.execution.plan import ExecutionPlan

_POPDIST = "install the popdist wheel of the Poplar SDK, whose 'poprun' started this process"


class PopRunInstances(Instances):
    """The instances of a `poprun`, connected.

    Raises:
        UnavailableError: PopDist or Horovod is missing, or Horovod sees other processes.
    """

    def __init__(self) -> None:
        popdist = _needed("popdist", _POPDIST)
        popdist.init()
        self.index, self.count = popdist.getInstanceIndex(), popdist.getNumInstances()
        self._hvd = _needed("horovod.torch", BUILD_HOROVOD)
        self._hvd.init()
        if (self._hvd.rank(), self._hvd.size()) != (self.index, self.count):
            raise UnavailableError(
                f"Horovod sees process {self._hvd.rank()} of {self._hvd.size()}, and poprun "
                f"started instance {self.index} of {self.count}",
                "Horovod must be built with the MPI or Gloo that poprun starts processes with")

    def gather(self, value: Any) -> List[Any]:
        """See `Instances.gather`; values travel as JSON, in which whole numbers are exact."""
        text = json.dumps(value).encode("utf-8")
        told = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        sizes = self._hvd.allgather(torch.tensor([len(text)])).tolist()
        parts = self._hvd.allgather(told).split(sizes)
        return [json.loads(bytes(part.tolist()).decode("utf-8")) for part in parts]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Instances.sum`."""
        summed: torch.Tensor = self._hvd.allreduce(tensor, op=self._hvd.Sum)
        return summed

    def share(self, weights: Dict[str, torch.Tensor]) -> None:
        """See `Instances.share`."""
        self._hvd.broadcast_parameters(weights, root_rank=0)


_joined: List[Instances] = []


def joined() -> Instances:
    """Return the instances of this `poprun`; a process joins them once."""
    if not _joined:
        popdist = _needed("popdist", _POPDIST)
        if popdist.getNumInstances() > 1:
            _joined.append(PopRunInstances())
        else:
            popdist.init()
            _joined.append(ALONE)
    return _joined[0]


def check_stages(plan: ExecutionPlan) -> None:
    """Refuse a pipeline of another length than the IPUs that `poprun` gives each replica.

    Raises:
        UsageError: so it is.
    """
    given = _needed("popdist", _POPDIST).getNumIpusPerReplica()
    if given != plan.stages:
        raise UsageError(
            f"poprun gives each replica {given} IPUs, and the model has {plan.stages} pipeline "
            "stages", f"start poprun with '--ipus-per-replica {plan.stages}', or change "
                      "'--pipeline-splits'")


def _needed(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"poprun started this process, and '{name}' cannot be imported: "
                               f"{error}", remedy) from error
