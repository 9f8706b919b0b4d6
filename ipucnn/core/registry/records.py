"""The six record types that hooks return, and the table of kinds.

Records are frozen, cheap and torch-free: they are enough to list, filter, complete, suggest and
find conflicts. A record validates itself when it is built; `target` is resolved on first use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type, Union

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.names import did_you_mean, key

API_VERSION = 1
"""The version of the record contract that this ipucnn speaks; the only one so far."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

Target = Union[str, Callable[..., Any]]


@dataclass(frozen=True)
class Requirement:
    """A module that must be importable, and the command that brings it."""

    module: str
    install: str


@dataclass(frozen=True)
class PublishedWeights:
    """One published set of weights.

    `top1` and `top5` are ImageNet validation accuracies in per cent as their publisher states them;
    `sha256` is the digest or the leading hexadecimal digits of it that the publisher gives.
    """

    tag: str
    url: str
    sha256: str
    licence: str
    source: str
    top1: Optional[float] = None
    top5: Optional[float] = None


@dataclass(frozen=True)
class PluginSpec:
    """What every record carries.

    Attributes:
        name: the one canonical spelling, lower case.
        summary: one line for listings.
        target: ``"module:attribute"`` or a callable; what it must be is the kind's business.
        aliases: other spellings that are accepted.
        requires: modules the target needs beyond ipucnn's own dependencies.
        api_version: the record contract it was written for.

    Raises:
        PluginError: a field has the wrong type or form.
    """

    name: str
    summary: str
    target: Target
    aliases: Tuple[str, ...] = ()
    requires: Tuple[Requirement, ...] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        self._check(isinstance(self.name, str) and bool(_NAME.fullmatch(self.name)), "name",
                    "lower-case letters, digits, '.', '_' and '-'")
        self._check(isinstance(self.summary, str) and bool(self.summary.strip())
                    and "\n" not in self.summary, "summary", "one line of text")
        self._check(callable(self.target) or (isinstance(self.target, str)
                    and bool(_TARGET.fullmatch(self.target))), "target",
                    "a callable or 'package.module:attribute'")
        self._check(type(self.api_version) is int, "api_version", "an integer")
        self._tuple_of(str, "aliases")
        self._check(all(_NAME.fullmatch(alias.lower()) for alias in self.aliases), "aliases",
                    "spellings made of letters, digits, '.', '_' and '-'")
        self._tuple_of(Requirement, "requires")

    def _check(self, ok: bool, field_name: str, wanted: str) -> None:
        if not ok:
            raise PluginError(
                f"bad {type(self).__name__} {self.name!r}: {field_name} is "
                f"{getattr(self, field_name)!r}, expected {wanted}")

    def _tuple_of(self, item_type: type, field_name: str) -> None:
        value = getattr(self, field_name)
        self._check(isinstance(value, tuple) and all(isinstance(v, item_type) for v in value),
                    field_name, f"a tuple of {item_type.__name__}")

    @property
    def keys(self) -> Tuple[str, ...]:
        """Every spelling it answers to, in lookup form, the canonical one first."""
        return (key(self.name), *(key(alias) for alias in self.aliases))

    def facts(self) -> Dict[str, Any]:
        """The kind's own fields, for listings and `show`."""
        common = {f.name for f in fields(PluginSpec)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in common}


@dataclass(frozen=True)
class ModelSpec(PluginSpec):
    """A network. ``target(num_classes: int, **options) -> torch.nn.Module`` with random weights.

    Attributes:
        family: what groups it in listings.
        input_size: height and width in pixels of its square input.
        num_classes: outputs of the published network.
        source: the library whose module and state-dict names it uses.
        weights: published weights, the default first.
        options: names of the model options (`--efficientnet-expand-ratio` ...) it takes.
        zero_init_residual: it has residual branches whose last norm can start at zero.
    """

    family: str = ""
    input_size: int = 224
    num_classes: int = 1000
    source: str = ""
    weights: Tuple[PublishedWeights, ...] = ()
    options: Tuple[str, ...] = ()
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(isinstance(self.input_size, int) and self.input_size > 0, "input_size",
                    "a positive number of pixels")
        self._check(isinstance(self.num_classes, int) and self.num_classes > 0, "num_classes",
                    "a positive integer")
        self._tuple_of(PublishedWeights, "weights")
        self._tuple_of(str, "options")


