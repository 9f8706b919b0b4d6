"""The options: frozen dataclasses with fields created by `ipucnn.option`. Imports no torch."""

from dataclasses import dataclass
from typing import Optional

import ipucnn
from ipucnn.plugin import UsageError


@dataclass(frozen=True)
class TinyNetOptions:
    """Options of the model."""

    # 'fixed': a checkpoint cannot be restored with another width
    tiny_width: int = ipucnn.option(1, "Factor on the channels of tinynet.", minimum=1,
                                    fixed="model")


@dataclass(frozen=True)
class StripesOptions:
    """Options of the dataset."""

    stripe_period: Optional[int] = ipucnn.option(
        None, "Pixels from one stripe to the next (default: 8 to 22, drawn for each image).",
        minimum=2)


@dataclass(frozen=True)
class InstanceNormOptions:
    """Options of the norm layer. Built-in layers have an option of the same name."""

    norm_eps: Optional[float] = ipucnn.option(
        None, "Epsilon of the norm layers (default: the model's own).", exclusive_minimum=0.0,
        fixed="model")


@dataclass(frozen=True)
class SignSGDOptions:
    """Options of the optimizer."""

    signum_beta: float = ipucnn.option(
        0.0, "Decay of the running mean of gradients, whose sign is the direction of a step; 0 "
        "uses the sign of the gradient itself.", minimum=0.0, maximum=1.0, basic=True)
    sign_threshold: float = ipucnn.option(
        0.0, "Values of the running mean up to this size are treated as 0.", minimum=0.0,
        names=("--sign-dead-zone",))

    def __post_init__(self):
        # conditions that the declaration cannot express
        if self.signum_beta == 1.0:
            raise UsageError("'--signum-beta 1' would ignore all gradients",
                             "use a value below 1")


@dataclass(frozen=True)
class ReferenceOptions:
    """Options of the backend."""

    # 'validation': also used by the validations of a training
    reference_arithmetic: str = ipucnn.option(
        "float32", "Floating-point type of the computation.", choices=("float32", "float64"),
        validation=True)
