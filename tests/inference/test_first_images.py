"""The first images of a run are prepared while the network is compiled."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from waiting_backend import SEEN

from ipucnn.core.errors import IpucnnError
from ipucnn.core.options.building import build
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.data import DatasetRequest
from ipucnn.inference.job import run
from ipucnn.inference.options import RunOptions
from ipucnn.plugins.datasets._unlabelled_images import make

BACKEND = str(Path(__file__).with_name("waiting_backend.py"))


class _Seen:
    """A folder of photographs that creates a file when an image is read."""

    def __init__(self, folder, seen):
        self._images, self._seen = make(DatasetRequest(str(folder))), seen

    def __getattr__(self, name):
        return getattr(self._images, name)

    def __len__(self):
        return len(self._images)

    def encoded(self, index):
        # the caller may look at the first image to learn how large it is
        if threading.current_thread() is not threading.main_thread():
            self._seen.touch()
        return self._images.encoded(index)


@pytest.fixture
def classified(tiny_images, tmp_path, monkeypatch):
    def classify(name):
        seen = tmp_path / name
        monkeypatch.setenv(SEEN, str(seen))
        registry = Registry(PluginSettings(extra=(BACKEND,)))
        options = build(RunOptions, {
            "model": "resnet8-cifar", "weights": "random", "num_classes": 5, "batch_size": 4,
            "backend": "waiting", "precision": "full"}, registry=registry)
        return run(options, registry, images=_Seen(tiny_images, seen))

    return classify


def _decoding():
    return [each.name for each in threading.enumerate() if each.name.startswith("ipucnn-decode")]


def test_images_are_read_before_compilation_ends(classified):
    result = classified("succeeds")
    assert (result.images, result.stopped_by) == (6, None)
    assert len(result.answers) == 6


def test_they_are_no_longer_read_when_it_fails(classified):
    with pytest.raises(IpucnnError, match="the compiler failed"):
        classified("fails")
    assert not _decoding()
