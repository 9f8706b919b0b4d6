"""The record types that hooks return.

Records are frozen, cheap and torch-free: they are enough to list, filter, complete, suggest and
find conflicts. A record validates itself when it is built; `target` is resolved on first use.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import FrozenSet, Optional, Tuple, Union

from ipucnn.core.errors import UsageError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.contract import TARGET, PluginSpec, check_names

# where plugins written before the division of this module import it from
from ipucnn.core.registry.contract import Requirement as Requirement


@dataclass(frozen=True)
class PublishedWeights:
    """One published set of weights.

    Attributes:
        tag: its name; `--weights pretrained:TAG` chooses it.
        url: where the file is: ``https://``, ``file://`` or ``package:module/file``.
        sha256: the digest of the file, or the leading hexadecimal digits that its publisher gives.
        licence: of the weights.
        source: the library that published them.
        top1: accuracy on ImageNet's validation images in per cent, as their publisher states it.
        top5: the same of the five most probable classes.
        preprocessing: how images are prepared for these weights; that of the model's record when
            None.
        classes: names of the outputs in their order, or ``"module:attribute"`` of them; ImageNet's
            for 1000 outputs when empty.
        reader: ``"module:attribute"`` of ``reader(published, model) -> (path, entries)``, for
            weights in the cache or format of another library: the local file, and its entries
            under the names of the model, which was built from the record. `url` is then only
            shown. When empty, `url` is downloaded and read.
    """

    tag: str
    url: str
    sha256: str
    licence: str
    source: str
    top1: Optional[float] = None
    top5: Optional[float] = None
    preprocessing: Optional[Preprocessing] = None
    classes: Union[str, Tuple[str, ...]] = ()
    reader: str = ""


@dataclass(frozen=True)
class ModelSpec(PluginSpec):
    """A network. ``target(num_classes: int[, options]) -> torch.nn.Module`` with random weights.

    A target with a parameter ``input_size=None`` is given the height and width of the images.

    Attributes:
        family: its group in listings.
        input_size: height and width in pixels of its square input; that of `preprocessing` where
            it has one.
        num_classes: outputs of the published network.
        source: the library whose module and state-dict names it uses.
        weights: published weights, the default first.
        zero_init_residual: it has residual branches whose last norm can start at zero.
        preprocessing: how images are prepared for it. When None, the usual values for ImageNet
            models are assumed, at its input size.
        input_sizes: the smallest and the largest input that it computes; empty for any.
    """

    family: str = ""
    input_size: int = 224
    num_classes: int = 1000
    source: str = ""
    weights: Tuple[PublishedWeights, ...] = ()
    zero_init_residual: bool = False
    preprocessing: Optional[Preprocessing] = None
    input_sizes: Tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(self.preprocessing is None or isinstance(self.preprocessing, Preprocessing),
                    "preprocessing", "a Preprocessing")
        self._tuple_of(int, "input_sizes")
        self._check(len(self.input_sizes) in (0, 2)
                    and list(self.input_sizes) == sorted(self.input_sizes), "input_sizes",
                    "the smallest and the largest, or none")
        if self.preprocessing is not None:
            object.__setattr__(self, "input_size", self.preprocessing.input_size)
        self._check(isinstance(self.input_size, int) and self.input_size > 0, "input_size",
                    "a positive number of pixels")
        self._check(isinstance(self.num_classes, int) and self.num_classes > 0, "num_classes",
                    "a positive integer")
        self._tuple_of(PublishedWeights, "weights")

    def check_input_size(self, size: int) -> None:
        """Reject an input size that the network cannot compute.

        Raises:
            UsageError: it is too small or too large.
        """
        if self.input_sizes and not self.input_sizes[0] <= size <= self.input_sizes[1]:
            raise UsageError(f"model {self.name!r} cannot compute images of {size} pixels",
                             f"use an '--input-size' of {self.input_sizes[0]} to "
                             f"{self.input_sizes[1]}, or leave it out")


RANDOM_RESIZED_CROP = "random-resized-crop"
PADDED_CROP = "padded-crop"
RECIPES = (RANDOM_RESIZED_CROP, PADDED_CROP)
"""How training images are cropped: a part of random area and aspect ratio, resized, as for
ImageNet; or a part of the native size from the image with a margin of an eighth, as for CIFAR,
whose images are left as they are for validation."""


@dataclass(frozen=True)
class DatasetSpec(PluginSpec):
    """Images and perhaps labels. ``target(request: DatasetRequest[, options]) -> ImageDataset``.

    Attributes:
        labelled: whether the class of each image is known.
        finite: it is a real collection that supports one pass (not a benchmark stream).
        on_device: images are generated on the device and never transferred.
        needs_data_dir: `--data-dir` must name its folder.
        default_data_dir: the folder it reads when `--data-dir` names none; a dataset with neither
            reads no folder, and `--data-dir` is refused.
        layout: the folder's expected structure, for `show` and for error messages.
        verify: ``"module:attribute"`` of ``verify(folder: str) -> List[str]``, which returns one
            line per problem with a folder of this format; empty when it cannot be verified.
        unverified: ``"module:attribute"`` of ``unverified(folder: str) -> List[str]``, which gives
            notes on what `verify` cannot check in this folder; empty if there is nothing.
        markers: shell patterns of paths within a folder, any of which identifies this format. Where
            several formats match, the longest pattern decides.
        also: other datasets that are read instead if the folder has their markers; their
            options can be given with this dataset too.
        streams: `--data-dir` may be a URL.
        stores: `--data-dir` may be the URL of a store, which lists its files.
        preprocessing: how its images are usually prepared for a network that is trained on them
            alone; that of the network's record when None.
        convert: ``"module:attribute"`` of what writes other datasets in this format, a
            `ipucnn.data.formats.convert.Writer`; empty if there is none.
        recipe: how training images are cropped, one of `RECIPES`.
        native_size: height and width in pixels of all of its images; 0 if they differ, or are
            created at the model's input size. A padded crop needs it.
        train_samples: number of its training images, for `plan`, which reads none; 0 if that
            depends on the folder.
    """

    labelled: bool = False
    finite: bool = True
    on_device: bool = False
    needs_data_dir: bool = False
    default_data_dir: str = ""
    layout: str = ""
    verify: str = ""
    unverified: str = ""
    markers: Tuple[str, ...] = ()
    also: Tuple[str, ...] = ()
    streams: bool = False
    stores: bool = False
    convert: str = ""
    preprocessing: Optional[Preprocessing] = None
    recipe: str = RANDOM_RESIZED_CROP
    native_size: int = 0
    train_samples: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "markers")
        self._tuple_of(str, "also")
        self._check(self.preprocessing is None or isinstance(self.preprocessing, Preprocessing),
                    "preprocessing", "a Preprocessing")
        self._check(self.recipe in RECIPES, "recipe", "one of " + ", ".join(RECIPES))
        self._check(type(self.train_samples) is int and self.train_samples >= 0, "train_samples",
                    "a number of images")
        self._check(type(self.native_size) is int
                    and self.native_size >= (self.recipe == PADDED_CROP), "native_size",
                    "a number of pixels")

    @property
    def reads_folder(self) -> bool:
        """Whether it accepts a folder from the user."""
        return self.needs_data_dir or bool(self.default_data_dir)


@dataclass(frozen=True)
class NormLayerSpec(PluginSpec):
    """A normalisation layer. ``target(site: NormSite[, options]) -> nn.Module``.

    Attributes:
        batch_dependent: its training statistics depend on the micro-batch.
    """

    batch_dependent: bool = False


@dataclass(frozen=True)
class OptimizerSpec(PluginSpec):
    """An optimizer. ``target(param_groups, lr: float[, options]) -> torch.optim.Optimizer``.

    The groups hold the weight decay of their parameters. `hyperparameters`, which the first
    records listed, is accepted and has no meaning: declare `options`.

    Attributes:
        lr: a usual learning rate for updates of 256 samples, for trainings in which the user gives
            none; 0 if there is no usual one.
        lr_growth: how it grows with the samples of an update: `linear`, with their `root`, or
            `none`.
    """

    lr: float = 0.0
    lr_growth: str = "linear"
    hyperparameters: InitVar[Tuple[str, ...]] = ()

    def __post_init__(self, hyperparameters: Tuple[str, ...]) -> None:
        super().__post_init__()
        self._check(isinstance(self.lr, (int, float)) and self.lr >= 0, "lr", "a number")
        self._check(self.lr_growth in ("linear", "root", "none"), "lr_growth",
                    "linear, root or none")
        check_names(self, "hyperparameters", hyperparameters)


@dataclass(frozen=True)
class ScheduleSpec(PluginSpec):
    """A learning-rate schedule: a pure function of the fractional epoch.

    ``target(epoch: float[, epochs][, frequency][, options]) -> float`` returns the factor on the
    base learning rate. A target whose signature has `epochs` (of the whole training, at least 1)
    or `frequency` (updates of the rate per epoch, 1 when the user gave none) receives them by
    keyword. `parameters`, which the first records listed, is accepted and has no meaning.

    Attributes:
        formula: for listings and docs.
    """

    formula: str = ""
    parameters: InitVar[Tuple[str, ...]] = ()

    def __post_init__(self, parameters: Tuple[str, ...]) -> None:
        super().__post_init__()
        check_names(self, "parameters", parameters)


FEATURES: FrozenSet[str] = frozenset({"accumulation-sum", "batch-size-auto", "compile-only", "ema",
                                    "fine-tuning", "full-precision-norm", "multi-label",
                                    "recompute", "sharding", "stage-processes"})
"""Features that only some backends have; common options may require one of them. `accumulation-sum`
adds gradients over accumulation (`ExecutionPlan.gradient_factor`), `batch-size-auto` makes sessions
of any micro-batch in little time, so that several are measured, `multi-label` trains on images
with several labels, `fine-tuning` freezes layers for some epochs and has learning rates by layer,
`sharding` executes the stages of a model one after another (`ExecutionPlan.sharded`),
`stage-processes` divides pipeline stages among processes with a device each."""


@dataclass(frozen=True)
class BackendSpec(PluginSpec):
    """An execution engine. ``target([options]) -> Backend`` (`ipucnn.core.execution.backend`).

    A plan that requires more than the record offers is rejected before compilation.

    Attributes:
        inference: it can run inference.
        training: it can train.
        precisions: the ``compute.master`` pairs it computes in.
        features: which of `FEATURES` it has.
        preference: `--backend auto` takes the usable built-in backend with the highest value, which
            is this one's on its best device (a probe may report a lower one for another). `auto`
            loads no third-party plugin; such a backend is selected by name.
        foreseen: ``"module:attribute"`` of ``foreseen() -> int``: the highest preference that a
            probe on this machine can report, found without importing the engine. For engines that
            take long to import and may lose on this machine; empty when it is `preference`.
        device: one word for listings (`IPU`, `CPU, CUDA` ...).
        instances: several processes can share the replicas, as a launcher starts them.
        pipelining: a model can be split into stages.
        onnx: ``"module:attribute"`` of the `ipucnn.onnx.target.OnnxTarget` that describes which
            ONNX files its engine reads; empty when it reads none.
        rules: ``"module:attribute"`` of ``rules(plan, choice, options) -> List[str]``, given an
            `ExecutionPlan`, an `OptimizerChoice` and the backend's options: a line for each rule of
            its API by which a training would be refused. `plan` calls it, also where the plugin's
            requirements are missing; empty when there are none.
        mixup: its trainings mix images by mixup and cutmix (`TrainingBatch.mixing`).
        replicas: it has data-parallel replicas.
    """

    inference: bool = True
    training: bool = False
    precisions: Tuple[str, ...] = ("32.32",)
    features: Tuple[str, ...] = ()
    preference: int = 0
    device: str = ""
    instances: bool = False
    pipelining: bool = True
    onnx: str = ""
    rules: str = ""
    training_options: InitVar[Tuple[str, ...]] = ()
    mixup: bool = True
    replicas: bool = True
    foreseen: str = ""

    def __post_init__(self, training_options: Tuple[str, ...]) -> None:
        super().__post_init__()
        check_names(self, "training_options", training_options)
        self._tuple_of(str, "precisions")
        self._tuple_of(str, "features")
        known = {"16.16", "16.32", "32.32", "int8"}
        self._check(set(self.precisions) <= known, "precisions", "of " + ", ".join(sorted(known)))
        self._check(set(self.features) <= FEATURES, "features", "of " + ", ".join(sorted(FEATURES)))
        for name in ("onnx", "rules", "foreseen"):
            target = getattr(self, name)
            self._check(not target or (isinstance(target, str) and bool(TARGET.fullmatch(target))),
                        name, "'package.module:attribute'")

    def has(self, feature: str) -> bool:
        """Return whether it has a feature; `onnx` and `int8` follow from other fields."""
        return (feature in self.features or feature in self.precisions
                or (feature == "onnx" and bool(self.onnx)))


@dataclass(frozen=True)
class LossSpec(PluginSpec):
    """A loss. ``target([options]) -> Loss`` (`ipucnn.core.execution.losses.Loss`).

    Attributes:
        multi_label: an image may have several labels.
        formula: for listings and docs.
    """

    multi_label: bool = False
    formula: str = ""


@dataclass(frozen=True)
class LoggerSpec(PluginSpec):
    """A training logger. ``target([options]) -> Logger`` (`ipucnn.core.loggers.Logger`)."""


@dataclass(frozen=True)
class LauncherSpec(PluginSpec):
    """Starts several processes for one run. ``target([options]) -> Launcher``.

    The interface is `ipucnn.core.execution.launcher.Launcher`.

    Attributes:
        variables: names of the environment variables by which a process recognises that this
            launcher started it; one of them is sufficient.
    """

    variables: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "variables")


