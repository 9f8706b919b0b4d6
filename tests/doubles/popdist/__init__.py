"""A strict stand-in for PopDist: what the contract file does not list, it does not have.

`poprun.py`, two folders up from here, sets the environment as the launcher does. What IPUs would
exchange among themselves goes through torch's own process group, which `init` starts.
"""

import atexit as _atexit
import os as _os
import time as _time


def _number(name, default):
    return int(_os.environ.get(f"POPDIST_{name}", default))


def _uniform():
    assert _os.environ.get("POPDIST_UNIFORM_REPLICAS_PER_INSTANCE", "1") == "1", (
        "the instances have different numbers of replicas")


def isPopdistEnvSet():
    return "POPDIST_NUM_TOTAL_REPLICAS" in _os.environ


def isBackendInitialized():
    import torch.distributed as dist

    return dist.is_initialized()


def init():
    import torch.distributed as dist

    assert isPopdistEnvSet(), "popdist.init() without poprun"
    assert not dist.is_initialized(), "popdist.init() twice"
    dist.init_process_group("gloo", init_method="file://" + _os.environ["POPDIST_DOUBLE_STORE"],
                            rank=getInstanceIndex(), world_size=getNumInstances())
    _atexit.register(_end)


def _end():
    """Destroy the process groups, whose threads would else run while Python ends."""
    import torch.distributed as dist

    # A Gloo thread that frees the tensors of the last collective waits for Python's lock, which
    # the destructor of its group holds while it waits for the thread (seen with torch 2.0.1).
    _time.sleep(0.2)
    dist.destroy_process_group()


def getNumTotalReplicas():
    return _number("NUM_TOTAL_REPLICAS", 1)


def getNumLocalReplicas():
    return _number("NUM_LOCAL_REPLICAS", 1)


def getNumInstances():
    _uniform()
    return getNumTotalReplicas() // getNumLocalReplicas()


def getInstanceIndex():
    _uniform()
    return getReplicaIndexOffset() // getNumLocalReplicas()


def getLocalInstanceIndex():
    return _number("LOCAL_INSTANCE_INDEX", 0)


def getNumIpusPerReplica():
    return _number("NUM_IPUS_PER_REPLICA", 1)


def checkNumIpusPerReplica(n):
    return n == getNumIpusPerReplica()


def getReplicaIndexOffset():
    return _number("REPLICA_INDEX_OFFSET", 0)
