"""Groups of options that several commands share; a command's own are in its module."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import as_dict, changed, option

PLACES = {"device": "device", "ipu": "device", "host": "host", "none": "none"}
"""Where images are normalised, by every spelling."""


@dataclass(frozen=True)
class ModelOptions:
    """Which network, and how it is built."""

    config: Optional[str] = option(
        None, "Named profile or YAML file whose values replace the defaults.",
        group="Profile", metavar="NAME|FILE", switch=True)
    model: str = option("resnet18", "Model to run.", group="Model", kind="model",
                        names=("--model-name",))
    weights: str = option(
        "pretrained", "'pretrained', 'pretrained:TAG', 'random', or a weights file.",
        group="Model", metavar="pretrained|random|FILE")
    weights_partial: bool = option(
        False, "Accept a weights file that lacks entries of the model or has others.",
        group="Model")
    num_classes: Optional[int] = option(
        None, "Classes of the model; those of the dataset or of the published weights when not "
        "given.", group="Model", minimum=1)
    input_size: Optional[int] = option(
        None, "Height and width of the model's input in pixels; those that the model was designed "
        "for when not given.", group="Model", minimum=8)
    normlayer: str = option("batch", "Normalisation layer.", group="Model", kind="norm-layer",
                            names=("--norm-type",))
    groupnorm_group_num: int = option(
        32, "Groups of group normalisation.", group="Model", minimum=1,
        names=("--norm-num-groups", "--norm-groups"))
    # None keeps what the model was designed with: EfficientNet's 1e-3 is not ResNet's 1e-5.
    norm_eps: Optional[float] = option(
        None, "Epsilon of the norm layers; the model's own when not given.", group="Model",
        exclusive_minimum=0.0)
    batchnorm_momentum: Optional[float] = option(
        None, "Momentum of batch norm's running statistics; the model's own when not given.",
        group="Model", exclusive_minimum=0.0, maximum=1.0)
    input_image_padding: bool = option(
        False, "Pad images with a fourth, zero channel, which some devices prefer.", group="Model")
    efficientnet_expand_ratio: Optional[int] = option(
        None, "Expansion of EfficientNet's blocks after the first group; 6 in the paper.",
        group="Model", minimum=1, model_option=True)
    efficientnet_group_dim: Optional[int] = option(
        None, "Channels per group of EfficientNet's depthwise convolutions; 1 in the paper.",
        group="Model", minimum=1, model_option=True)
    shortcut_type: Optional[str] = option(
        None, "Shortcuts of residual networks: A pads with zeros where shapes differ, B projects "
        "there, C projects everywhere; the network's own when not given.", group="Model",
        choices=("A", "B", "C"), model_option=True)


@dataclass(frozen=True)
class DataOptions:
    """Where images come from and how they reach the device."""

    data_dir: Optional[str] = option(
        None, "Folder of the dataset, or for some datasets a URL; 'data/images' for 'real' when "
        "not given.", group="Data", names=("--imagenet-data-path",), metavar="DIR|URL")
    data_cache_dir: Optional[str] = option(
        None, "Folder for copies of what '--data-dir' has behind a URL; the user's cache when not "
        "given.", group="Data", metavar="DIR")
    data_cache_size: Optional[int] = option(
        None, "How many bytes of copies are kept, the last used ones ('20G'); 20G, or a tenth of "
        "what the disk has room for, when not given.", group="Data", size=True, minimum=1,
        metavar="SIZE")
    skip_bad_samples: bool = option(
        False, "Count and report images that cannot be read instead of stopping.", group="Data")
    normalization_location: Optional[str] = option(
        None, "Where images are normalised; on the device when not given. 'none' feeds 0..255.",
        group="Data", choices=PLACES, names=("--normalisation-location",))
    eight_bit_io: Optional[bool] = option(
        None, "Send images to the device as uint8; done when not given, unless the host "
        "normalises.", group="Data")
    dataloader_worker: Optional[int] = option(
        None, "Decoding threads, or processes where '--dataloader-mode' says so; the cores this "
        "process may use when not given.", group="Data", minimum=1, names=("--num-workers",))
    # threads start at once, share their memory and need no shared one: a default for any machine
    dataloader_mode: str = option(
        "threads", "Who decodes: threads of this process, or the worker processes of PopTorch's "
        "data loader in one of its modes, for more images per second than one process decodes.",
        group="Data", choices=("threads", "sync", "async", "rebatched"), backend_option=True)
    dataloader_rebatch_size: Optional[int] = option(
        None, "Images that a worker of mode 'rebatched' decodes at a time, at most a host call's; "
        "1024 when not given.", group="Data", minimum=1, backend_option=True)
    seed: int = option(0, "Seed of everything random.", group="Data", minimum=0)


@dataclass(frozen=True)
class ExecutionOptions:
    """What executes it, and in which shape."""

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
    full_precision_norm: bool = option(
        False, "Compute norm layers in single precision within a half-precision model.",
        group="Model", backend_option=True)
    pipeline_splits: Tuple[str, ...] = option(
        (), "Modules that begin the next pipeline stage, in order: 'layer1/2 layer2/3'.",
        group="Execution", metavar="MODULE...")
    compile: bool = option(False, "Compile the model for the device first.", group="Execution",
                           backend_option=True)
    model_cache_path: Optional[str] = option(
        None, "Folder that keeps compiled models for the next run.", group="Execution",
        backend_option=True, metavar="DIR")
    compile_only: bool = option(False, "Compile, fill the cache and stop.", group="Execution",
                                backend_option=True)


@dataclass(frozen=True)
class DeviceOptions:
    """What only some devices have."""

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
    prefetch_depth: Optional[int] = option(
        None, "Micro-batches that are sent ahead of their use; 3 with '--num-io-tiles' and the "
        "engine's own choice without, when not given.", group="IPU", minimum=1,
        backend_option=True)
    connection_type: Optional[str] = option(
        None, "When IPUs are taken: before compiling ('always', also when not given), or once the "
        "program is ready ('ondemand'), which leaves them to others meanwhile.", group="IPU",
        choices=("always", "ondemand"), backend_option=True)
    exchange_memory_target: Optional[str] = option(
        None, "What tile exchanges are optimised for.", group="IPU", backend_option=True,
        choices=("cycles", "balanced", "memory"))
    offline_target_ipu_version: Optional[int] = option(
        None, "Compile for this IPU version without having one.", group="IPU",
        backend_option=True)
    profile: bool = option(False, "Write a profile of the device program.", group="IPU",
                           backend_option=True, names=("--get-reports",))
    ipu_model: bool = option(False, "Simulate the IPU instead of using one.", group="IPU",
                             backend_option=True, names=("--simulation",))


@dataclass(frozen=True)
class ResultOptions:
    """What is told, and where."""

    result: Optional[str] = option(
        None, "Also write the result as JSON to this file.", group="Results",
        metavar="FILE.json")
    json: bool = option(False, "Print the result as JSON instead of a table.", group="Results",
                        switch=True)
    progress: str = option("auto", "Progress bar: on a terminal, always or never.",
                           group="Results", choices=("auto", "on", "off"), switch=True)


@dataclass(frozen=True)
class NetworkOptions(ResultOptions, DeviceOptions, ExecutionOptions, DataOptions, ModelOptions):
    """What every command that executes a network shares.

    Raises:
        UsageError: two options contradict each other.
    """

    def __post_init__(self) -> None:
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
    def model_options(self) -> Dict[str, Any]:
        """Options that only some models have and that were given."""
        return {item.name: getattr(self, item.name) for item in changed(self)
                if item.option.model_option}

    @property
    def backend_options(self) -> Dict[str, Any]:
        """Options that only some backends have and that were given."""
        return {item.name: getattr(self, item.name) for item in changed(self)
                if item.option.backend_option}

    @property
    def input(self) -> Tuple[str, bool]:
        """Where images are normalised, and whether they cross to the device as uint8."""
        place = self.normalization_location or ("host" if self.eight_bit_io is False else "device")
        return place, place != "host" if self.eight_bit_io is None else self.eight_bit_io

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain types."""
        return as_dict(self)
