"""The options; this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class TimmOptions:
    """Options of the networks; an error for networks without stochastic depth."""

    drop_path: float = ipucnn.option(
        0.0, "Stochastic depth: the probability with which the last residual branch is skipped "
        "for an image in training; it grows linearly with the depth.", minimum=0.0, maximum=0.99)
