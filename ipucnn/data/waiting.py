"""A device that waits for its images: when to say so, and what can be done."""

from __future__ import annotations

from typing import Optional

from ipucnn.core.machine import usable_cores

HIGH = 0.2
"""Share of the time that a device may wait for images before it is told."""

LEAST_SECONDS = 5.0
"""Waiting for less is no matter: the first batch always has to be waited for."""


def hint(share: float, seconds: float, workers: Optional[int]) -> Optional[str]:
    """Return what to tell a user whose device waits, or None when it hardly does.

    Args:
        share: part of the time that was spent waiting for images, 0 to 1.
        seconds: the time.
        workers: `--dataloader-worker`; None for the default, all usable cores.
    """
    if share < HIGH or share * seconds < LEAST_SECONDS:
        return None
    cores = usable_cores()
    more = (f"'--dataloader-worker' is {workers} and {cores} cores can be used"
            if workers is not None and workers < cores else
            "images that 'ipucnn data convert' makes smaller take less decoding")
    return (f"the device waited for images {100 * share:.0f} % of the time: {more}; "
            "'ipucnn data bench' shows where the time goes")
