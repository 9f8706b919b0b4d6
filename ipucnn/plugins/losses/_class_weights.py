"""Checks class weights, and computes balanced ones. It is not a plugin."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Sequence, Tuple

from ipucnn.core.errors import UsageError

if TYPE_CHECKING:
    import torch

BALANCED = "balanced"
"""The value of class weights that stands for `balanced_weights`."""


def are_balanced(weights: Sequence[object]) -> bool:
    """Return whether class weights are given as `BALANCED`."""
    return BALANCED in weights


def balanced_weights(counts: Sequence[int]) -> Tuple[float, ...]:
    """Return the weight ``n / (k c)`` of each class with c of n labels, for k classes.

    The mean weight of the labels is 1. Source: scikit-learn's `compute_class_weight("balanced")`
    (King and Zeng, "Logistic Regression in Rare Events Data", 2001). A class without images has
    weight 1.
    """
    classes = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (classes * count) if count else 1.0 for count in counts)


def check_class_weights(weights: Tuple[float, ...], classes: int) -> None:
    """Check that there is one positive weight per class, `BALANCED` alone, or none at all.

    Raises:
        UsageError: there are more or fewer, or a weight is not above 0.
    """
    if are_balanced(weights):
        if len(weights) > 1:
            raise UsageError("option '--class-weights': 'balanced' and other weights",
                             "give 'balanced' alone, or one weight per class")
        return
    if weights and len(weights) != classes:
        raise UsageError(f"option '--class-weights': {len(weights)} weights for {classes} classes",
                         "give one weight per class, in the order of the classes")
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise UsageError(f"option '--class-weights': {weight!r} is not a number above 0")


class WithClassWeights:
    """The methods of losses with the option `class_weights`; a base class beside `Loss`."""

    _options: Any

    @property
    def needs_counts(self) -> bool:
        """Whether class weights are balanced; see `Loss.needs_counts`."""
        return are_balanced(self._options.class_weights)

    def count_classes(self, counts: Sequence[int]) -> None:
        """Set balanced class weights; see `Loss.count_classes`."""
        if self.needs_counts:
            self._options = replace(self._options, class_weights=balanced_weights(counts))

    def check(self, classes: int) -> None:
        """Check that there is a weight for each class; see `Loss.check`."""
        check_class_weights(self._options.class_weights, classes)


def weights_like(values: Tuple[float, ...], example: torch.Tensor) -> torch.Tensor:
    """Return class weights as a tensor of the type and on the device of another one.

    On a GPU they are kept: a copy from the host would wait for all computations before it, in every
    micro-batch. A device that traces the loss needs new ones for each program.
    """
    if example.device.type != "cuda":
        return example.new_tensor(values)
    return _on_gpu(values, example.dtype, example.device)


@lru_cache(maxsize=8)
def _on_gpu(values: Tuple[float, ...], dtype: torch.dtype, place: torch.device) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=dtype, device=place)
