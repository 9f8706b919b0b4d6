"""A job that cannot fit into the memory that is available is refused before the memory is taken."""

from __future__ import annotations

import resource

import pytest

import ipucnn
from ipucnn.core.errors import UsageError
from ipucnn.models import memory_checks

RUN = {"model": "resnet8-cifar", "weights": "random", "data": "generated", "backend": "torch",
       "precision": "full", "iterations": 1}
TRAIN = {**RUN, "batch_size": 4, "epoch": 1, "no_checkpoints": True, "lr": 0.1,
         "optimizer": "sgd"}


@pytest.fixture
def memory(monkeypatch):
    """Sets the bytes that are available."""
    return lambda count: monkeypatch.setattr(memory_checks, "available_memory", lambda: count)


@pytest.mark.parametrize(("changes", "need"), [
    ({}, "0.78 GB with gradients and optimizer state"),
    ({"optimizer": "adamw"}, "1.04 GB with gradients and optimizer state"),
    ({"optimizer": "adamw", "ema_decay": 0.9}, "1.30 GB with gradients and optimizer state")])
def test_weights_of_a_training_that_do_not_fit_are_not_made(memory, changes, need):
    memory(500_000_000)
    with pytest.raises(UsageError, match=rf"^the 65,074,640 weights of model 'resnet8-cifar' with "
                       rf"1,000,000 outputs need {need}, and 0.50 GB of memory are available "):
        ipucnn.train(**{**TRAIN, **changes}, num_classes=1_000_000)


def test_weights_of_a_run_that_do_not_fit_are_not_made(memory):
    memory(100_000_000)
    with pytest.raises(UsageError, match=r"outputs need 0\.26 GB, and 0\.10 GB") as caught:
        ipucnn.run(**RUN, num_classes=1_000_000)
    assert "--num-classes" in caught.value.hint


def test_the_images_of_a_host_call_fit(memory):
    memory(10_000_000)
    with pytest.raises(UsageError, match=r"3,000,000 images of 32 x 32 pixels.* need 27.65 GB") \
            as caught:
        ipucnn.run(**RUN, batch_size=3_000_000)
    assert "at most 1,085 images fit" in caught.value.hint


@pytest.mark.parametrize(("job", "changes", "need", "way"), [
    ("run", {"batch_size": 293}, "0.02 GB", "'--batch-size 228' or less"),
    ("train", {"batch_size": 300}, "0.09 GB", "'--batch-size 51' or less"),
    ("train", {"input_size": 256, "batch_size": 1}, "0.02 GB",
     "a smaller '--input-size' or '--recompute-mode auto'")])
def test_what_the_layers_keep_fits(memory, job, changes, need, way):
    memory(15_000_000)
    with pytest.raises(UsageError, match=f"the layers of the model need {need} or more") as caught:
        getattr(ipucnn, job)(**{**(RUN if job == "run" else TRAIN), **changes})
    assert caught.value.exit_code == 2
    assert way in caught.value.hint


def test_a_limit_of_address_space_counts(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 60, 1 << 60))
    left = memory_checks.address_space_left()
    assert 0 < left < 1 << 60
    monkeypatch.setattr(resource, "getrlimit", lambda _: ((1 << 60) - left, 1 << 60))
    assert memory_checks.address_space_left() < 1 << 30  # what this process maps meanwhile
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert memory_checks.address_space_left() is None


def test_memory_that_is_not_known_refuses_nothing(memory):
    memory(None)
    assert ipucnn.run(**RUN).images == 1
