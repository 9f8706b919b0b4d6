"""The options: frozen dataclasses whose fields are made by `ipucnn.option`. Imports no torch."""

from dataclasses import dataclass
from typing import Optional

import ipucnn
from ipucnn.plugin import UsageError


@dataclass(frozen=True)
class TinyNetOptions:
    """Options of the model."""

    # 'fixed': a checkpoint of one width cannot continue with another
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
    """Options of the norm layer; it shares the name of its option with the built-in layers."""

    norm_eps: Optional[float] = ipucnn.option(
        None, "Epsilon of the norm layers (default: the model's own).", exclusive_minimum=0.0,
        fixed="model")


@dataclass(frozen=True)
class SignSGDOptions:
    """Options of the optimizer."""

    signum_beta: float = ipucnn.option(
        0.0, "Decay of the running mean of gradients whose sign is taken; 0 takes the sign of the "
        "gradient itself.", minimum=0.0, maximum=1.0, basic=True)
    sign_threshold: float = ipucnn.option(
        0.0, "Values of that mean up to this size make no step.", minimum=0.0,
        names=("--sign-dead-zone",))

    def __post_init__(self):
        # what a declaration cannot say of a single value, or of several together
        if self.signum_beta == 1.0:
            raise UsageError("'--signum-beta 1' never looks at a gradient",
                             "use a value below 1")


@dataclass(frozen=True)
class ReferenceOptions:
    """Options of the backend."""

    # 'validation': validations of a training take it over
    reference_arithmetic: str = ipucnn.option(
        "float32", "Numbers that the reference computes with.", choices=("float32", "float64"),
        validation=True)
