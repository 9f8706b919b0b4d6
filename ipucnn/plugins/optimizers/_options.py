"""Options that several optimizers share. It is not a plugin; it imports no torch."""

from dataclasses import dataclass

from ipucnn.core.errors import UsageError
from ipucnn.core.names import flag_of
from ipucnn.core.options.declaration import option


@dataclass(frozen=True)
class MomentumOption:
    """The momentum of a gradient step."""

    momentum: float = option(0.9, "Momentum factor.", minimum=0.0,
                             former=(0.0,), basic=True)


@dataclass(frozen=True)
class EpsilonOption:
    """The epsilon of an adaptive optimizer."""

    optimizer_eps: float = option(1e-8, "Epsilon of the optimizer's denominator.",
                                  exclusive_minimum=0.0)


@dataclass(frozen=True)
class AdamOptions(EpsilonOption):
    """Options of Adam (Kingma and Ba, 2015) and what follows it."""

    beta1: float = option(0.9, "Decay of the running mean of the gradient.", minimum=0.0,
                          maximum=1.0)
    beta2: float = option(0.999, "Decay of the running mean of the squared gradient.",
                          minimum=0.0, maximum=1.0)

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if getattr(self, name) == 1:  # the mean would stay 0, and its correction divide by 0
                raise UsageError(f"option '{flag_of(name)}': 1 would ignore all gradients",
                                 "it must be less than 1")
