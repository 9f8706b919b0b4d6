"""Settings of the Poplar SDK that both IPU backends pass on."""

from __future__ import annotations

from typing import Dict

from ipucnn.plugins.backends._ipu.options import IpuOptions

PROFILE_FOLDER = "poplar-profile"
"""Folder of `--profile`, in the working folder; the PopVision Graph Analyser opens it."""


def collective_settings(options: IpuOptions) -> Dict[str, str]:
    """Return the GCL options of collectives between replicas, for PopART's `gclOptions`.

    Source: PopART's `validateGclOptions`, which accepts these two.
    """
    given = {"useSynclessCollectives": options.syncless_collectives,
             "maxBytesPerTile": options.max_bytes_per_tile}
    return {name: str(value) for name, value in given.items() if value is not None}
