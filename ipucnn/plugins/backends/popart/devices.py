"""The IPUs of a program: real ones, an emulation, or a target to compile for."""

from __future__ import annotations

import logging
from typing import Any

import popart

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.popart.errors import RAISED
from ipucnn.plugins.backends.popart.sdk import first_line

log = logging.getLogger("ipucnn.popart")

VERSIONS = (1, 2, 21)
"""IPU generations that can be compiled for without hardware: Mk1, Mk2, and Mk2 with FP8."""

MOST_IPUS = 64
"""IPUs that one process can use."""

_MODEL = {"ipuVersion": "ipu2", "tilesPerIPU": 1472}
"""The emulated IPU is a whole Mk2; PopART's own default are 4 tiles, which hold no network."""


def needs_hardware(plan: ExecutionPlan) -> bool:
    """Return whether the plan needs an IPU in this machine."""
    return not plan.option("ipu_model") and plan.option("offline_target_ipu_version") is None


def most_ipus() -> int:
    """Return how many IPUs a program can have here; they are given out in powers of two."""
    manager, count = popart.DeviceManager(), 0
    while count < MOST_IPUS and manager.enumerateDevices(numIpus=2 * count or 1):
        count = 2 * count or 1
    return count


def check_devices(plan: ExecutionPlan) -> None:
    """Refuse a plan for devices that cannot be had.

    Raises:
        UsageError: options that contradict each other, or IPUs that no process can have.
        UnavailableError: this machine has fewer IPUs.
    """
    _check_target(plan)
    count = plan.local_devices
    need = f"{plan.local_replicas} replicas of {plan.stages} pipeline stages need {count} IPUs"
    if count > MOST_IPUS:
        raise UsageError(f"{need}, and a process can use {MOST_IPUS}",
                         "use fewer '--replicas' or pipeline splits")
    if not needs_hardware(plan):
        return
    if count & (count - 1):
        raise UsageError(f"{need}, and IPUs are only given out in powers of two",
                         "choose replicas and pipeline splits whose product is 1, 2, 4, 8 ...")
    if most_ipus() < count:
        raise UnavailableError(f"{need}, and this machine has fewer",
                               "use fewer '--replicas' or pipeline splits; 'gc-info -l' lists the "
                               "IPUs")


def acquire(plan: ExecutionPlan) -> Any:
    """Return the `popart.DeviceInfo` of a plan that `check_devices` accepts.

    Raises:
        UnavailableError: all IPUs are in use.
    """
    manager, count = popart.DeviceManager(), plan.local_devices
    version = plan.option("offline_target_ipu_version")
    if version is not None:
        return manager.createOfflineIPUDevice({"numIPUs": count, "ipuVersion": f"ipu{version}"})
    if plan.option("ipu_model"):
        return manager.createIpuModelDevice({"numIPUs": count, **_MODEL})
    taken = popart.DeviceConnectionType
    device = manager.tryAcquireAvailableDevice(
        numIpus=count, connectionType=taken.OnDemand
        if plan.option("connection_type") == "ondemand" else taken.Always)
    if device is None:
        raise _in_use(count)
    return device


def reattach(device: Any) -> None:
    """Take the IPUs of a device again that was detached from them.

    Raises:
        UnavailableError: they are in use.
    """
    if not device.attach():
        raise _in_use(device.numIpus)


def release(device: Any) -> None:
    """Leave the IPUs; what broke them was told by the call that met it."""
    try:
        device.detach()
    except RAISED as error:
        log.debug("the IPUs could not be released: %s", first_line(error))


def _in_use(count: int) -> UnavailableError:
    return UnavailableError(f"no {count} IPUs are free" if count > 1 else "no IPU is free",
                            "'gc-monitor' shows who uses them; wait for them, or use fewer "
                            "'--replicas' or pipeline splits", exit_code=1)


def _check_target(plan: ExecutionPlan) -> None:
    version = plan.option("offline_target_ipu_version")
    emulated = plan.option("ipu_model")
    if version is not None:
        if version not in VERSIONS:
            raise UsageError(f"option '--offline-target-ipu-version': there is no IPU version "
                             f"{version}", "versions: " + ", ".join(map(str, VERSIONS)))
        if emulated:
            raise UsageError("'--offline-target-ipu-version' and '--ipu-model' exclude each other",
                             "leave one of them out")
        if not plan.option("compile_only"):
            raise UsageError("a model compiled for an offline target cannot be run here",
                             "add '--compile-only'")
    if plan.option("connection_type") is not None and not needs_hardware(plan):
        raise UsageError("'--connection-type' has no meaning without IPUs to take",
                         "leave it out")
    if plan.option("model_cache_path") and emulated:
        raise UsageError("the IPU model keeps no compiled models: '--model-cache-path' has no "
                         "meaning there", "leave it or '--ipu-model' out")
