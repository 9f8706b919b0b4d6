"""What crosses between host and device: types that are narrowed, micro-batches that return."""

import torch

from poptorch import _enums

_OUTSIDE = {torch.int64: torch.int32, torch.float64: torch.float32, torch.bfloat16: torch.float32}


def narrowed(tensor):
    """Return a tensor in the type in which it crosses."""
    return tensor.to(_OUTSIDE.get(tensor.dtype, tensor.dtype))


def returned(values, options):
    """Return what the output mode sends to the host of the values of all micro-batches."""
    chosen = _chosen(values, options)
    if chosen[0].dim():
        result = torch.cat(chosen)
    else:
        result = chosen[0] if len(chosen) == 1 else torch.stack(chosen)
    if options._Popart._values.get("syntheticDataMode"):  # no transfers: whatever was there
        result = torch.full_like(result, float("nan") if result.is_floating_point() else -1)
    return narrowed(result)


def _chosen(values, options):
    replicas = options.replication_factor
    if options.output_mode == _enums.OutputMode.All:
        return values
    if options.output_mode == _enums.OutputMode.Final:
        return values[-replicas:]
    if options.output_mode == _enums.OutputMode.Sum:
        return [sum(values[replica::replicas]) for replica in range(replicas)]
    period = options.output_return_period
    return [value for index, value in enumerate(values)
            if index // (replicas * options.Training.gradient_accumulation) % period == period - 1]
