"""A small trained model and the photographs it was trained on."""

from __future__ import annotations

import pytest

import ipucnn

_TRAINING = {"model": "resnet8-cifar", "data": "image_folder", "input_size": 32, "batch_size": 8,
            "backend": "torch", "precision": "full", "lr": 0.05, "optimizer": "sgd",
            "validation_mode": "none", "progress": False}


@pytest.fixture(scope="session")
def training():
    """Return the options of a training that takes about a second."""
    return dict(_TRAINING)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Return a folder with `train` and `validation`, of images of 40 pixels in 8 classes."""
    folder = tmp_path_factory.mktemp("photos") / "shapes"
    ipucnn.shapes(folder, per_class=4, size=40, validation_per_class=2)
    return folder


@pytest.fixture(scope="session")
def trained(training, photos, tmp_path_factory):
    """Return the folder of the checkpoint of a training of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    ipucnn.train(**training, data_dir=photos, epoch=1, checkpoint_path=folder)
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
