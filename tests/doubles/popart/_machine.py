"""The IPUs that the double pretends to have, and PopART's way to them.

Processes set the environment:
    POPART_DOUBLE_IPUS: the number of IPUs.
    POPART_DOUBLE_BYTES: the memory for weights of each; `3:100` is 100 bytes on IPU 3 alone.
    POPART_DOUBLE_FAILS: `3:2` has IPU 3 fail in a session's second run.
    POPART_DOUBLE_POOL: a folder through which processes share the IPUs.
    POPART_DOUBLE_LOG: a file that gets a line of JSON for each event.
"""

import fcntl
import json
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Set

from popart import _enums
from popart._errors import (
    popart_exception,
    popart_runtime_error,
    poplar_application_runtime_error,
)

_TILES = {"ipu1": 1216, "ipu2": 1472, "ipu21": 1472}


@dataclass
class Machine:
    """A pretended machine.

    Attributes:
        ipus: IPUs in it.
        bytes_per_ipu: memory for weights; more is "out of memory". None is without limit.
        fails: an error that the next run of a session raises.
        taken: IPUs that a device of this process is attached to.
        events: what happened so far: sessions compiled, loaded from a cache, run.
    """

    ipus: int = field(default_factory=lambda: int(os.environ.get("POPART_DOUBLE_IPUS", "16")))
    bytes_per_ipu: Optional[int] = None
    fails: Optional[Exception] = None
    taken: Set[int] = field(default_factory=set)
    locks: Dict[int, Any] = field(default_factory=dict)
    events: List[Dict[str, Any]] = field(default_factory=list)

    def record(self, event, **facts):
        self.events.append({"event": event, **facts})
        if "POPART_DOUBLE_LOG" in os.environ:
            with open(os.environ["POPART_DOUBLE_LOG"], "a") as log:
                log.write(json.dumps(self.events[-1]) + "\n")

    def memory(self, ipus):
        """Return the bytes of the smallest of these IPUs; None is without limit."""
        ipu, _, size = os.environ.get("POPART_DOUBLE_BYTES", "").rpartition(":")
        if size and (not ipu or int(ipu) in ipus):
            return int(size)
        return self.bytes_per_ipu

    def check_run(self, ipus, number):
        """Raise what the run of this number, from 1, on these IPUs is to raise."""
        ipu, _, failing = os.environ.get("POPART_DOUBLE_FAILS", "").partition(":")
        if failing and int(ipu) in ipus and int(failing) == number:
            raise poplar_application_runtime_error(f"IPU {ipu}: an exception on a tile")
        if self.fails is not None:
            raise self.fails

    def take(self, ipus):
        """Take these IPUs for this process; False when one of them is in use."""
        taken = []
        for ipu in ipus:
            if ipu >= self.ipus or ipu in self.taken or not self._lock(ipu):
                self.give(taken)
                return False
            taken.append(ipu)
            self.taken.add(ipu)
        return True

    def give(self, ipus):
        for ipu in ipus:
            self.taken.discard(ipu)
            if ipu in self.locks:
                self.locks.pop(ipu).close()

    def _lock(self, ipu):
        """The lock ends with the process, however that ends."""
        pool = os.environ.get("POPART_DOUBLE_POOL")
        if pool is None:
            return True
        file = open(os.path.join(pool, f"ipu-{ipu}"), "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self.locks[ipu] = file
        return True


MACHINE = Machine()


class DeviceInfo:
    def __init__(self):
        raise TypeError("popart.DeviceInfo: No constructor defined!")

    @classmethod
    def _made(cls, kind, count, connection=_enums.DeviceConnectionType.Always, version="ipu2",
              tiles=None, ids=()):
        device = object.__new__(cls)
        device.__dict__.update(
            _type=kind, _connection=connection, version="ipu:" + version, ipuVersion=version,
            id=ids[0] if ids else 0, numIpus=count, tilesPerIPU=tiles or _TILES[version],
            driverIds=list(ids), isAttached=False, numWorkerContexts=6)
        device.__dict__["tilesPerIpu"] = device.tilesPerIPU
        return device

    def __setattr__(self, name, value):
        raise AttributeError(f"can't set attribute {name}")

    @property
    def type(self):
        return _enums.Returned(self._type)

    @property
    def connectionType(self):
        return _enums.Returned(self._connection)

    def attach(self):
        self._check_online("attach to")
        if self.isAttached:
            return True
        free = self.type != _enums.DeviceType.Ipu or MACHINE.take(self.driverIds)
        self.__dict__["isAttached"] = free
        return free

    def tryAttachUntilTimeout(self):
        return self.attach()

    def detach(self):
        self._check_online("detach from")
        if self.isAttached and self.type == _enums.DeviceType.Ipu:
            MACHINE.give(self.driverIds)
        self.__dict__["isAttached"] = False

    def _check_online(self, doing):
        if self.type == _enums.DeviceType.OfflineIpu:
            raise popart_exception(f"Cannot {doing} offline device")

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.detach()

    def __del__(self):
        if self.__dict__.get("isAttached"):
            self.detach()

    def __repr__(self):
        return f"DeviceInfo({self.type.name}, {self.numIpus} IPUs)"


class DeviceManager:
    def tryAcquireAvailableDevice(
            self, numIpus=1, tilesPerIpu=0, pattern=_enums.SyncPattern.Full,
            connectionType=_enums.DeviceConnectionType.Always,
            selectionCriterion=_enums.DeviceSelectionCriterion.First):
        _check(pattern, connectionType)
        if not isinstance(selectionCriterion, _enums.DeviceSelectionCriterion):
            raise TypeError("tryAcquireAvailableDevice(): incompatible function arguments")
        if numIpus < 1 or numIpus & (numIpus - 1):
            raise popart_exception(
                f"You have attempted to acquire {numIpus} IPUs. The number of IPUs requested must "
                "be a power of two")
        for first in range(0, MACHINE.ipus - numIpus + 1, numIpus):
            device = self._device(range(first, first + numIpus), connectionType, tilesPerIpu)
            on_demand = connectionType is _enums.DeviceConnectionType.OnDemand
            if on_demand or device.attach():
                return device
        return None

    def acquireAvailableDevice(
            self, numIpus=1, tilesPerIpu=0, pattern=_enums.SyncPattern.Full,
            connectionType=_enums.DeviceConnectionType.Always,
            selectionCriterion=_enums.DeviceSelectionCriterion.First):
        device = self.tryAcquireAvailableDevice(numIpus, tilesPerIpu, pattern, connectionType,
                                                selectionCriterion)
        if device is None:
            raise popart_exception(
                f"Failed to acquire device with {numIpus} IPUs. Ensure that there are sufficient "
                "IPUs available. If you have enabled the Poplar SDK you can check device "
                "availability with the `gc-monitor` command-line utility.")
        return device

    def tryAcquireDeviceById(self, id, pattern=_enums.SyncPattern.Full,
                             connectionType=_enums.DeviceConnectionType.Always):
        _check(pattern, connectionType)
        if not 0 <= id < MACHINE.ipus:
            return None
        device = self._device([id], connectionType, 0)
        on_demand = connectionType is _enums.DeviceConnectionType.OnDemand
        return device if on_demand or device.attach() else None

    def acquireDeviceById(self, id, pattern=_enums.SyncPattern.Full,
                          connectionType=_enums.DeviceConnectionType.Always):
        device = self.tryAcquireDeviceById(id, pattern, connectionType)
        if device is None:
            raise popart_exception(
                f"Failed to acquire device with id '{id}'. Ensure it is available. If you have "
                "enabled the Poplar SDK you can check device availability with the `gc-monitor` "
                "command-line utility.")
        return device

    def createCpuDevice(self):
        return DeviceInfo._made(_enums.DeviceType.Cpu, 1, tiles=1)

    def createIpuModelDevice(self, e):
        return _described(_enums.DeviceType.IpuModel, e, ("compileIPUCode",))

    def createOfflineIPUDevice(self, opts):
        return _described(_enums.DeviceType.OfflineIpu, opts, (),
                          _enums.DeviceConnectionType.Never)

    def enumerateDevices(self, pattern=_enums.SyncPattern.Full, numIpus=1,
                         deviceType=_enums.DeviceType.Ipu,
                         connectionType=_enums.DeviceConnectionType.Always, tilesPerIPU=0):
        if deviceType is not _enums.DeviceType.Ipu:
            return []
        return [self._device(range(first, first + numIpus), connectionType, tilesPerIPU)
                for first in range(0, MACHINE.ipus - numIpus + 1, numIpus)]

    def setOnDemandAttachTimeout(self, attachTimeout):
        if not isinstance(attachTimeout, int):
            raise TypeError("setOnDemandAttachTimeout(): incompatible function arguments")

    @staticmethod
    def _device(ids, connection, tiles):
        return DeviceInfo._made(_enums.DeviceType.Ipu, len(ids), connection, tiles=tiles, ids=ids)


def _check(pattern, connection):
    if not (isinstance(pattern, _enums.SyncPattern)
            and isinstance(connection, _enums.DeviceConnectionType)):
        raise TypeError("incompatible function arguments")
    if connection is _enums.DeviceConnectionType.Never:
        raise popart_exception("Trying to acquire a hardware device when connectionType is "
                               "DeviceConnectionType::Never")


def _described(kind, given, more, connection=_enums.DeviceConnectionType.Always):
    known = ("numIPUs", "tilesPerIPU", "ipuVersion", "syncPattern", *more)
    for key in given:
        if key not in known:
            raise popart_runtime_error(f"the double has no device option {key}")
    version = str(given.get("ipuVersion", "ipu2"))
    if version not in _TILES:
        raise popart_exception(f"Unrecognised ipuVersion {version}")
    return DeviceInfo._made(kind, int(given.get("numIPUs", 1)), connection, version,
                            int(given.get("tilesPerIPU", 0)))
