"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class BackendOptions:
    """Options of the backend."""

    # 'validation': the validations of a training have it too
    frozen_backend_channels_last: bool = ipucnn.option(
        False, "Store images with the channels last.", validation=True)
