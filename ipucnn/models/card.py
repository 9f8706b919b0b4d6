"""The model card: a description of a model, its preprocessing and its outputs."""

from __future__ import annotations

from collections.abc import Mapping  # typing's has no name in Python 3.8
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from ipucnn.core.errors import DataError, PluginError
from ipucnn.core.files import name_text
from ipucnn.core.names import brief
from ipucnn.core.options.parts import MOST_CLASSES
from ipucnn.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    import numpy

LOGITS, PROBABILITIES = "logits", "probabilities"

_ROUNDING = 0.05  # of probabilities in 8-bit integers


@dataclass(frozen=True)
class ModelCard:
    """The description of a model in checkpoints, ONNX files and results.

    Attributes:
        model: its name in the registry.
        options: of its construction by flat name, those of the model, its norm layer and its
            input; building with them gives the same network.
        norm_layer: name of the norm layer.
        num_outputs: values per image. A model with one output distinguishes two classes; the
            output is that of the second one.
        class_names: of the classes, in the order of the outputs; empty when unknown.
        preprocessing: of its images.
        outputs: `logits` or `probabilities`.
        multi_label: an image may have several classes; each output is for one of them alone.
        precision: of the training (``compute.master``); empty when unknown.
        provenance: where the weights come from, as plain types.
        metrics: scores of the weights, as plain types.

    Raises:
        PluginError: a field has the wrong type, or the number of names does not match.
    """

    model: str
    num_outputs: int
    options: Mapping[str, Any] = field(default_factory=dict)
    norm_layer: str = "batch"
    class_names: Tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    outputs: str = LOGITS
    multi_label: bool = False
    precision: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.class_names, list):
            object.__setattr__(self, "class_names", tuple(self.class_names))
        for name, kind in (("model", str), ("norm_layer", str), ("precision", str),
                           ("class_names", tuple), ("multi_label", bool), ("options", Mapping),
                           ("provenance", Mapping), ("metrics", Mapping),
                           ("preprocessing", Preprocessing)):
            self._check(name, isinstance(getattr(self, name), kind), kind.__name__)
        self._check("num_outputs", type(self.num_outputs) is int
                    and 0 < self.num_outputs <= MOST_CLASSES,
                    f"a whole number from 1 to {MOST_CLASSES}")
        self._check("outputs", self.outputs in (LOGITS, PROBABILITIES),
                    f"{LOGITS} or {PROBABILITIES}")
        self._check("class_names", all(isinstance(name, str) for name in self.class_names),
                    "names")
        # JSON can contain halves of characters, which no file can
        object.__setattr__(self, "class_names", tuple(map(name_text, self.class_names)))
        if len(self.class_names) not in (0, self.classes):
            raise PluginError(f"the model has {self.num_outputs} outputs and names "
                              f"{len(self.class_names)} classes")

    def _check(self, name: str, ok: bool, wanted: str) -> None:
        if not ok:
            raise PluginError(f"bad model card: {name} is {brief(getattr(self, name))}, expected "
                              f"{wanted}")

    @property
    def classes(self) -> int:
        """Number of classes that the outputs distinguish."""
        if self.num_outputs == 1:
            return 1 if self.multi_label else 2
        return self.num_outputs

    @property
    def names(self) -> List[str]:
        """A name for each class: `class 0`, `class 1` ... when they are unknown."""
        return list(self.class_names) or [f"class {index}" for index in range(self.classes)]

    def probabilities(self, outputs: Any) -> numpy.ndarray[Any, Any]:
        """Return the probability of each class, float32 `(n, classes)`.

        Args:
            outputs: of the model, `(n, num_outputs)`, an array or a tensor of the host.

        Raises:
            DataError: the outputs are probabilities according to the card, and are not from 0 to 1.
            PluginError: the model returned another number of outputs than it was built for.
        """
        import numpy

        values: numpy.ndarray[Any, Any] = numpy.asarray(outputs, numpy.float32)
        if values.shape[1:] != (self.num_outputs,):
            raise PluginError(f"model {self.model!r} returned outputs of shape {values.shape}, "
                              f"expected (n, {self.num_outputs})",
                              "its target must use 'num_classes'; report it to its author")
        with numpy.errstate(invalid="ignore", over="ignore"):  # outputs may not be finite
            if self.outputs != LOGITS:
                if (numpy.isfinite(values) & (abs(values - 0.5) > 0.5 + _ROUNDING)).any():
                    raise DataError(
                        "the model's outputs are derived from a Softmax or Sigmoid, but are not "
                        f"probabilities: they range from {values.min():.4g} to {values.max():.4g}",
                        "end the network in its Softmax, its Sigmoid or its logits, and export it "
                        "again")
            elif self.multi_label or self.num_outputs == 1:
                values = 1 / (1 + numpy.exp(-values))
            else:
                values = numpy.exp(values - values.max(1, keepdims=True))
                values = values / values.sum(1, keepdims=True)
        if self.classes > self.num_outputs:
            values = numpy.concatenate([1 - values, values], 1)
        return values

    def facts(self) -> List[Tuple[str, str]]:
        """Return names and values as text."""
        def pairs(values: Mapping[str, Any]) -> str:
            return ", ".join(f"{name} {value}" for name, value in values.items()
                             if value not in (None, ""))

        return [
            ("model", self.model), ("norm layer", self.norm_layer),
            ("options", pairs(self.options)),
            ("outputs", f"{self.num_outputs} {self.outputs}"
                        + (", several labels" if self.multi_label else "")),
            ("classes", ", ".join(self.class_names) or "unknown"),
            ("images", self.preprocessing.summary()), ("precision", self.precision),
            ("metrics", pairs(self.metrics)),
            ("provenance", pairs({name: value for name, value in self.provenance.items()
                                  if isinstance(value, str)}))]

    def as_plain(self) -> Dict[str, Any]:
        """Return the card as plain types, for files."""
        return {**asdict(self), "class_names": list(self.class_names),
                "preprocessing": self.preprocessing.as_plain()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> ModelCard:
        """Return the card from plain types of `as_plain`; fields of newer versions are ignored.

        Raises:
            PluginError: a field is missing or has the wrong type.
        """
        known = {item.name for item in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        if isinstance(kept.get("preprocessing"), Mapping):
            kept["preprocessing"] = Preprocessing.from_plain(kept["preprocessing"])
        if not {"model", "num_outputs"} <= set(kept):
            raise PluginError("bad model card: it does not state which model it is of")
        for name in ("options", "provenance", "metrics"):
            if not is_plain(kept.get(name, {})):
                raise PluginError(f"bad model card: {name} is {brief(kept[name])}, expected plain "
                                  "types by name")
        return cls(**kept)


def is_plain(value: Any, deepest: int = 10) -> bool:
    """Return whether a value from a file has built-in types only, and mappings have texts as keys.

    Args:
        value: the value.
        deepest: maximum depth of lists and mappings in it.
    """
    if isinstance(value, Mapping):
        return deepest > 0 and all(isinstance(name, str) and is_plain(item, deepest - 1)
                                   for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return deepest > 0 and all(is_plain(item, deepest - 1) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
