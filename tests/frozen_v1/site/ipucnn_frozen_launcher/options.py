"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class LauncherOptions:
    """Options of the launcher."""

    frozen_launcher_processes: int = ipucnn.option(2, "Number of processes.", minimum=1)
