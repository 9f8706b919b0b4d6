"""What a backend's record does not offer is refused before a training begins."""

from __future__ import annotations

import pytest

PLUGIN = """
import ipucnn

def build():
    from ipucnn.plugins.backends.torch.engine import TorchBackend
    return TorchBackend()

@ipucnn.hookimpl
def ipucnn_backends():
    return [ipucnn.BackendSpec(name="small", summary="s", target=build, training=True,
                               mixup=False, replicas=False)]
"""
TRAIN = ("train", "--backend", "small", "--model", "resnet8-cifar", "--data", "shapes", "--epoch",
         "1", "--iterations", "1", "--batch-size", "4", "--precision", "full", "--no-validation")


@pytest.mark.parametrize(("words", "message"), [
    (("--mixup-alpha", "0.2"), "backend 'small' does not mix images: '--mixup-alpha'"),
    (("--cutmix-lambda-low", "0.2", "--cutmix-lambda-high", "0.8"),
     "backend 'small' does not mix images"),
    (("--replicas", "2"), "backend 'small' has no replicas, and there are 2"),
    ((), ""),
])
def test_a_backend_refuses_what_its_record_lacks(cli, tmp_path, words, message):
    (tmp_path / "small.py").write_text(PLUGIN)
    done = cli("--plugin", tmp_path / "small.py", *TRAIN, *words)
    assert done.code == (2 if message else 0), done.err
    assert message in done.err


OPTIONS = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    small_cache: int = ipucnn.option(1, "c")
    small_tile: int = ipucnn.option(1, "t", validation=True)
'''


def test_validate_refuses_what_a_backend_declares_for_other_jobs(cli, tmp_path):
    source = PLUGIN.replace("import ipucnn\n", "import ipucnn\n" + OPTIONS, 1)
    source = source.replace("def build():", "def build(options):")
    (tmp_path / "small.py").write_text(source.replace("mixup=", "options=Options, mixup="))
    plugin = ("--plugin", tmp_path / "small.py")
    folder = ("--checkpoint-path", tmp_path / "ckpt")
    done = cli(*plugin, *TRAIN, *folder, "--small-cache", "2", "--no-report")
    assert done.code == 0, done.err
    done = cli(*plugin, "validate", *folder, "--small-cache", "3")
    assert (done.code, done.err.splitlines()[0]) == (
        2, "error: '--small-cache' does not apply to validation")
    done = cli(*plugin, "validate", *folder, "--small-tile", "3")
    assert done.code == 0, done.err
