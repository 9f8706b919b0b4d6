"""The options of fine-tuning: frozen layers, and learning rates by layer."""

from dataclasses import dataclass
from typing import ClassVar, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option

FEATURE = "fine-tuning"
"""The feature that a backend needs for these options (`BackendSpec.features`)."""


@dataclass(frozen=True)
class FineTuningPart:
    """Options of training from given weights."""

    heading: ClassVar[str] = "Fine-tuning"

    freeze: str = option(
        "", "Train only the output layer for these epochs, or freeze all up to this module.",
        metavar="EPOCHS|MODULE", feature=FEATURE, fixed="state", basic=True)
    layer_decay: float = option(
        1.0, "Factor on the learning rate from each block of layers to the block before it; the "
        "output layer has the full rate.", exclusive_minimum=0.0, maximum=1.0, feature=FEATURE,
        fixed="state")
    head_lr_factor: float = option(
        1.0, "Factor on the learning rate of the output layer.", exclusive_minimum=0.0,
        feature=FEATURE, fixed="state")

    def __post_init__(self) -> None:
        try:
            number: Optional[float] = float(self.freeze)
        except ValueError:
            number = None
        if number is not None and not self.freeze.isdigit():
            raise UsageError(f"'--freeze {self.freeze}' is not a whole number of epochs",
                             "give 1, 2 ... epochs, or the path of a module like 'layer2'")

    @property
    def frozen_epochs(self) -> int:
        """The epochs in which only the output layer is trained."""
        return int(self.freeze) if self.freeze.isdigit() else 0

    @property
    def frozen_module(self) -> str:
        """The last module that is never trained; empty if there is none."""
        return "" if self.freeze.isdigit() else self.freeze

    def check(self, weights: str, first_trainable_layer: str) -> None:
        """Check combinations with other options.

        Args:
            weights: the initial weights.
            first_trainable_layer: the value of that option.

        Raises:
            UsageError: layers with random weights would be frozen, or two options state which
                layers.
        """
        if weights == "random" and (self.frozen_epochs or self.frozen_module):
            raise UsageError(f"'--freeze {self.freeze}' would freeze random weights",
                             "add '--weights pretrained' or '--weights FILE', or leave it out")
        if self.frozen_module and first_trainable_layer:
            raise UsageError(f"'--freeze {self.freeze}' contradicts '--first-trainable-layer "
                             f"{first_trainable_layer}'", "leave one of them out")
