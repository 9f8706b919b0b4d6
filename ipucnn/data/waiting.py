"""Detects data loading as the bottleneck and suggests a fix."""

from __future__ import annotations

from typing import Optional

from ipucnn.core.machine import thread_count, usable_cores

HIGH = 0.2
"""Share of the time spent waiting for images above which a hint is shown."""

LEAST_SECONDS = 5.0
"""Shorter waits are ignored: the first batch always has to be waited for."""


def hint(share: float, seconds: float, workers: Optional[int]) -> Optional[str]:
    """Return a hint for the user if the device waits for images, or None.

    Args:
        share: fraction of the time spent waiting for images, 0 to 1.
        seconds: total time.
        workers: `--dataloader-worker`; None for the default, `thread_count()`.
    """
    if share < HIGH or share * seconds < LEAST_SECONDS:
        return None
    cores, threads = usable_cores(), thread_count()
    if workers == 0:
        more = "'--dataloader-worker 0' decodes while the device waits"
    elif workers is not None and workers < cores:
        more = f"'--dataloader-worker' is {workers} and {cores} cores can be used"
    elif workers is None and threads < cores:
        more = f"OMP_NUM_THREADS allows {threads} workers and {cores} cores can be used"
    else:
        more = "images that 'ipucnn data convert' makes smaller take less decoding"
    return (f"the device waited for images {100 * share:.0f} % of the time: {more}; "
            "'ipucnn data bench' shows where the time goes")
