"""Plugins that end the process or change it: the run fails with the plugin's name."""

from __future__ import annotations

import pytest

import ipucnn
from ipucnn.core.errors import PluginError

PLUGIN = """
import sys
import ipucnn
from ipucnn.plugin import ImageDataset

class Leaving(ImageDataset):
    class_names = ("a", "b")

    def __init__(self, request):
        pass

    def __len__(self):
        return 8

    def name(self, index):
        return f"leaving/{index}"

    def label(self, index):
        return index % 2

    def image(self, index):
        import torch
        if index == 5:
            LEAVES
        return torch.full((3, 32, 32), index, dtype=torch.uint8)

def build(num_classes):
    LEAVES

@ipucnn.hookimpl
def ipucnn_datasets():
    return [ipucnn.DatasetSpec(name="leaving", summary="s", target=Leaving, labelled=True)]

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="leaver", summary="s", target=build, input_size=32)]
"""
COMMON = ("--input-size", "32", "--batch-size", "2", "--precision", "full", "--progress", "off")
TRAIN = ("train", "--epoch", "1", "--no-validation", "--model", "resnet8-cifar", "--data",
         "leaving", "--checkpoint-path", "model", "--lr", "0.1", *COMMON)
RUN = ("run", "--model", "resnet8-cifar", "--weights", "random", "--data", "leaving",
       "--batch-size", "2", "--input-size", "32")
BUILD = ("run", "--model", "leaver", "--weights", "random", "--data", "generated",
         "--iterations", "1")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write the plugin that leaves in one way, and return its file."""
    monkeypatch.chdir(tmp_path)

    def write(leaves):
        path = tmp_path / "leaving.py"
        path.write_text(PLUGIN.replace("LEAVES", leaves))
        return path

    return write


@pytest.mark.parametrize("command", [TRAIN, RUN, BUILD], ids=["train", "run", "build"])
@pytest.mark.parametrize(("leaves", "shown"), [
    ("sys.exit()", "SystemExit"), ("sys.exit(0)", "SystemExit: 0"),
    ("sys.exit('no data')", "SystemExit: no data"),
])
def test_a_plugin_cannot_end_the_process(plugin, cli, command, leaves, shown):
    path = plugin(leaves)
    done = cli(*command, "--plugin", path)
    assert done.code == 1
    assert f"error: plugin '{path}' failed: {shown}; the traceback is above" in done.err


def test_a_plugin_cannot_pretend_an_interrupt(plugin, cli):
    path = plugin("raise KeyboardInterrupt")
    done = cli(*TRAIN, "--plugin", path)
    assert done.code == 1
    assert f"error: plugin '{path}' failed: KeyboardInterrupt; the traceback is above" in done.err


def test_a_plugin_cannot_end_a_script(plugin, isolated_registry):
    path = plugin("sys.exit(0)")
    isolated_registry(path)
    with pytest.raises(PluginError, match="failed: SystemExit: 0"):
        ipucnn.train(data="leaving", model="resnet8-cifar", input_size=32, batch_size=2, epoch=1,
                     lr=0.1, precision="full", no_validation=True, progress=False)
    with pytest.raises(PluginError, match="failed: SystemExit: 0"):
        ipucnn.run(data="leaving", model="resnet8-cifar", input_size=32, batch_size=2,
                   weights="random", progress=False)


def test_a_full_disk_of_a_plugin_is_not_that_of_standard_output(cli, plugin):
    """A failed `write` raises an error without the name of the file."""
    done = cli("--plugin", plugin('raise OSError(28, "No space left on device")'), *RUN)
    assert done.code == 1
    assert "failed: OSError: [Errno 28] No space left on device" in done.err
    assert "standard output" not in done.err
