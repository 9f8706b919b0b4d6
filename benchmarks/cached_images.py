"""Training on small images with `--cache-images` against a hand-written loop with a DataLoader.

The hand-written loop reads the same JPEG files with torch's `DataLoader` (decoding by torchvision's
libjpeg-turbo, random resized crop and flip of `transforms.v2`; as many worker processes as are
fastest here) and trains the same network: channels-last, fused SGD, no metrics, nothing written.
`ipucnn train` has everything on. The two take turns, an epoch each, after a first epoch of both
that is not counted; that of `ipucnn`, which fills the cache, is given separately. Each has its own
process, because a command sets the memory allocator of its process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
from common import save, summary
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

import ipucnn
from ipucnn.core.allocator import keep_freed_memory
from ipucnn.core.machine import usable_cores
from ipucnn.core.options.building import build
from ipucnn.core.progress import Listener
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.training.job import train
from ipucnn.training.options.train_options import TrainOptions

sys.path.insert(0, str(Path(__file__).parent / "data"))
from images import photograph

CLASSES, SIZE, BATCH, LEAST_AREA = 8, 32, 64, 0.35
NETWORKS = ("resnet8-cifar", "resnet18")
MODES = ("none", "ram", "disk")


def write_images(folder: Path, kind: str, count: int) -> None:
    """Write `count` JPEG files in class folders: of 48 pixels, or photographs of 500x375."""
    if kind == "small":
        write_made("shapes", str(folder), GeneratedFiles(per_class=count // CLASSES, size=48))
        return
    different = [photograph(number) for number in range(min(count, 48))]
    for number in range(count):
        place = folder / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06}.jpg").write_bytes(different[number % len(different)])


class Loop:
    """The hand-written loop.

    Args:
        network: name of the model.
        folder: class folders of JPEG files.
        workers: of the `DataLoader`.
    """

    def __init__(self, network: str, folder: Path, workers: int) -> None:
        torch.manual_seed(0)
        changes = v2.Compose([v2.RandomResizedCrop(SIZE, scale=(LEAST_AREA, 1), antialias=True),
                              v2.RandomHorizontalFlip()])
        images = ImageFolder(
            str(folder), changes,
            loader=lambda path: decode_jpeg(read_file(path), ImageReadMode.RGB))
        self._loader: Any = DataLoader(
            images, BATCH, shuffle=True, num_workers=workers, drop_last=True,
            persistent_workers=workers > 0, multiprocessing_context="fork" if workers else None)
        model = ipucnn.create_model(network, weights="random", num_classes=CLASSES)
        self._model = model.train().to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9,
                                          weight_decay=1e-4, fused=True)
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (
            (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def epoch(self) -> int:
        """Train one epoch and return its number of images."""
        done = 0
        for images, labels in self._loader:
            batch = images.to(memory_format=torch.channels_last).float().div_(255)
            batch = batch.sub_(self._mean).div_(self._std)
            loss = torch.nn.functional.cross_entropy(self._model(batch), labels)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            done += len(labels)
        return done


def loop_process(network: str, folder: Path, workers: int, connection: Connection) -> None:
    """Train an epoch for every message, and answer with its images per second."""
    torch.set_num_threads(usable_cores())
    loop = Loop(network, folder, workers)
    while connection.recv():
        started = time.perf_counter()
        done = loop.epoch()
        connection.send(done / (time.perf_counter() - started))


class Other:
    """The hand-written loop in a process of its own."""

    def __init__(self, network: str, folder: Path, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=loop_process,
                                        args=(network, folder, workers, theirs))
        self._process.start()
        theirs.close()  # so that the end of the process is noticed

    def epoch(self) -> float:
        """Train an epoch and return its images per second."""
        self._connection.send(True)
        found: float = self._connection.recv()
        return found

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._connection.send(False)
        self._process.join()


class Turns(Listener):
    """Lets the other loop train an epoch after each one of ours, and keeps the rates."""

    def __init__(self, other: Other) -> None:
        self._other = other
        self.ours: List[float] = []
        self.theirs: List[float] = []

    def row(self, row: Dict[str, Any]) -> None:
        """Take a turn after an epoch."""
        if row["kind"] == "epoch":
            self.ours.append(row["images_per_second"])
            self.theirs.append(self._other.epoch())


def best_loop(network: str, folder: Path, held: ExitStack) -> Tuple[Other, int]:
    """Return the hand-written loop with the number of workers that is fastest here."""
    found: Dict[int, Tuple[float, Other]] = {}
    for workers in sorted({0, 1, usable_cores()}):
        loop = held.enter_context(closing(Other(network, folder, workers)))
        loop.epoch()
        found[workers] = loop.epoch(), loop
    best = max(found, key=lambda workers: found[workers][0])
    return found[best][1], best


def measure(network: str, folder: Path, mode: str, rounds: int, loop: Other,
            cache: str) -> Dict[str, Any]:
    """Train both for some epochs and return their rates."""
    turns = Turns(loop)
    with tempfile.TemporaryDirectory() as logs:
        result = train(build(TrainOptions, {
            "model": network, "data": "image_folder", "data_dir": str(folder), "input_size": SIZE,
            "batch_size": BATCH, "optimizer": "sgd", "lr": 0.01, "precision": "full",
            "backend": "torch", "epoch": rounds + 1, "validation_mode": "none",
            "min_crop_area": LEAST_AREA, "log_dir": logs, "no_checkpoints": True,
            "no_report": True, "cache_images": mode,
            **({"cache_images_dir": cache} if mode == "disk" else {})}), listener=turns)
    ours, theirs = turns.ours[1:], turns.theirs[1:]
    return {"images_per_second": {"ipucnn": summary(ours, 1), "hand-written": summary(theirs, 1)},
            "ratio_to_hand_written": summary([a / b for a, b in zip(ours, theirs)]),
            "first_epoch_images_per_second": round(turns.ours[0], 1),
            "data_wait_share": round(result.data_wait_share, 4)}


def main() -> None:
    """Measure every network, kind of images and mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--network", nargs="+", default=NETWORKS)
    parser.add_argument("--kind", nargs="+", default=("small", "photographs"))
    parser.add_argument("--mode", nargs="+", default=MODES)
    chosen = parser.parse_args()
    torch.set_num_threads(usable_cores())
    keep_freed_memory()  # as the command
    measured: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as base:
        for kind in chosen.kind:
            folder = Path(base) / kind
            write_images(folder, kind, chosen.images)
            for network in chosen.network:
                with ExitStack() as held:
                    loop, workers = best_loop(network, folder, held)
                    case = measured[f"{network}, {SIZE} pixels, {kind}"] = {
                        "hand-written loop": f"{workers} worker processes"}
                    for mode in chosen.mode:
                        case[mode] = measure(network, folder, mode, chosen.rounds, loop,
                                             os.path.join(base, "cache"))
    save("cached_images", {
        "what": "training on JPEG files, micro-batch 64, with and without --cache-images",
        "images": chosen.images, "rounds": chosen.rounds, "cases": measured})


if __name__ == "__main__":
    main()
