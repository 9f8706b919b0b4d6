"""`--data cifar10` and `--data cifar100`: 32-pixel images, downloaded when missing."""

from __future__ import annotations

from typing import Iterable, Mapping, Tuple

from ipucnn.core.preprocessing import Channels, Preprocessing
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import PADDED_CROP, DatasetSpec

# mean and standard deviation of the training images, over all pixels
_STATISTICS: Mapping[int, Tuple[Channels, Channels]] = {
    10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))}
_MARKERS = {10: ("cifar-10-batches-*", "data_batch_1", "data_batch_1.bin"),
            100: ("cifar-100-python", "cifar-100-binary", "train.bin", "meta")}


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer both datasets."""
    files = "ipucnn.plugins.datasets._cifar_files:"
    return [
        DatasetSpec(
            name=f"cifar{classes}", aliases=(f"cifar-{classes}",), labelled=True,
            summary=f"CIFAR-{classes}: 32-pixel images of {classes} classes, downloaded if missing",
            target=f"{files}make_cifar{classes}", verify=f"{files}verify_cifar{classes}",
            preprocessing=Preprocessing(32, 1.0, mean=_STATISTICS[classes][0],
                                        std=_STATISTICS[classes][1]),
            recipe=PADDED_CROP, native_size=32, train_samples=50_000,
            markers=_MARKERS[classes],
            default_data_dir=f"data/cifar{classes}",
            layout=f"the published archive's folder, pickled or binary, in --data-dir "
                   f"(data/cifar{classes} when not given)")
        for classes in (10, 100)]
