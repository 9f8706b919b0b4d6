"""Lower bounds of the memory that a job needs, checked before the memory is allocated.

Only memory that is needed in any case is counted, so a job can still run out of memory:
`memory_errors` reports this.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterator, Optional, Tuple

from ipucnn.core.errors import OutOfMemoryError, TooLargeError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import available_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

MANY_OUTPUTS = 10_000
"""Number of outputs above which the last layer can be the largest part of a model."""


GROWTH = 256
"""Upper bound of the values of a layer per value of the images, above those of known networks."""


@contextmanager
def memory_errors(micro_batch: int) -> Iterator[None]:
    """Convert allocation errors of numpy and torch into a one-line error with a hint."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        raise OutOfMemoryError(f"there is no memory for a micro-batch of {micro_batch}",
                               "use a smaller '--batch-size'") from error


def check_images(plan: ExecutionPlan) -> None:
    """Check that the images of one instance's host calls fit.

    Two host calls are prepared while the device computes one.

    Raises:
        TooLargeError: they do not fit; states how many do.
    """
    size = plan.preprocessing.input_size
    each = 3 * 3 * size * size * (1 if plan.pixels == "uint8" else 4)
    free = _too_little(plan.local_batch * each)
    if free is not None:
        raise TooLargeError(
            f"host calls of {plan.local_batch:,} images of {size} x {size} pixels, three at a "
            f"time, need {_gigabytes(plan.local_batch * each)} and {_gigabytes(free)} of memory "
            "are available",
            f"at most {free // each:,} images fit: use a smaller '--batch-size', or fewer "
            "'--device-iterations' or micro-batches per weight update")


def check_weights(model: nn.Module, name: str, classes: int, copies: int = 1) -> None:
    """Check that the weights of a model fit.

    Args:
        model: the model, on the meta device.
        name: of the model.
        classes: number of its outputs.
        copies: number of copies in memory; in a training, with gradients, optimizer state
            and moving average.

    Raises:
        TooLargeError: they do not fit.
    """
    count = sum(parameter.numel() for parameter in model.parameters())
    need = 4 * count * copies
    free = _too_little(need)
    if free is not None:
        more = " with gradients and optimizer state" if copies > 1 else ""
        raise TooLargeError(
            f"the {count:,} weights of model {name!r} with {classes:,} outputs need "
            f"{_gigabytes(need)}{more}, and {_gigabytes(free)} of memory are available",
            "use fewer classes ('--num-classes') or a smaller model")


def check_layers(model: nn.Module, plan: ExecutionPlan, input_size: int) -> None:
    """Check that the activations of a micro-batch on a CPU fit into memory.

    This is the largest output of a layer, or in a training without recomputation the inputs of all
    convolutions and linear layers whose weights are trained. A model that does not run on the meta
    device is not checked.

    Args:
        model: the model.
        plan: the execution plan.
        input_size: height and width of its images.

    Raises:
        TooLargeError: it does not fit; states how many images do.
    """
    if _too_little(GROWTH * 4 * plan.micro_batch * 3 * input_size ** 2) is None:
        return  # without calling the model, which may have side effects
    from ipucnn.models.tracing import outputs  # imports torch

    values = 0
    with suppress(Exception):  # it cannot be traced
        values = _saved(model, input_size) if plan.training and plan.recompute == "none" else max(
            (count for _, count in outputs(model, input_size)), default=0)
    each = values * (2 if plan.half else 4)
    free = _too_little(plan.micro_batch * each)
    if free is not None:
        fitting = free // each
        raise TooLargeError(
            f"the layers of the model need {_gigabytes(plan.micro_batch * each)} or more for "
            f"{plan.micro_batch:,} images of {input_size} x {input_size} pixels, and "
            f"{_gigabytes(free)} of memory are available",
            f"use '--batch-size {fitting}' or less" if fitting else
            "use a smaller '--input-size'" + (" or '--recompute-mode auto'" if plan.training
                                              else ""))


def _saved(model: nn.Module, input_size: int) -> int:
    """Return the number of values that one image's backward pass needs of the inputs of layers."""
    from torch import nn

    from ipucnn.models.tracing import call_on_meta

    seen: Dict[int, torch.Tensor] = {}  # keeps the objects alive, so that their ids are unique

    def begin(_: nn.Module, inputs: Tuple[torch.Tensor, ...]) -> None:
        seen[id(inputs[0])] = inputs[0]

    call_on_meta(model, input_size, lambda: [
        module.register_forward_pre_hook(begin) for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.requires_grad])
    return sum(tensor.numel() for tensor in seen.values())


def _too_little(need: int) -> Optional[int]:
    """Return the bytes of memory that are available if `need` is more, else None."""
    free = min((limit for limit in (available_memory(), address_space_left())
                if limit is not None), default=need)
    return free if need > free else None


def address_space_left() -> Optional[int]:
    """Return the bytes left of this process's limit of address space (`ulimit -v`), if any."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return max(0, limit - pages * resource.getpagesize())
    except (ImportError, OSError, ValueError):  # not on this system
        return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