@dataclass(frozen=True)
class DatasetSpec(PluginSpec):
    """Images and perhaps labels. ``target(request: DatasetRequest) -> ImageDataset``.

    Attributes:
        labelled: whether it knows the right class of each image.
        finite: it is a real collection that can be gone through once (not a benchmark stream).
        on_device: images are made on the device and never cross from the host.
        needs_data_dir: `--data-dir` must name its folder.
        default_data_dir: the folder it reads when `--data-dir` names none; a dataset with neither
            reads no folder, and `--data-dir` is refused.
        layout: what the folder must look like, for `show` and for error messages.
        verify: ``"module:attribute"`` of ``verify(folder: str) -> List[str]``, which returns one
            line per problem with a folder of this format; empty when it cannot be verified.
        markers: shell patterns of paths within a folder, any of which tells that it has this
            format. Where several formats match, the longest pattern decides.
        annotations: it takes a file of annotations (`--annotations`).
        also: other datasets that are read in its place where the folder has their markers.
        streams: `--data-dir` may be a URL.
        convert: ``"module:attribute"`` of what writes other datasets in this format, a
            `ipucnn.data.formats.convert.Writer`; empty when nothing does.
    """

    labelled: bool = False
    finite: bool = True
    on_device: bool = False
    needs_data_dir: bool = False
    default_data_dir: str = ""
    layout: str = ""
    verify: str = ""
    markers: Tuple[str, ...] = ()
    annotations: bool = False
    also: Tuple[str, ...] = ()
    streams: bool = False
    convert: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "markers")
        self._tuple_of(str, "also")

    @property
    def reads_folder(self) -> bool:
        """Whether a folder of the user's has a meaning."""
        return self.needs_data_dir or bool(self.default_data_dir)


@dataclass(frozen=True)
class NormLayerSpec(PluginSpec):
    """A normalisation layer. ``target(site: NormSite, options: NormOptions) -> nn.Module``.

    Attributes:
        batch_dependent: its training statistics depend on the micro-batch.
        options: which of `groups`, `eps` and `momentum` it uses.
    """

    batch_dependent: bool = False
    options: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "options")


@dataclass(frozen=True)
class OptimizerSpec(PluginSpec):
    """An optimizer. ``target(param_groups, lr: float, **hyperparameters) -> torch Optimizer``.

    Attributes:
        hyperparameters: the keyword arguments it takes, of `momentum`, `eps`, `decay`, `betas` ...
    """

    hyperparameters: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "hyperparameters")


@dataclass(frozen=True)
class ScheduleSpec(PluginSpec):
    """A learning-rate schedule: a pure function of the fractional epoch.

    ``target(epoch: float, **parameters) -> float`` returns the factor on the base learning rate.

    Attributes:
        parameters: the keyword arguments it takes, of `epochs`, `decay`, `milestones` ...
        formula: for listings and docs.
    """

    parameters: Tuple[str, ...] = ()
    formula: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "parameters")


@dataclass(frozen=True)
class BackendSpec(PluginSpec):
    """An execution engine. ``target() -> Backend`` (`ipucnn.core.execution.plan.Backend`).

    A plan that asks for more than the record offers is refused before anything is compiled.

    Attributes:
        inference: it can run inference.
        training: it can train.
        precisions: the ``compute.master`` pairs it computes in.
        options: names of the options that only some backends have and this one gives a meaning.
        training_options: further such options that it has in training only.
        preference: `--backend auto` takes the usable built-in backend with the highest, which is
            this one's on its best device (a probe may tell a lower one for another); it wakes
            no third-party plugin, whose backend is taken by name.
        device: one word for listings (`IPU`, `CPU, CUDA` ...).
        instances: several processes can share the replicas, as `poprun` starts them.
        pipelining: a model can be split into stages.
        onnx: ``"module:attribute"`` of the `ipucnn.onnx.target.OnnxTarget` that tells which
            ONNX files its engine reads; empty when it reads none.
    """

    inference: bool = True
    training: bool = False
    precisions: Tuple[str, ...] = ("32.32",)
    options: Tuple[str, ...] = ()
    training_options: Tuple[str, ...] = ()
    preference: int = 0
    device: str = ""
    instances: bool = False
    pipelining: bool = True
    onnx: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "precisions")
        self._tuple_of(str, "options")
        self._tuple_of(str, "training_options")
        known = {"16.16", "16.32", "32.32", "int8"}
        self._check(set(self.precisions) <= known, "precisions", "of " + ", ".join(sorted(known)))
        self._check(not self.onnx or bool(_TARGET.fullmatch(self.onnx)), "onnx",
                    "'package.module:attribute'")


@dataclass(frozen=True)
class Kind:
    """One kind of plugin: its names in the CLI, its hook, its record and its entry-point prefix."""

    name: str
    plural: str
    hook: str
    record: Type[PluginSpec]
    prefix: str


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("model", "models", "ipucnn_models", ModelSpec, "models"),
        Kind("dataset", "datasets", "ipucnn_datasets", DatasetSpec, "datasets"),
        Kind("norm-layer", "norm-layers", "ipucnn_norm_layers", NormLayerSpec, "norm_layers"),
        Kind("optimizer", "optimizers", "ipucnn_optimizers", OptimizerSpec, "optimizers"),
        Kind("schedule", "schedules", "ipucnn_lr_schedules", ScheduleSpec, "schedulers"),
        Kind("backend", "backends", "ipucnn_backends", BackendSpec, "backends"),
    )
}


def kind_named(name: str) -> Kind:
    """Return the kind called `name`, in the singular, plural or entry-point spelling.

    Raises:
        UsageError: there is no such kind.
    """
    wanted = key(name)
    for kind in KINDS.values():
        if wanted in {kind.name, kind.plural, key(kind.prefix)}:
            return kind
    suggestion = did_you_mean(name, [*KINDS, *(kind.plural for kind in KINDS.values())])
    raise UsageError(f"unknown kind {name!r}",
                     (suggestion + " " if suggestion else "") + "kinds: " + ", ".join(KINDS))
