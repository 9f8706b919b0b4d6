"""The record types that hooks return.

Records are frozen dataclasses that do not need torch. They are sufficient for listings, completion,
suggestions and the detection of conflicts. A record is validated when it is created; its `target`
is imported on first use.
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
        tag: the name; `--weights pretrained:TAG` selects the weights.
        url: the location of the file: ``https://``, ``file://`` or ``package:module/file``.
        sha256: the digest of the file, or the leading hexadecimal digits if the publisher gives
            only these.
        licence: the licence of the weights.
        source: the library that published them.
        top1: top-1 accuracy on ImageNet's validation images in per cent, according to the
            publisher.
        top5: top-5 accuracy, likewise.
        preprocessing: preprocessing of images for these weights; if None, that of the model's
            record.
        classes: names of the outputs in their order, or ``"module:attribute"`` of them; if empty,
            ImageNet's for 1000 outputs.
        reader: ``"module:attribute"`` of ``reader(published, model) -> (path, entries)``, for
            weights in the cache or format of another library: the local file, and its entries
            under the names of the model, which was built from the record. `url` is then for
            information only. If empty, the file at `url` is read.
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

    A target with a parameter ``input_size=None`` receives the height and width of the images.

    Attributes:
        family: the group in listings.
        input_size: default height and width of the input in pixels; if `preprocessing` is given,
            its value takes precedence.
        num_classes: number of outputs of the published network.
        source: the library that defines the names of modules and of the state dictionary.
        weights: published weights, the default first.
        zero_init_residual: whether the last norm layer of each residual branch can be initialised
            with zero.
        preprocessing: preprocessing of images; if None, the usual values for ImageNet models, at
            the input size.
        input_sizes: the smallest and the largest supported input size; empty for any.
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
        """Check an input size.

        Raises:
            UsageError: the network does not support it.
        """
        if self.input_sizes and not self.input_sizes[0] <= size <= self.input_sizes[1]:
            raise UsageError(f"model {self.name!r} cannot compute images of {size} pixels",
                             f"use an '--input-size' of {self.input_sizes[0]} to "
                             f"{self.input_sizes[1]}, or leave it out")


RANDOM_RESIZED_CROP = "random-resized-crop"
PADDED_CROP = "padded-crop"
RECIPES = (RANDOM_RESIZED_CROP, PADDED_CROP)
"""How training images are cropped: a part of random area and aspect ratio, resized, as for
ImageNet; or a crop of the native size from the image padded by an eighth of it, as for CIFAR, where
validation images are not cropped."""


@dataclass(frozen=True)
class DatasetSpec(PluginSpec):
    """A set of images. ``target(request: DatasetRequest[, options]) -> ImageDataset``.

    Attributes:
        labelled: whether the class of each image is known.
        finite: whether the dataset is a collection of images that can be evaluated in one pass;
            False for a stream of random images.
        on_device: images are generated on the device and never transferred.
        needs_data_dir: whether `--data-dir` is required.
        default_data_dir: the folder that is read without `--data-dir`. If this and
            `needs_data_dir` are not set, `--data-dir` is an error.
        layout: the folder's expected structure, for `show` and for error messages.
        verify: ``"module:attribute"`` of ``verify(folder: str) -> List[str]``, which returns one
            line per problem with a folder of this format; empty if it cannot be verified.
        unverified: ``"module:attribute"`` of ``unverified(folder: str) -> List[str]``, which
            returns notes on properties of the folder that `verify` cannot check; empty if there are
            none.
        markers: shell patterns of paths within a folder, any of which identifies this format. If
            several formats match, the one with the longest pattern is used. Without `--data`, only
            built-in datasets are recognised.
        also: other datasets that are read instead if the folder has their markers; their
            options can be given with this dataset too.
        streams: whether `--data-dir` may be a URL.
        stores: whether `--data-dir` may be the URL of a store, whose files can be listed.
        preprocessing: preprocessing for a network that is trained on the dataset from random
            weights; if None, that of the network's record.
        convert: ``"module:attribute"`` of the `ipucnn.plugin.Writer` that writes
            other datasets in this format; empty if there is none.
        recipe: how training images are cropped: `random-resized-crop` or `padded-crop`.
        native_size: height and width of all images in pixels, required for `padded-crop`; 0 if the
            sizes differ, or if images are created at the model's input size.
        train_samples: number of training images, for `plan`, which reads no images; 0 if it
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
        """Whether `--data-dir` is accepted."""
        return self.needs_data_dir or bool(self.default_data_dir)


