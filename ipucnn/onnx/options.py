"""The options of `ipucnn export`."""

from dataclasses import dataclass
from typing import Any, Dict, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import as_dict, changed, option
from ipucnn.core.options.shared import PLACES, ModelOptions


@dataclass(frozen=True)
class ExportOptions(ModelOptions):
    """Options of `ipucnn export`.

    Raises:
        UsageError: two options contradict each other.
    """

    checkpoint_path: Optional[str] = option(
        None, "Export the model of a checkpoint, or of the newest one in a folder.",
        group="Model", names=("--checkpoint-input-path",), metavar="FILE|DIR")
    ema: bool = option(False, "The moving average of a checkpoint's weights.", group="Model")
    seed: int = option(0, "Seed of random weights and of the images of the comparison.",
                       group="Model", minimum=0)
    # a file for PopART runs everywhere
    target: str = option(
        "popart", "Backend that the file is for; it decides which operators and versions the file "
        "may have.", group="File", kind="backend")
    batch_size: int = option(1, "Images per call.", group="File", minimum=1,
                             names=("--micro-batch-size",))
    dynamic_batch: bool = option(False, "Let a call take any number of images.", group="File")
    opset: Optional[int] = option(
        None, "Version of the ai.onnx operator set; the newest that the target reads when not "
        "given.", group="File", minimum=1)
    precision: str = option(
        "32.32", "Floating point of the weights and of computation in the file: full (32.32) or "
        "half (16.16). PopART makes its own half of a full one.", group="File",
        choices={"half": "16.16", "full": "32.32", "16.16": "16.16", "32.32": "32.32"})
    normalization_location: str = option(
        "host", "Where images are normalised: before they enter ('host'), in the file, whose "
        "input is then uint8 ('device'), or nowhere.", group="File", choices=PLACES,
        names=("--normalisation-location",))
    model_path: str = option(
        "models", "Folder of the files, which are '<model>/model_<batch>.onnx' or "
        "'<model>/model.onnx' for any batch.", group="File", metavar="DIR")
    output: Optional[str] = option(None, "The file itself, wherever it should be.", group="File",
                                   metavar="FILE.onnx")
    json: bool = option(False, "Print the result as JSON instead of a table.", group="Results",
                        switch=True)

    def __post_init__(self) -> None:
        if self.dynamic_batch and self.batch_size != ExportOptions.batch_size:
            raise UsageError("'--dynamic-batch' and '--batch-size' contradict each other",
                             "leave one of them out")
        if self.output and not self.output.endswith(".onnx"):
            raise UsageError(f"'--output {self.output}' does not end in '.onnx'",
                             "name a file that does, or a folder with '--model-path'")
        if self.output and self.model_path != ExportOptions.model_path:
            raise UsageError("'--output' and '--model-path' contradict each other",
                             "leave one of them out")
        if self.checkpoint_path:
            self._check_checkpoint()
        elif self.ema:
            raise UsageError("'--ema' is for checkpoints, and none is named",
                             "add '--checkpoint-path FILE'")

    def _check_checkpoint(self) -> None:
        """Refuse what a checkpoint has settled."""
        for item in changed(self):
            if item.option.group == "Model" and item.name not in (
                    "checkpoint_path", "ema", "seed"):
                raise UsageError(f"'{item.flag}' has no meaning with '--checkpoint-path', which "
                                 "says what the model is", "leave one of them out")

    @property
    def model_options(self) -> Dict[str, Any]:
        """Options that only some models have and that were given."""
        return {item.name: getattr(self, item.name) for item in changed(self)
                if item.option.model_option}

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain types."""
        return as_dict(self)
