"""`--data cifar10` and `--data cifar100`: 32-pixel images, downloaded when missing."""

from __future__ import annotations

from typing import Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec

_MARKERS = {10: ("cifar-10-batches-*", "data_batch_1", "data_batch_1.bin"),
            100: ("cifar-100-python", "cifar-100-binary", "train.bin", "meta")}


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer both datasets."""
    files = "ipucnn.plugins.datasets._cifar_files:"
    return [
        DatasetSpec(
            name=f"cifar{classes}", aliases=(f"cifar-{classes}",), labelled=True,
            summary=f"CIFAR-{classes}: 32-pixel images of {classes} classes, fetched when missing",
            target=f"{files}make_cifar{classes}", verify=f"{files}verify_cifar{classes}",
            markers=_MARKERS[classes], default_data_dir=f"data/cifar{classes}",
            layout=f"the published archive's folder, pickled or binary, in --data-dir "
                   f"(data/cifar{classes} when not given)")
        for classes in (10, 100)]
