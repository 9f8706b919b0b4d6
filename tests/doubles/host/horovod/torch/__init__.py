"""Horovod's collectives, over torch's own process group."""

import atexit as _atexit
import os as _os
from datetime import timedelta as _timedelta

import torch as _torch
import torch.distributed as _dist

Sum, Average = "Sum", "Average"

_GROUP = []


def init():
    if not _GROUP:
        assert _dist.is_initialized(), "the double of Horovod needs popdist.init() before"
        # a group of its own, as Horovod does not share the IPUs' links
        _GROUP.append(_dist.new_group(timeout=_timedelta(seconds=60)))
        _atexit.register(_GROUP.clear)  # popdist, whose function runs after this one, destroys it


def _group():
    if not _GROUP:
        raise ValueError("Horovod has not been initialized; use hvd.init().")
    return _GROUP[0]


def rank():
    _group()
    return int(_os.environ["OMPI_COMM_WORLD_RANK"])


def size():
    _group()
    return int(_os.environ["OMPI_COMM_WORLD_SIZE"])


def local_rank():
    return rank()


def broadcast(tensor, root_rank):
    result = tensor.clone()
    _dist.broadcast(result, root_rank, group=_group())
    return result


def broadcast_parameters(params, root_rank):
    for _, value in sorted(params.items()):
        _dist.broadcast(value, root_rank, group=_group())


def allreduce(tensor, op=Average):
    assert op in (Sum, Average)
    result = tensor.clone()
    _dist.all_reduce(result, group=_group())
    return result / size() if op == Average else result


def grouped_allreduce(tensors, op=Average):
    return [allreduce(tensor, op=op) for tensor in tensors]


def allgather(tensor):
    rows = [_torch.zeros(1, dtype=_torch.int64) for _ in range(size())]
    _dist.all_gather(rows, _torch.tensor([tensor.shape[0]]), group=_group())
    most = max(int(row) for row in rows)
    padded = _torch.cat([tensor, tensor.new_zeros((most - tensor.shape[0], *tensor.shape[1:]))])
    parts = [_torch.zeros_like(padded) for _ in rows]
    _dist.all_gather(parts, padded, group=_group())
    return _torch.cat([part[:int(row)] for part, row in zip(parts, rows)])
