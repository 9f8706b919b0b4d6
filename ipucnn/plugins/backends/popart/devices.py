"""Acquires and checks the devices of a program: IPUs, the IPU model, or an offline target."""

from __future__ import annotations

import logging
from typing import Any

import popart

from ipucnn.core.errors import UnavailableError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends._ipu.plans import check_count, check_target
from ipucnn.plugins.backends._ipu.sdk import first_line
from ipucnn.plugins.backends.popart.errors import RAISED
from ipucnn.plugins.backends.popart.options import PopArtOptions

log = logging.getLogger("ipucnn.popart")

_MODEL = {"ipuVersion": "ipu2", "tilesPerIPU": 1472}
"""The emulated IPU is a whole Mk2; PopART's default of 4 tiles is too small for networks."""


def needs_hardware(options: PopArtOptions) -> bool:
    """Return whether an IPU in this machine is needed."""
    return not options.ipu_model and options.offline_target_ipu_version is None


def available(count: int) -> bool:
    """Return whether a program can have this many IPUs here."""
    return bool(popart.DeviceManager().enumerateDevices(numIpus=count))


def check_devices(plan: ExecutionPlan, options: PopArtOptions) -> None:
    """Reject a plan for devices that are not available.

    Raises:
        UsageError: options that contradict each other, or IPUs that no process can have.
        UnavailableError: this machine has fewer IPUs.
    """
    check_target(plan, options, emulation="'--ipu-model'" if options.ipu_model else "",
                 remedy="leave it or '--ipu-model' out")
    offline = options.offline_target_ipu_version is not None
    check_count(plan, available if needs_hardware(options) else (lambda _count: True)
                if offline else None)


def acquire(plan: ExecutionPlan, options: PopArtOptions) -> Any:
    """Acquire and return the device of a plan that `check_devices` accepts.

    Raises:
        UnavailableError: all IPUs are in use.
    """
    manager, count = popart.DeviceManager(), plan.local_devices
    version = options.offline_target_ipu_version
    if version is not None:
        return manager.createOfflineIPUDevice({"numIPUs": count, "ipuVersion": f"ipu{version}"})
    if options.ipu_model:
        return manager.createIpuModelDevice({"numIPUs": count, **_MODEL})
    device = _on_demand(manager, count) if options.connection_type == "ondemand" \
        else manager.tryAcquireAvailableDevice(numIpus=count)
    if device is None:
        raise _in_use(count)
    return device


def _on_demand(manager: Any, count: int) -> Any:
    """Return a device that loading a program attaches: one that is free now, if there is any.

    PopART itself returns the first one, and loading fails while that is in use.
    """
    found = manager.enumerateDevices(
        numIpus=count, connectionType=popart.DeviceConnectionType.OnDemand)
    for device in found:
        if device.attach():
            device.detach()
            return device
    return found[0] if found else None


def reattach(device: Any) -> None:
    """Acquire the IPUs of a detached device again.

    Raises:
        UnavailableError: they are in use.
    """
    # the binding returns a new object, so that `is` is never true
    if device.connectionType == popart.DeviceConnectionType.OnDemand:
        return  # loading the program attaches, and attaching twice is not documented
    if not device.attach():
        raise _in_use(device.numIpus)


def release(device: Any) -> None:
    """Release the IPUs; an error is only logged, because its cause was already reported."""
    try:
        device.detach()
    except RAISED as error:
        log.debug("the IPUs could not be released: %s", first_line(error))


def _in_use(count: int) -> UnavailableError:
    return UnavailableError(f"no {count} IPUs are free" if count > 1 else "no IPU is free",
                            "'gc-monitor' shows who uses them; wait for them, or use fewer "
                            "'--replicas' or pipeline splits", exit_code=1)
