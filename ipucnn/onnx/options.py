"""The options of `ipucnn export`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.composition import CommandOptions, Given, part
from ipucnn.core.options.conversion import LARGEST_SIZE
from ipucnn.core.options.declaration import option
from ipucnn.core.options.parts import (
    NORMALISATION_PLACES,
    NetworkPart,
    ProfilePart,
    named_precisions,
)
from ipucnn.models.weights_options import DETERMINED, with_card

if TYPE_CHECKING:
    from ipucnn.core.registry.registry import Registry


@dataclass(frozen=True)
class ExportNetwork(NetworkPart):
    """The network to export: one of the registry, or that of a checkpoint."""

    checkpoint_path: Optional[str] = option(
        None, "The same as '--weights' with a checkpoint, or a folder of them.",
        names=("--checkpoint-input-path",), metavar="FILE|DIR", basic=True)
    seed: int = option(0, "Seed of random weights and of the images of the comparison.",
                       minimum=0, maximum=LARGEST_SIZE)

    def __post_init__(self) -> None:
        self.check_weights()


@dataclass(frozen=True)
class ExportFile:
    """The target and location of the file."""

    heading: ClassVar[str] = "File"

    # a file for PopART runs in every engine
    target: str = option(
        "popart", "Backend for which the file is written; it determines the operators that the "
        "file may contain, and their versions.", kind="backend", basic=True)
    batch_size: int = option(1, "Images per call.", minimum=1, names=("--micro-batch-size",),
                             basic=True)
    dynamic_batch: bool = option(False, "Accept any number of images per call.", basic=True)
    opset: Optional[int] = option(
        None, "Version of the ai.onnx operator set (default: the newest one that the target "
        "supports).",
        minimum=1, basic=True)
    precision: str = option(
        "32.32", "Precision of computation and weights in the file: full (32.32) or half (16.16); "
        "PopART converts a full-precision file to half precision by itself.",
        choices=named_precisions("16.16", "32.32"), basic=True)
    normalization_location: str = option(
        "host", "Where images are normalised: on the host, before they are passed to the model "
        "('host'), in the model, whose input is then uint8 ('device'), or nowhere ('none').",
        choices=NORMALISATION_PLACES,
        names=("--normalisation-location",), basic=True)
    model_path: str = option(
        "models", "Folder of the files '<model>/model_<batch>.onnx', or '<model>/model.onnx' for "
        "any batch.", metavar="DIR", basic=True)
    output: Optional[str] = option(None, "Path of the file, instead of a folder.",
                                   metavar="FILE.onnx", basic=True)

    def __post_init__(self) -> None:
        if self.dynamic_batch and self.batch_size != ExportFile.batch_size:
            raise UsageError("'--dynamic-batch' and '--batch-size' contradict each other",
                             "leave one of them out")
        if self.output and not self.output.lower().endswith(".onnx"):
            raise UsageError(f"'--output {self.output}' does not end in '.onnx'",
                             "name a file that does, or a folder with '--model-path'")
        if self.output and self.model_path != ExportFile.model_path:
            raise UsageError("'--output' and '--model-path' contradict each other",
                             "leave one of them out")


@dataclass(frozen=True)
class ExportResults:
    """The display of the result."""

    heading: ClassVar[str] = "Results"

    json: bool = option(False, "Print the result as JSON instead of a table.", switch=True,
                        basic=True)


@dataclass(frozen=True)
class ExportOptions(CommandOptions):
    """Options of `ipucnn export`.

    Raises:
        UsageError: two options contradict each other.
    """

    profile: ProfilePart = part(ProfilePart)
    network: ExportNetwork = part(ExportNetwork)
    file: ExportFile = part(ExportFile)
    results: ExportResults = part(ExportResults)

    command: ClassVar[str] = "export"
    dependent: ClassVar[Tuple[str, ...]] = DETERMINED
    kinds: ClassVar[Tuple[str, ...]] = ("model", "norm-layer")

    @classmethod
    def combined(cls, sources: Sequence[Dict[str, Any]], others: List[List[Given]],
                 registry: "Registry") -> Dict[str, Any]:
        """Return merged values of several sources, with those of a weights file."""
        given = {name: value for source in sources for name, value in source.items()}
        place = given.pop("checkpoint_path", None)
        if place:
            if given.get("weights") not in (None, NetworkPart.weights, place):
                raise UsageError("'--checkpoint-path' and '--weights' both name the weights",
                                 "leave one of them out")
            given["weights"] = place
        return with_card([given], others, registry)
