"""Settings of the process while sessions are open, which may overlap."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Dict, Iterator, List, Optional

import torch

from ipucnn.plugins.backends._threads import refuse_threads, threads_of
from ipucnn.plugins.backends.torch.devices import Device

_THREADS, _MATMUL = "threads", "matmul"


class ProcessSettings:
    """The settings of the process for a session.

    The newest open session determines a setting; the value from before the first one is restored
    when all of them are closed, in any order.

    On a CPU, it is the number of threads. On a CUDA device, TensorFloat-32 is disabled in single
    precision, because it has only 10 bits of fraction. Trainings use cuDNN's deterministic
    algorithms, so that they can be repeated; inference lets cuDNN find the fastest algorithms.

    Args:
        device: where a session computes.
        half: whether it computes in half precision.
        training: whether it trains.
        threads: the value of `--threads`; None for the default.

    Raises:
        UsageError: there are fewer cores, or the device is no CPU.
    """

    def __init__(self, device: Device, half: bool, training: bool,
                 threads: Optional[int] = None) -> None:
        if device.place.type != "cpu":
            refuse_threads(threads, device.place.type)
        self._values = _of_card(half, training) if device.place.type == "cuda" \
            else {_THREADS: threads_of(threads, openmp=True)}
        self._before: Dict[str, Any] = {}
        self.apply()

    def apply(self) -> None:
        """Set the values again after `restore`."""
        with _lock:
            if self in _open:
                return
            # all are read first: some follow others
            self._before = {path: _get(path) for path in self._values}
            for path, value in self._values.items():
                _set(path, value)
            _open.append(self)

    def restore(self) -> None:
        """Restore the previous values, unless a newer session still needs others.

        A setting that has been changed by others since is left as it is.
        """
        with _lock:
            if self not in _open:
                return
            newer = _open[_open.index(self) + 1:]
            _open.remove(self)
            for path, before in self._before.items():
                heir = next((one for one in newer if path in one._before), None)
                if heir is not None:
                    heir._before[path] = before
                elif _get(path) == self._values[path]:
                    _set(path, before)

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Restore the previous values if the block raises."""
        try:
            yield
        except BaseException:
            self.restore()
            raise


_open: List[ProcessSettings] = []
"""Those of open sessions, the newest one last."""

_lock = threading.Lock()


def _of_card(half: bool, training: bool) -> Dict[str, Any]:
    """Return the settings below `torch.backends`; those that others follow come first."""
    values: Dict[str, Any] = {"cudnn.deterministic": training, "cudnn.benchmark": not training}
    if half:
        return values
    if not hasattr(torch.backends.cudnn, "conv"):
        return {**values, _MATMUL: "highest", "cudnn.allow_tf32": False}
    # the interface of torch 2.9 and newer, which refuses a mixture with the older one; there,
    # convolutions do not follow the setting of cuDNN everywhere (pytorch/pytorch#179445)
    return {**values, _MATMUL: "highest", "cudnn.fp32_precision": "ieee",
            "cuda.matmul.fp32_precision": "ieee",
            "cudnn.conv.fp32_precision": "ieee", "cudnn.rnn.fp32_precision": "ieee"}


def _get(path: str) -> Any:
    if path == _THREADS:
        return torch.get_num_threads()
    if path == _MATMUL:
        try:
            return torch.get_float32_matmul_precision()
        except RuntimeError:  # it was set by the newer interface only
            return "highest"
    return attrgetter(path)(torch.backends)


def _set(path: str, value: Any) -> None:
    if path == _THREADS:
        torch.set_num_threads(value)
    elif _get(path) == value:  # what follows another setting continues to follow it
        return
    elif path == _MATMUL:
        torch.set_float32_matmul_precision(value)
    else:
        owner, _, name = path.rpartition(".")
        setattr(attrgetter(owner)(torch.backends), name, value)
