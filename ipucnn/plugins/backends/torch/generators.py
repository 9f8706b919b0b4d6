"""torch's random number generators during a training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Tuple

import numpy
import torch


class Generators:
    """The generators of the CPU and the device, seeded for each update and micro-batch.

    Args:
        seed: of the training.
        place: the device.

    Attributes:
        salt: a number of the pipeline stage, if its random numbers differ from those of others.
    """

    def __init__(self, seed: int, place: torch.device) -> None:
        self._start, self._place = seed, place
        self.salt = 0

    def seed(self, update: int, micro_batch: int = 0) -> None:
        """Seed the generators for a micro-batch, by its number over all instances.

        Those of other devices, which `seeded` does not restore, are not seeded.
        """
        words = numpy.random.SeedSequence(self._entropy(update, micro_batch)).generate_state(2)
        seed = int(words[0]) << 31 ^ int(words[1])
        torch.default_generator.manual_seed(seed)
        if self._place.type == "cuda":
            with torch.cuda.device(self._place):
                torch.cuda.manual_seed(seed)

    @contextmanager
    def seeded(self, update: int) -> Iterator[None]:
        """Seed the generators for an update; restore them afterwards."""
        devices = [self._place] if self._place.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self.seed(update)
            yield

    def state(self) -> torch.Tensor:
        """Return the state of the device's generator."""
        return torch.cuda.get_rng_state(self._place) if self._place.type == "cuda" \
            else torch.get_rng_state()

    def _entropy(self, update: int, micro_batch: int) -> Tuple[int, ...]:
        if self.salt:
            return self._start, update, micro_batch, self.salt
        return (self._start, update, micro_batch) if micro_batch else (self._start, update)
