"""Options of PopTorch that take replicas and place from `poprun`."""

import poptorch as _poptorch

import popdist as _popdist


def _decided(*_args):
    raise RuntimeError("Cannot configure the processes: poprun decides on them")


class Options(_poptorch.Options):
    def __init__(self, ipus_per_replica=None):
        super().__init__()
        if ipus_per_replica is not None:
            assert _popdist.checkNumIpusPerReplica(ipus_per_replica), (
                f"poprun started replicas of {_popdist.getNumIpusPerReplica()} IPUs, not "
                f"{ipus_per_replica}")
        self._set(replication_factor=_popdist.getNumLocalReplicas())
        _poptorch.options._DistributedOptions.configureProcessId(
            self.Distributed, _popdist.getInstanceIndex(), _popdist.getNumInstances())
        for name in ("disable", "setEnvVarNames", "configureProcessId"):
            self.Distributed.__dict__[name] = _decided

    def replicationFactor(self, replication_factor):
        raise RuntimeError("Cannot set the replication factor: poprun decides on it")

    def useIpuId(self, ipu_id):
        raise RuntimeError("Cannot select an IPU: poprun decides on it")
