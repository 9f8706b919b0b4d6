"""Options of PopTorch that take replicas and place from `poprun`."""

import poptorch as _poptorch

import popdist as _popdist


class Options(_poptorch.Options):
    def __init__(self, ipus_per_replica=None):
        super().__init__()
        if ipus_per_replica is not None:
            assert _popdist.checkNumIpusPerReplica(ipus_per_replica), (
                f"poprun started replicas of {_popdist.getNumIpusPerReplica()} IPUs, not "
                f"{ipus_per_replica}")
        self._set(replication_factor=_popdist.getNumLocalReplicas())
        self._create_or_set(processes=_popdist.getNumInstances(),
                            process=_popdist.getInstanceIndex())

    def replicationFactor(self, replication_factor):
        raise RuntimeError("Cannot set the replication factor: poprun decides on it")

    def useIpuId(self, ipu_id):
        raise RuntimeError("Cannot select an IPU: poprun decides on it")
