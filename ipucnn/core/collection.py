"""How often Python's cyclic garbage collector runs in a process of the command line.

Most objects that exist at the start are from imports and stay until the process ends. Collections
among them find nothing; `benchmarks/collection.py` measures how long they take.
Source: Python's documentation of the module `gc`.
"""

from __future__ import annotations

import atexit
import gc

_THRESHOLDS = gc.get_threshold()

_RARE = 50_000
"""Number of new objects after which collections run while a command starts."""


def collect_rarely() -> None:
    """Collect rarely from now on, until `collect_as_usual`, and not at the end of the process.

    At the end, collections among the objects of torch and torchvision take most of a second.
    Files and other resources are closed by the code that uses them, not by collections; see
    `end_as_usual` for other code.
    """
    gc.set_threshold(_RARE, *_THRESHOLDS[1:])
    atexit.register(gc.freeze)  # collections leave frozen objects out


def collect_as_usual() -> None:
    """End `collect_rarely` before tensors are created, which cyclic garbage can hold."""
    if gc.get_threshold()[0] == _RARE:
        gc.set_threshold(*_THRESHOLDS)


def end_as_usual() -> None:
    """Collect at the end of the process, for code that leaves open files to Python.

    What such code has written into a file would be lost if nothing closed the file.
    """
    atexit.unregister(gc.freeze)
