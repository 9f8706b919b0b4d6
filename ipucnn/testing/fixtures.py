"""pytest fixtures for plugin authors.

Import them in a `conftest.py`::

    from ipucnn.testing.fixtures import cli, fake_distribution, isolated_registry, tiny_images
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple, Protocol

import pytest

from ipucnn.core.registry import discovery
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
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


@pytest.fixture
def isolated_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """Create registries without installed plugins and environment variables.

    A call takes files or modules, like `--plugin`, and sets the result as the registry of the
    process for this test.
    """
    for name in [name for name in os.environ if name.startswith("IPUCNN_")]:
        monkeypatch.delenv(name)

    def make(*extra: object) -> Registry:
        settings = PluginSettings(disable_all=True, extra=tuple(map(str, extra)))
        registries.use(Registry(replace(settings)))
        return registries.registry()

    yield make
    registries.use(None)


class Finished(NamedTuple):
    """The result of a command.

    Attributes:
        code: its exit code.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
    """

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Finished]]:
    """Return a function that runs a command line in this process, and returns a `Finished`."""
    # by name: this package is below the command line, which runs its suites
    invoke = importlib.import_module("ipucnn.__main__").invoke
    log, root = logging.getLogger("ipucnn"), logging.getLogger()
    before = log.level, list(root.handlers)

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        code = invoke(list(map(str, arguments)))
        shown = capsys.readouterr()
        return Finished(code, shown.out, shown.err)

    yield run
    log.setLevel(before[0])
    root.handlers[:] = before[1]
    registries.use(None)


@pytest.fixture
def tiny_images(tmp_path: Path) -> Path:
    """Return a folder of JPEG files in two classes; see `write_tiny_images`."""
    return write_tiny_images(tmp_path / "tiny-images")


def write_tiny_images(folder: Path, classes: int = 2, per_class: int = 3,
                      size: int = 40) -> Path:
    """Write a folder of JPEG files with a subfolder per class, in colours that differ by class.

    Args:
        folder: created if missing.
        classes: number of classes.
        per_class: images of each.
        size: height in pixels; the widths differ.
    """
    from PIL import Image

    for label in range(classes):
        part = folder / f"class{label}"
        part.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            colour = (255 * label // max(classes - 1, 1), 60 + 20 * number % 190, 128)
            Image.new("RGB", (size + 4 * number, size), colour).save(
                str(part / f"{number}.jpg"), "JPEG")
    return folder
