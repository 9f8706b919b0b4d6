"""The options of the `torch` backend."""

from dataclasses import dataclass
from typing import Tuple

from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import CacheOptions, CallOptions, DeviceOptions, ThreadOptions


@dataclass(frozen=True)
class TorchOptions(ThreadOptions, CallOptions, CacheOptions, DeviceOptions):
    """Options of the `torch` backend."""

    compile: bool = option(False, "Compile the model with torch.compile.", validation=True)
    available_memory_proportion: Tuple[float, ...] = option(
        (), "Proportion of the device's memory for the activations of micro-batches that are "
        "computed together; of several values, the mean. Default: 0.25.", exclusive_minimum=0.0,
        maximum=1.0, only="training")
    sync_batchnorm: bool = option(
        False, "Compute the statistics of batch norm over the micro-batches of all replicas.",
        only="training")
    pipeline_schedule: str = option(
        "1f1b", "Order of the micro-batches in pipeline stages of several processes: each stage's "
        "forward and backward passes in turn, or all forward passes first ('gpipe').",
        choices=("1f1b", "gpipe"), only="training", idle="without pipeline_splits")
