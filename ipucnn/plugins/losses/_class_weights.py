"""Checks class weights. It is not a plugin."""

from typing import Tuple

from ipucnn.core.errors import UsageError


def check_class_weights(weights: Tuple[float, ...], classes: int) -> None:
    """Check that there is one positive weight per class, or none at all.

    Raises:
        UsageError: there are more or fewer, or a weight is not above 0.
    """
    if weights and len(weights) != classes:
        raise UsageError(f"option '--class-weights': {len(weights)} weights for {classes} classes",
                         "give one weight per class, in the order of the classes")
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise UsageError(f"option '--class-weights': {weight!r} is not a number above 0")
