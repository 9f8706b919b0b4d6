"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_launchers() -> List[ipucnn.LauncherSpec]:
    """Return the launcher."""
    return [ipucnn.LauncherSpec(
        name="frozen-launcher", summary="processes on this machine",
        target="ipucnn_frozen_launcher.launcher:FrozenLauncherLauncher", variables=("FROZEN_LAUNCHER_RANK",),
        options="ipucnn_frozen_launcher.options:LauncherOptions")]