@dataclass(frozen=True)
class NormLayerSpec(PluginSpec):
    """A normalisation layer. ``target(site: NormSite[, options]) -> nn.Module``.

    Attributes:
        batch_dependent: whether the outputs for a sample in training depend on the other samples of
            its micro-batch.
    """

    batch_dependent: bool = False


@dataclass(frozen=True)
class OptimizerSpec(PluginSpec):
    """An optimizer. ``target(param_groups, lr: float[, options]) -> torch.optim.Optimizer``.

    Each group contains the weight decay of its parameters. `hyperparameters` is deprecated and has
    no effect; declare `options`.

    Attributes:
        lr: learning rate for updates of 256 samples, for trainings without `--lr`; 0 for none.
        lr_growth: how it scales with the number of samples per update: `linear`, `root` (square
            root) or `none`.
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
    base learning rate. If the signature has `epochs` (number of epochs of the training, at least
    1) or `frequency` (updates of the rate per epoch, default 1), they are passed by keyword.
    `parameters` is deprecated and has no effect.

    Attributes:
        formula: the formula, for listings and the documentation.
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
sums gradients over accumulation (`ExecutionPlan.gradient_factor`), `batch-size-auto` creates
sessions fast enough to measure several micro-batches, `multi-label` trains on images with several
labels, `fine-tuning` freezes layers for some epochs and has learning rates by layer, `sharding`
executes the stages of a model one after another (`ExecutionPlan.sharded`), `stage-processes`
executes pipeline stages in several processes with a device each."""


@dataclass(frozen=True)
class BackendSpec(PluginSpec):
    """An execution engine. ``target([options]) -> Backend`` (`ipucnn.plugin.Backend`).

    A plan that requires something that the record does not declare is an error before compilation.

    Attributes:
        inference: it can run inference.
        training: it can train.
        precisions: the precisions it computes in: `16.16`, `16.32`, `32.32`, `int8`.
        features: the optional features it has; "Writing a plugin" lists them.
        preference: `--backend auto` takes the usable built-in backend with the highest value, which
            is this one's on its best device (a probe may report a lower one for another). `auto`
            loads no third-party plugin; such a backend is selected by name.
        foreseen: ``"module:attribute"`` of ``foreseen() -> int``: the highest preference that a
            probe on this machine can report, found without importing the engine. For engines that
            take long to import and may lose on this machine; empty when it is `preference`.
        device: one word for listings (`IPU`, `CPU, CUDA` ...).
        instances: several processes can share the replicas, as a launcher starts them.
        pipelining: a model can be split into stages.
        onnx: ``"module:attribute"`` of the `ipucnn.plugin.OnnxTarget` that describes which
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
        """Return whether a feature is supported; `onnx` and `int8` follow from other fields."""
        return (feature in self.features or feature in self.precisions
                or (feature == "onnx" and bool(self.onnx)))


@dataclass(frozen=True)
class LossSpec(PluginSpec):
    """A loss. ``target([options]) -> Loss`` (`ipucnn.plugin.Loss`).

    Attributes:
        multi_label: whether an image can have several labels.
        formula: the formula, for listings and the documentation.
    """

    multi_label: bool = False
    formula: str = ""


@dataclass(frozen=True)
class LoggerSpec(PluginSpec):
    """A training logger. ``target([options]) -> Logger`` (`ipucnn.plugin.Logger`)."""


@dataclass(frozen=True)
class LauncherSpec(PluginSpec):
    """Starts several processes for one run. ``target([options]) -> Launcher``.

    The interface is `ipucnn.plugin.Launcher`.

    Attributes:
        variables: names of environment variables; every process of the launcher has at least one of
            them.
    """

    variables: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tuple_of(str, "variables")


