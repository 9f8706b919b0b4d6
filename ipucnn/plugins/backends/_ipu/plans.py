"""Checks for plans that IPUs cannot execute, for both IPU backends."""

from __future__ import annotations

from typing import Callable, Optional

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingSetup
from ipucnn.plugins.backends._ipu.options import IpuOptions

VERSIONS = (1, 2, 21)
"""IPU generations that can be compiled for without hardware: Mk1, Mk2, and Mk2 with FP8."""

MOST_IPUS = 64
"""IPUs that one process can use."""

EMULATED = "IPU model (an emulation: its speed means nothing)"
"""The name of the IPU model as a device."""


def most_ipus(available: Callable[[int], object]) -> int:
    """Return the most IPUs a program can have here; IPUs are only allocated in powers of two.

    Args:
        available: returns a true value if a program can have that many.
    """
    count = 0
    while count < MOST_IPUS and available(2 * count or 1):
        count = 2 * count or 1
    return count


def check_count(plan: ExecutionPlan, available: Optional[Callable[[int], object]]) -> None:
    """Reject a plan for more IPUs than a program can have.

    Args:
        plan: what is to be executed.
        available: returns a true value if this machine has that many IPUs; None when the plan
            needs no hardware.

    Raises:
        UsageError: no process can have as many IPUs.
        UnavailableError: this machine has fewer.
    """
    count = plan.local_devices
    need = f"{plan.local_replicas} replicas of {plan.stages} pipeline stages need {count} IPUs"
    if count > MOST_IPUS:
        raise UsageError(f"{need}, and a process can use {MOST_IPUS}",
                         "use fewer '--replicas' or pipeline splits")
    if available is None:
        return
    if count & (count - 1):
        raise UsageError(f"{need}, and IPUs are only allocated in powers of two",
                         "choose replicas and pipeline splits whose product is 1, 2, 4, 8 ...")
    if not available(count):
        raise UnavailableError(f"{need}, and this machine has fewer",
                               "use fewer '--replicas' or pipeline splits; 'gc-info -l' lists the "
                               "IPUs")


def check_target(plan: ExecutionPlan, options: IpuOptions, emulation: str, remedy: str) -> None:
    """Reject options that contradict the device: an offline target, or the IPU model.

    Args:
        plan: what is to be executed.
        options: of the backend.
        emulation: the setting that selects the IPU model; empty if it is not selected.
        remedy: how to resolve the contradiction with the IPU model.

    Raises:
        UsageError: they contradict it.
    """
    version = options.offline_target_ipu_version
    if version is not None:
        if version not in VERSIONS:
            raise UsageError(f"option '--offline-target-ipu-version': there is no IPU version "
                             f"{version}", "versions: " + ", ".join(map(str, VERSIONS)))
        if emulation:
            raise UsageError(f"'--offline-target-ipu-version' and {emulation} exclude each other",
                             remedy)
        if options.connection_type is not None:
            raise UsageError("'--connection-type' has no effect for an offline target, which has "
                             "no IPU to take", "leave it out")
        if not plan.compile_only:
            raise UsageError("a model compiled for an offline target cannot be run here",
                             "add '--compile-only'")
    if options.connection_type is not None and emulation:
        raise UsageError("'--connection-type' has no effect without IPUs to take", "leave it out")
    if options.model_cache_path and emulation:
        raise UsageError("the IPU model keeps no compiled models: '--model-cache-path' has no "
                         "effect there", remedy)


def check_transfers(plan: ExecutionPlan, options: IpuOptions) -> None:
    """Reject IO tiles where transfers cannot overlap with computation.

    Raises:
        UsageError: the plan is a pipeline.
    """
    if options.num_io_tiles and plan.pipeline_splits:
        raise UsageError("'--num-io-tiles' and pipeline splits exclude each other: transfers "
                         "cannot overlap with a pipeline", "leave one of them out")


def check_training(plan: ExecutionPlan, setup: TrainingSetup, options: IpuOptions) -> None:
    """Raise an error for training settings that no IPU supports.

    Raises:
        UsageError: the plan, the setup or an option requires it.
    """
    if setup.tolerate_non_finite:
        raise UsageError("'--skip-non-finite' has no effect on an IPU, which updates the weights "
                         "before the host receives the loss", "leave it out; "
                         "'--auto-loss-scaling' or a lower '--loss-scaling' may help")
    check_training_options(plan, options)


def check_training_options(plan: ExecutionPlan, options: IpuOptions) -> None:
    """Raise an error for training options that no IPU supports with this plan.

    Raises:
        UsageError: an option requires it.
    """
    if options.auto_loss_scaling and not plan.half:
        raise UsageError("'--auto-loss-scaling' follows gradients in half precision, and precision "
                         f"{plan.precision} has none",
                         "leave it out, or use '--precision 16.32' or '16.16'")
    if options.enable_optimizer_rts and plan.replicas == 1:
        raise UsageError("'--enable-optimizer-rts' shards the optimizer's state over replicas, "
                         "and there is one", "add '--replicas', or leave it out")
