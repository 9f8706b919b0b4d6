"""The options of every command that works on a model, each declared once.

`ipucnn.core.declaration` turns a declaration into a command-line option, a profile key and a line
of the reference. Spellings of the older applications stand under `names`. Defaults are those of
the applications' README, except where a comment says otherwise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from ipucnn.core.declaration import as_dict, changed, option
from ipucnn.core.errors import UsageError

if TYPE_CHECKING:
    from ipucnn.core.execution import ExecutionPlan

_PRECISIONS = {"half": "16.16", "full": "32.32", "16.16": "16.16", "32.32": "32.32"}
_PLACES = {"device": "device", "ipu": "device", "host": "host", "none": "none"}


@dataclass(frozen=True)
class RunOptions:
    """Options of `ipucnn run`: classify images, or measure how fast that goes.

    Raises:
        UsageError: two options contradict each other.
    """

    config: Optional[str] = option(
        None, "Named profile or YAML file whose values replace the defaults.",
        group="Profile", metavar="NAME|FILE", switch=True)

    model: str = option("resnet18", "Model to run.", group="Model", kind="model",
                        names=("--model-name",))
    weights: str = option(
        "pretrained", "'pretrained', 'pretrained:TAG', 'random', or a weights file.",
        group="Model", metavar="pretrained|random|FILE")
    random_weights: bool = option(False, "The same as '--weights random'.", group="Model")
    weights_partial: bool = option(
        False, "Accept a weights file that lacks entries of the model or has others.",
        group="Model")
    num_classes: Optional[int] = option(
        None, "Classes of the model; those of the dataset or of the published weights when not "
        "given.", group="Model", minimum=1)
    normlayer: str = option("batch", "Normalisation layer.", group="Model", kind="norm-layer",
                            names=("--norm-type",))
    groupnorm_group_num: int = option(
        32, "Groups of group normalisation.", group="Model", minimum=1,
        names=("--norm-num-groups",))
    # None keeps what the model was designed with: EfficientNet's 1e-3 is not ResNet's 1e-5.
    norm_eps: Optional[float] = option(
        None, "Epsilon of the norm layers; the model's own when not given.", group="Model",
        exclusive_minimum=0.0)
    batchnorm_momentum: Optional[float] = option(
        None, "Momentum of batch norm's running statistics; the model's own when not given.",
        group="Model", exclusive_minimum=0.0, maximum=1.0)
    full_precision_norm: bool = option(
        False, "Compute norm layers in single precision within a half-precision model.",
        group="Model")
    input_image_padding: bool = option(
        False, "Pad images with a fourth, zero channel, which some devices prefer.", group="Model")
    efficientnet_expand_ratio: Optional[int] = option(
        None, "Expansion of EfficientNet's blocks after the first group; 6 in the paper.",
        group="Model", minimum=1, model_option=True)
    efficientnet_group_dim: Optional[int] = option(
        None, "Channels per group of EfficientNet's depthwise convolutions; 1 in the paper.",
        group="Model", minimum=1, model_option=True)

    data: str = option("real", "Dataset: your images, generated ones, or none at all.",
                       group="Data", kind="dataset")
    data_dir: Optional[str] = option(
        None, "Folder of the dataset; 'data/images' for 'real' when not given.", group="Data",
        names=("--imagenet-data-path",), metavar="DIR")
    skip_bad_samples: bool = option(
        False, "Count and report images that cannot be read instead of stopping.", group="Data")
    normalization_location: Optional[str] = option(
        None, "Where images are normalised; on the device when not given. 'none' feeds 0..255.",
        group="Data", choices=_PLACES, names=("--normalisation-location",))
    eight_bit_io: Optional[bool] = option(
        None, "Send images to the device as uint8; done when not given, unless the host "
        "normalises.", group="Data")
    dataloader_worker: Optional[int] = option(
        None, "Decoding threads; the cores this process may use when not given.", group="Data",
        minimum=1, names=("--num-workers",))
    seed: int = option(0, "Seed of everything random.", group="Data", minimum=0)

    backend: str = option("auto", "Execution engine; 'auto' takes the best usable built-in one.",
                          group="Execution", kind="backend")
    device: Optional[str] = option(
        None, "Device of the backend ('cpu', 'cuda', 'cuda:1'); the best when not given.",
        group="Execution", backend_option=True)
    batch_size: int = option(1, "Micro-batch: samples one replica computes at once.",
                             group="Execution", minimum=1, names=("--micro-batch-size",))
    device_iterations: int = option(
        1, "Steps on the device before control returns to the host.", group="Execution",
        minimum=1, names=("--device-iteration", "--batches-per-step"))
    replicas: int = option(1, "Data-parallel copies of the model.", group="Execution", minimum=1)
    pipeline_splits: Tuple[str, ...] = option(
        (), "Modules that begin the next pipeline stage, in order: 'layer1/2 layer2/3'.",
        group="Execution", metavar="MODULE...")
    precision: str = option(
        "16.16", "Floating point of compute and weights: half (16.16) or full (32.32).",
        group="Execution", choices=_PRECISIONS)
    iterations: Optional[int] = option(
        None, "Host calls; without it real data is gone through once and other data gets 100.",
        group="Execution", minimum=1)
    warmup: int = option(
        2, "First host calls left out of the statistics, at most half of the run.",
        group="Execution", minimum=0)
    time_limit: Optional[float] = option(
        None, "Stop after so many seconds and report what was done.", group="Execution",
        exclusive_minimum=0.0, metavar="SECONDS")
    compile: bool = option(False, "Compile the model for the device first.", group="Execution",
                           backend_option=True)
    model_cache_path: Optional[str] = option(
        None, "Folder that keeps compiled models for the next run.", group="Execution",
        backend_option=True, metavar="DIR")
    compile_only: bool = option(False, "Compile, fill the cache and stop.", group="Execution",
                                backend_option=True)

    half_partial: bool = option(
        False, "Accumulate partial sums of convolutions in half precision.", group="IPU",
        backend_option=True, names=("--half-partials",))
    available_memory_proportion: Tuple[float, ...] = option(
        (), "Share of tile memory for temporary values: one for all IPUs, or one per stage.",
        group="IPU", backend_option=True, exclusive_minimum=0.0, maximum=1.0)
    enable_fast_groupnorm: bool = option(
        False, "Group norm with strided channel grouping.", group="IPU", backend_option=True)
    num_io_tiles: int = option(0, "Tiles kept for input and output; 0, or at least 32.",
                               group="IPU", minimum=0, backend_option=True)
    exchange_memory_target: Optional[str] = option(
        None, "What tile exchanges are optimised for.", group="IPU", backend_option=True,
        choices=("cycles", "balanced", "memory"))
    offline_target_ipu_version: Optional[int] = option(
        None, "Compile for this IPU version without having one.", group="IPU",
        backend_option=True)
    profile: bool = option(False, "Write a profile of the device program.", group="IPU",
                           backend_option=True)

    predictions: Optional[str] = option(
        None, "Write a row per image: path, classes, names, probabilities.", group="Results",
        metavar="FILE.csv|.json|.parquet")
    top_k: int = option(5, "Classes per image in the predictions.", group="Results", minimum=1)
    result: Optional[str] = option(
        None, "Also write the result as JSON to this file.", group="Results",
        metavar="FILE.json")
    json: bool = option(False, "Print the result as JSON instead of a table.", group="Results",
                        switch=True)
    progress: str = option("auto", "Progress bar: on a terminal, always or never.",
                           group="Results", choices=("auto", "on", "off"), switch=True)

    def __post_init__(self) -> None:
        if self.random_weights and self.weights not in ("pretrained", "random"):
            raise UsageError(f"'--random-weights' contradicts '--weights {self.weights}'",
                             "leave one of them out")
        if self.weights_partial and self.chosen_weights == "random":
            raise UsageError("'--weights-partial' has no meaning for random weights",
                             "leave it out, or name weights with '--weights'")
        if self.top_k != RunOptions.top_k and not self.predictions:
            raise UsageError("'--top-k' is for predictions, and none are written",
                             "add '--predictions FILE', or leave it out")
        if 0 < self.num_io_tiles < 32:
            raise UsageError(f"option '--num-io-tiles': {self.num_io_tiles} is too small",
                             "use 0, or at least 32")
        memory = self.available_memory_proportion
        if len(memory) > 1 and len(memory) != len(self.pipeline_splits) + 1:
            raise UsageError(
                f"{len(memory)} available memory proportions for "
                f"{len(self.pipeline_splits) + 1} pipeline stages",
                "give one for all stages, or one for each")

    @property
    def chosen_weights(self) -> str:
        """What `--weights` and `--random-weights` mean together."""
        return "random" if self.random_weights else self.weights

    @property
    def model_options(self) -> Dict[str, Any]:
        """Options that only some models have and that were given."""
        return {item.name: getattr(self, item.name) for item in changed(self)
                if item.option.model_option}

    def plan(self, synthetic: bool) -> "ExecutionPlan":
        """Return what is to be executed; raises `UsageError` when it cannot be."""
        from ipucnn.core.execution import ExecutionPlan

        place = self.normalization_location or ("host" if self.eight_bit_io is False else "device")
        eight_bit = place != "host" if self.eight_bit_io is None else self.eight_bit_io
        return ExecutionPlan(
            micro_batch=self.batch_size, device_iterations=self.device_iterations,
            replicas=self.replicas, pipeline_splits=self.pipeline_splits,
            precision=self.precision, normalisation=place, eight_bit_io=eight_bit,
            synthetic=synthetic, full_precision_norm=self.full_precision_norm, seed=self.seed,
            backend_options={item.name: getattr(self, item.name) for item in changed(self)
                             if item.option.backend_option})

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain types."""
        return as_dict(self)
