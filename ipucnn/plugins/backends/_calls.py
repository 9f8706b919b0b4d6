"""Divides the micro-batches of inference into calls of fewer images.

The samples of a micro-batch do not influence each other in inference. The activations of a few
images fit into the caches of a processor, while those of a large micro-batch are written to memory
and read again; `docs/performance.md` has the rates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import compute_threads

_LEAST, _USUAL, _PER_THREAD, _SIDE = 2, 4, 2, 224
"""Minimum images per call, usual images per call, images per thread of many threads, and height and
width of the images that these are for."""

_IN_FLIGHT, _IN_FLIGHT_PER_THREAD = 512, 32
"""Maximum number of images of all calls in flight for a measurement, in all and per thread; more of
images that are smaller than `_SIDE`."""


def divided(plan: ExecutionPlan, input_size: int, given: Optional[int], on_cpu: bool,
            fixed: Optional[int] = None) -> ExecutionPlan:
    """Return the plan of an inference with micro-batches of as many images as a call computes.

    Args:
        plan: of this process.
        input_size: height and width of the images.
        given: the value of `--images-per-call`; None for the default.
        on_cpu: whether a CPU computes, whose default is few images.
        fixed: images per call if the network accepts no other number.

    Raises:
        UsageError: the given number is smaller than the micro-batch and does not divide it, or the
            network does not accept it.
    """
    batch = plan.micro_batch
    if given is not None:
        size = _checked(min(given, batch), batch, fixed)
    elif on_cpu and fixed is None:
        size = usual_images(batch, input_size)
    else:
        size = batch
    calls = plan.local_batch // size
    # 1 is for callers that wait for each result
    in_flight = plan.calls_in_flight * calls if plan.calls_in_flight > 1 else 1
    return replace(plan, micro_batch=size, replicas=plan.instances, device_iterations=calls,
                   calls_in_flight=in_flight)


def _checked(size: int, batch: int, fixed: Optional[int]) -> int:
    """Return a given number of images per call, which the micro-batch and the network allow."""
    if batch % size:
        raise UsageError(f"'--images-per-call {size}' does not divide a micro-batch of {batch}",
                         f"use one of {', '.join(map(str, divisors(batch)))}, or leave it out")
    if fixed not in (None, size):
        raise UsageError(f"'--images-per-call {size}' cannot be used with this network: its "
                         f"calls have {fixed} images", "leave it out")
    return size


def usual_images(batch: int, input_size: int) -> int:
    """Return the default number of images per call for a micro-batch on a CPU.

    The smaller the images are, the more of them fit into the caches.
    """
    most = max(_USUAL, _PER_THREAD * compute_threads()) * (_SIDE / input_size) ** 2
    return max((size for size in divisors(batch) if _LEAST <= size <= max(_LEAST, most)),
               default=batch)


def measured_images(batch: int, input_size: int) -> List[int]:
    """Return the numbers of images per call that are measured for a micro-batch on a CPU.

    The default is the first one; the others are a fourth and four times as many, and the
    micro-batch.
    """
    usual = usual_images(batch, input_size)
    return list(dict.fromkeys([usual, *(size for size in (usual // 4, 4 * usual, batch)
                                        if size >= 1 and batch % size == 0)]))


def measured_calls(sizes: Sequence[int], threads: int, input_size: int,
                   most_or_one: bool = False) -> List[Tuple[int, int]]:
    """Return the images per call and calls in flight that are measured.

    Calls in flight are powers of two below the number of threads, and twice as many as threads: a
    thread then begins its next call without waiting for the caller. Most come first, so that they
    are used if rates are equal: threads that share a call wait for each other whenever they are not
    scheduled at once.

    Args:
        sizes: numbers of images per call, the preferred one first.
        threads: number of threads that compute.
        input_size: height and width of the images.
        most_or_one: leave out what is between one call in flight and most of them.
    """
    counts = [1]
    if threads > 1:
        powers = 1 if most_or_one else (threads - 1).bit_length()
        counts = [*(1 << power for power in range(powers)), 2 * threads]
    most = min(_IN_FLIGHT, _IN_FLIGHT_PER_THREAD * threads) * max(1, (_SIDE / input_size) ** 2)
    return [(size, count) for count in reversed(counts) for size in sizes
            if count == 1 or size * count <= most]


def divisors(batch: int) -> List[int]:
    """Return the divisors of a micro-batch."""
    return [size for size in range(1, batch + 1) if batch % size == 0]
