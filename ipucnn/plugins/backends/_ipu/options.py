"""The options of both IPU backends."""

from dataclasses import dataclass
from typing import Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import FULL_PRECISION
from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import CacheOptions

_NO_STATE = "with optimizer sgd_combined"
"""The tensors of `sgd_combined` are accumulators. Source: PopTorch 3.3, `python/optim.py`."""


@dataclass(frozen=True)
class IpuOptions(CacheOptions):
    """Options of every IPU backend.

    Raises:
        UsageError: IO tiles that cannot be reserved.
    """

    half_partial: bool = option(
        False, "Accumulate the partial sums of convolutions and matrix products in half "
        "precision.", names=("--half-partials",), validation=True, idle=FULL_PRECISION)
    available_memory_proportion: Tuple[float, ...] = option(
        (), "Proportion of tile memory that convolutions and matrix products may use for temporary "
        "values: one for all IPUs, or one for each pipeline stage.", exclusive_minimum=0.0,
        maximum=1.0, validation=True)
    enable_fast_groupnorm: bool = option(
        False, "Use strided channel grouping in group norm, which is faster.", validation=True,
        idle="without normlayer group")
    num_io_tiles: int = option(
        0, "Number of tiles reserved for input and output, which then overlap with computation: "
        "0, or an even number from 32 to 192.", minimum=0, validation=True)
    prefetch_depth: Optional[int] = option(
        None, "Number of micro-batches that are sent to the device in advance. Default: that of "
        "the Poplar SDK, or 3 with '--num-io-tiles'.", minimum=1, validation=True)
    connection_type: Optional[str] = option(
        None, "When IPUs are acquired: before compilation ('always', the default), or when the "
        "compiled program is loaded ('ondemand'), which leaves them to other processes during "
        "compilation.", choices=("always", "ondemand"), validation=True)
    exchange_memory_target: Optional[str] = option(
        None, "Objective of the optimisation of data exchange between tiles.",
        choices=("cycles", "balanced", "memory"), validation=True)
    offline_target_ipu_version: Optional[int] = option(
        None, "Compile for this IPU version without an IPU (1, 2 or 21); needs '--compile-only'.")
    profile: bool = option(
        False, "Write a profile of the device program, for the PopVision Graph Analyser.",
        names=("--get-reports",))
    offload_optimizer: bool = option(
        False, "Keep the optimizer state in the host's memory instead of the IPU's.",
        only="training", idle=_NO_STATE)
    enable_optimizer_rts: bool = option(
        False, "Shard the optimizer state over the replicas (replicated tensor sharding).",
        only="training", idle=_NO_STATE)
    enable_stochastic_rounding: bool = option(
        False, "Round half-precision results stochastically.", names=("--prng",), only="training",
        idle=FULL_PRECISION)
    enable_fp_exceptions: bool = option(
        False, "Stop at floating-point exceptions on the device.", names=("--fp-exceptions",),
        only="training")
    disable_stable_batchnorm: bool = option(
        False, "Compute norm statistics with a faster, numerically less stable algorithm.",
        only="training")
    auto_loss_scaling: bool = option(
        False, "Adjust the loss scaling automatically on the device.", only="training")
    loss_velocity_scaling_ratio: float = option(
        1.0, "Ratio of loss scaling to velocity scaling, for SGD with combined accumulators.",
        exclusive_minimum=0.0, only="training", idle="without optimizer sgd_combined")
    syncless_collectives: Optional[str] = option(
        None, "Whether collectives between replicas avoid synchronisation ('auto': chosen for each "
        "operation).", choices=("true", "false", "auto"), only="training",
        idle="without replicas")
    max_bytes_per_tile: Optional[int] = option(
        None, "Maximum number of bytes on an IO tile that a collective between replicas uses.",
        minimum=0, only="training", idle="without replicas")

    def __post_init__(self) -> None:
        tiles = self.num_io_tiles
        if 0 < tiles < 32:
            raise UsageError(f"option '--num-io-tiles': {tiles} is too small",
                             "use 0, or at least 32")
        if tiles % 2 or tiles > 192:
            raise UsageError(f"option '--num-io-tiles': {tiles} tiles cannot be set aside",
                             "use an even number from 32 to 192")
