"""pytest fixtures for plugin authors.

Use them with ``from ipucnn.testing.fixtures import fake_distribution`` in a `conftest.py`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Iterator, Mapping, Protocol

import pytest

from ipucnn.core.registry import discovery
from ipucnn.core.registry import registry as registries
from ipucnn.testing.distributions import write_distribution


class DistributionWriter(Protocol):
    """The type of the fixture `fake_distribution`."""

    def __call__(self, name: str, modules: Mapping[str, str], entry_points: Mapping[str, str],
                 version: str = "1.0") -> Path:
        """Write and install a distribution for this test; return its folder."""
        ...


@pytest.fixture
def fake_distribution(tmp_path: Path,
                      monkeypatch: pytest.MonkeyPatch) -> Iterator[DistributionWriter]:
    """Install distributions for one test.

    Each call writes one (see `ipucnn.testing.distributions.write_distribution`), puts it on
    `sys.path` and makes it visible to the next registry. Path, modules, metadata scan and current
    registry are restored after the test.
    """
    before = set(sys.modules)
    folders = []

    def install(name: str, modules: Mapping[str, str], entry_points: Mapping[str, str],
                version: str = "1.0") -> Path:
        folder = tmp_path / "installed" / name
        write_distribution(folder, name, modules, entry_points, version)
        folders.append(str(folder))
        monkeypatch.syspath_prepend(str(folder))
        discovery.refresh()
        registries.use(None)
        return folder

    yield install
    monkeypatch.undo()
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if any(origin.startswith(folder) for folder in folders):
            del sys.modules[name]
    importlib.invalidate_caches()
    discovery.refresh()
    registries.use(None)
