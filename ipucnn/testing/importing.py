"""Conformance suite for the import of the plugin modules of a distribution."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple
from unittest import SkipTest

from ipucnn.core.errors import UnknownNameError
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.discovery import LOCAL, Provider
from ipucnn.core.registry.registry import Registry
from ipucnn.testing.suite import Checks, require

HEAVY = ("torch", "torchvision", "tensorflow", "jax", "onnx", "onnxruntime", "openvino", "ncnn",
         "pandas")
"""Packages that plugin modules must not import."""

_PROGRAM = """
import contextlib, json, os, sys, time
target, place, heavy, report = json.loads(sys.argv[1])
sys.path[:] = json.loads(sys.argv[2])
import ipucnn
from ipucnn.core.registry.plugin_files import import_plugin
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.process_settings import changed, recorded
import ipucnn.plugin, ipucnn.core.options.declaration, ipucnn.core.execution.backend
import ipucnn.data, ipucnn.core.loggers, ipucnn.core.execution.losses
import ipucnn.core.execution.launching, ipucnn.core.execution.training_session
import pluggy, dataclasses, typing, pathlib, subprocess, socket

def others():
    return {"environment variables": dict(os.environ),
            "'sys.stdout' or 'sys.stderr'": (sys.stdout, sys.stderr)}

before, others_before, found = recorded(), others(), {"error": ""}
had, start = set(sys.modules), time.perf_counter()
try:
    module = import_plugin(target, place)
    for kind in KINDS.values():
        for record in getattr(module, kind.hook, tuple)():
            if isinstance(record.options, str):
                name, _, attribute = record.options.partition(":")
                getattr(__import__(name, fromlist=[attribute]), attribute)
except BaseException as error:
    found["error"] = f"{type(error).__name__}: {error}"
found["seconds"] = time.perf_counter() - start
found["heavy"] = sorted(name for name in heavy if name in sys.modules and name not in had)
found["changed"] = [setting.what for setting in changed(before)] + [
    name for name, value in others().items() if value != others_before[name]]
with contextlib.suppress(Exception):
    sys.stdout.flush()
with open(report, "w") as file:
    json.dump(found, file)
os._exit(0)
"""


@dataclass(frozen=True)
class Imported:
    """The observations of a process that imported a plugin module and called its hooks.

    Attributes:
        error: the error; empty if there was none.
        seconds: duration, without the import of ipucnn.
        heavy: the packages of `HEAVY` that were imported.
        changed: the settings of the process that were changed.
        output: what was written to the file descriptor 1.
    """

    error: str
    seconds: float
    heavy: Tuple[str, ...]
    changed: Tuple[str, ...]
    output: str


def imported(provider: Provider) -> Imported:
    """Import a plugin module in a separate process; cached for an entry point."""
    local = provider.entry_point == LOCAL
    return _imported(provider.value, local, tuple(sys.path), os.getcwd())


@functools.lru_cache(maxsize=64)
def _imported(target: str, local: bool, path: Tuple[str, ...], folder: str) -> Imported:
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.json")
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM,
             json.dumps([target, local, list(HEAVY), str(report)]),
             json.dumps([part or folder for part in path])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if not report.exists():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            return Imported(" ".join(["the process ended", *last]), 0.0, (), (), "")
        found = json.loads(report.read_text(encoding="utf-8"))
    return Imported(found["error"], found["seconds"], tuple(found["heavy"]),
                    tuple(found["changed"]), done.stdout.decode(errors="replace"))


class ImportSuite(Checks):
    """Checks how the plugin modules of a distribution, or a file for `--plugin`, are imported.

    Each module is imported in a separate process, which calls its hooks and imports the classes of
    options, as listings, completion and `--help` do.

    Attributes:
        name: of the distribution, or the file.
        seconds: the longest time that a plugin module may take.
    """

    seconds: ClassVar[float] = 1.0
    name: str = ""
    registry: ClassVar[Optional[Registry]] = None

    def providers(self) -> List[Provider]:
        """Return the entry points, one for each plugin module.

        Raises:
            UnknownNameError: there is no such distribution.
        """
        used = self.registry or registries.registry()
        found: Dict[str, Provider] = {}
        for row in used.rows():
            if row.provider.answers_to(self.name) or row.provider.value == self.name:
                found.setdefault(row.provider.value, row.provider)
        if not found:
            raise UnknownNameError(f"there is no plugin distribution or file {self.name!r}")
        return list(found.values())

    def results(self) -> Mapping[str, Imported]:
        """Return the observations for each plugin module."""
        return {provider.value: imported(provider) for provider in self.providers()}

    def test_import_raises_nothing(self) -> None:
        """The module can be imported, its hooks called and its options classes imported."""
        for name, found in self.results().items():
            require(not found.error, f"importing {name!r} raises {found.error}")

    def test_import_needs_no_heavy_package(self) -> None:
        """Neither the module nor its options classes import torch or another heavy package."""
        for name, found in self.results().items():
            require(not found.heavy, f"importing {name!r} imports {', '.join(found.heavy)}: "
                    "import it in the implementation, which records name as text")

    def test_import_is_fast(self) -> None:
        """The import takes at most `seconds`, in the fastest of three attempts."""
        for provider in self.providers():
            if imported(provider).heavy:
                raise SkipTest("it imports " + ", ".join(imported(provider).heavy))
            taken = imported(provider).seconds
            for _ in range(2):
                if taken > self.seconds:
                    _imported.cache_clear()
                    taken = min(taken, imported(provider).seconds)
            require(taken <= self.seconds, f"importing {provider.value!r} takes {taken:.1f} s, "
                    f"expected at most {self.seconds:g} s")

    def test_import_writes_nothing(self) -> None:
        """The import writes nothing to standard output or its file descriptor."""
        for name, found in self.results().items():
            shown = " ".join(found.output.split())[:60]
            require(not found.output, f"importing {name!r} writes to standard output: {shown!r}")

    def test_import_changes_no_setting(self) -> None:
        """The import does not change the working directory, random states or signal handlers."""
        for name, found in self.results().items():
            require(not found.changed, f"importing {name!r} changes {', '.join(found.changed)}")


def import_checks(name: str, registry: Registry, **settings: Any) -> Dict[str, str]:
    """Run `ImportSuite` on a distribution or a file; see `ipucnn.testing.suite.run`."""
    from ipucnn.testing.suite import run

    return run(type("Checked", (ImportSuite,), {"name": name, "registry": registry, **settings}))
