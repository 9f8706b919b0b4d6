"""Measures the images per second of a compiled session."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Deque

from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.example_images import random_images

SECONDS = 0.2
"""Minimum seconds of a measurement."""


def images_per_second(session: InferenceSession, images: Any) -> float:
    """Return the rate of a session with as many calls in flight as it can have.

    Args:
        session: compiled.
        images: images of a call; None if the device generates them.
    """
    count = max(1, session.in_flight)
    begin = time.perf_counter()
    session.start(images)()  # not timed, because others have used the caches since the last round
    if time.perf_counter() - begin < SECONDS:
        for wait in [session.start(images) for _ in range(count - 1)]:
            wait()
    begin, calls, seconds = time.perf_counter(), 0, 0.0
    flying: Deque[Callable[[], Any]] = deque(session.start(images) for _ in range(count - 1))
    while seconds < SECONDS:
        for _ in range(count):  # calls in flight end in bursts
            flying.append(session.start(images))
            flying.popleft()()
        calls += count
        seconds = time.perf_counter() - begin
    for wait in flying:
        wait()
    return calls * session.samples_per_call / seconds


def random_call(session: InferenceSession, plan: ExecutionPlan, input_size: int) -> Any:
    """Return random images for a call, in the format of a loader."""
    shape = (session.samples_per_call, 3, input_size, input_size)
    images = random_images(shape, "float32" if plan.pixels == "normalised" else "uint8",
                           plan.seed or 0)
    if plan.pixels == "float":
        images = images.astype("float32")
    if session.takes_arrays:
        return images
    import torch

    return torch.from_numpy(images)
