"""The interface of calibration: images for post-training quantisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Dict

if TYPE_CHECKING:
    import torch


class Calibration(ABC):
    """Images for post-training quantisation, and a report on the accuracy of the result."""

    @property
    @abstractmethod
    def calibrating(self) -> torch.Tensor:
        """The calibration images, uint8 `(n, 3, size, size)`."""

    @property
    @abstractmethod
    def compared(self) -> torch.Tensor:
        """Images for comparing the quantised network with the original, uint8."""

    @abstractmethod
    def report(self, full: torch.Tensor, quantised: torch.Tensor) -> Dict[str, Any]:
        """Return how far the quantised network's outputs differ, for the session's facts.

        Args:
            full: logits of the `compared` images before quantisation.
            quantised: those of the quantised network.
        """
