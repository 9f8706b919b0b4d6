"""Images per second of every loader there is, on the same 500x375 JPEG files, in turns.

Two workers everywhere, batches of 256, and the usual training transform: a random crop resized to
224 pixels, and a random flip. All loaders have read the images once before they are
measured, so their processes run and the files are in the page cache. In every round each goes
through all of them twice, and the second time counts: some systems take back memory that was idle
while the others had their turn. Ratios are those within a round.

`ipucnn` gives batches of uint8, which the device normalises, or normalised ones; the others give
normalised floats. timm's transform is without colour jitter here, which the others do not have.
Needs timm (`pip install timm`).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List

import timm
import torch
import torchvision
import webdataset
from timm.data import create_dataset, create_loader
from torchvision import transforms

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import save, summary
from images import photograph, write_files, write_shards

from ipucnn import load_dataset
from ipucnn.benchmarking.host import bare_decoding
from ipucnn.core.execution.feeding import Fed
from ipucnn.data.augment import TrainTransform
from ipucnn.data.images import decoder_versions
from ipucnn.data.session_loader import feed

WORKERS = 2
BATCH = 256
SIZE = 224
PER_SHARD = 100

Pass = Callable[[int], int]
"""Goes through all images, given the number of the epoch, and returns how many there were."""

RATIOS = {
    "files, to torchvision": ("ipucnn, files", "torchvision ImageFolder, files"),
    "files, normalised, to torchvision": ("ipucnn, files, normalised",
                                          "torchvision ImageFolder, files"),
    "files, to bare decoding": ("ipucnn, files", "libjpeg-turbo alone, files"),
    "shards, to bare decoding": ("ipucnn, shards", "libjpeg-turbo alone, files"),
    "shards, to timm": ("ipucnn, shards", "timm, shards"),
    "shards, to timm with fast collate": ("ipucnn, shards", "timm with fast collate, shards"),
    "shards, normalised, to timm": ("ipucnn, shards, normalised", "timm, shards"),
    "shards, to webdataset": ("ipucnn, shards", "webdataset, shards"),
    "shards, normalised, to webdataset": ("ipucnn, shards, normalised", "webdataset, shards"),
}


def ours(data: str, folder: Path, pixels: str) -> Pass:
    """Return ipucnn's loader."""
    dataset = load_dataset(data, str(folder), input_size=SIZE, split="train")
    transform, session = TrainTransform(SIZE, 0, dataset), Fed()

    def go(epoch: int) -> int:
        with feed(session, dataset, SIZE, BATCH, [int(i) for i in dataset.order(0, epoch)],
                  workers=WORKERS, transform=transform, epoch=epoch,
                  pixels=pixels) as loader:
            return sum(len(batch) for batch in loader)

    return go


def bare(folder: Path) -> Pass:
    """Return libjpeg-turbo, which decodes whole images to nowhere."""
    dataset = load_dataset("image_folder", str(folder), split="train")

    def go(epoch: int) -> int:
        order = [int(i) for i in dataset.order(0, epoch)]
        bare_decoding(dataset, order, WORKERS, lambda _: None)
        return len(order)

    return go


def counted(loader: Iterable[Any]) -> Pass:
    """Return a pass over batches of `(images, labels)`."""
    return lambda _: sum(len(images) for images, _ in loader)


def usual_transform() -> Any:
    """Return torchvision's transform of its own reference training."""
    return transforms.Compose([
        transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def torchvision_folder(folder: Path) -> Pass:
    """Return torchvision's dataset in torch's loader."""
    return counted(torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(str(folder / "train"), usual_transform()), BATCH,
        shuffle=True, num_workers=WORKERS, persistent_workers=True))


def timm_shards(folder: Path, count: int, fast_collate: bool) -> Pass:
    """Return timm's loader of shards."""
    last = (count - 1) // PER_SHARD
    dataset = create_dataset(
        "wds/", str(folder), split=f"train-{{000000..{last:06d}}}.tar|{count}", is_training=True,
        batch_size=BATCH)
    return counted(create_loader(
        dataset, SIZE, BATCH, is_training=True, color_jitter=0.0, num_workers=WORKERS,
        device=torch.device("cpu"), use_prefetcher=fast_collate, persistent_workers=True))


def webdataset_shards(folder: Path, count: int) -> Pass:
    """Return webdataset's own pipeline."""
    last = (count - 1) // PER_SHARD
    dataset = (
        webdataset.WebDataset(f"{folder}/train-{{000000..{last:06d}}}.tar", shardshuffle=100)
        .shuffle(1000).decode("pil").to_tuple("jpg", "cls")
        .map_tuple(usual_transform(), int).batched(BATCH))
    return counted(webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS,
                                        persistent_workers=True))


def measure(passes: Dict[str, Pass], rounds: int) -> Dict[str, List[float]]:
    """Return the images per second of all rounds, by loader."""
    rates: Dict[str, List[float]] = {name: [] for name in passes}
    names = list(passes)
    for turn in range(rounds + 1):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            passes[name](2 * turn)
            if not turn:  # now its processes run
                continue
            begin = time.perf_counter()
            images = passes[name](2 * turn + 1)
            rates[name].append(images / (time.perf_counter() - begin))
        print(f"round {turn} of {rounds}", file=sys.stderr)
    return rates


def main() -> None:
    """Make the images and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    logging.getLogger("timm").setLevel(logging.ERROR)  # it misses a file of timm's own
    with tempfile.TemporaryDirectory() as name:
        files, shards = Path(name, "files"), Path(name, "shards")
        images = [photograph(number) for number in range(arguments.images)]
        write_files(files, images)
        write_shards(shards, images, PER_SHARD)
        size = sum(map(len, images)) / len(images)
        del images
        rates = measure({
            "ipucnn, files": ours("image_folder", files, "uint8"),
            "ipucnn, files, normalised": ours("image_folder", files, "normalised"),
            "libjpeg-turbo alone, files": bare(files),
            "torchvision ImageFolder, files": torchvision_folder(files),
            "ipucnn, shards": ours("webdataset", shards, "uint8"),
            "ipucnn, shards, normalised": ours("webdataset", shards, "normalised"),
            "timm, shards": timm_shards(shards, arguments.images, False),
            "timm with fast collate, shards": timm_shards(shards, arguments.images, True),
            "webdataset, shards": webdataset_shards(shards, arguments.images),
        }, arguments.rounds)
    save("data/pipeline", {
        "what": "500x375 JPEG files to training batches of 224 pixels",
        "images": arguments.images, "mean_file_bytes": round(size), "workers": WORKERS,
        "batch": BATCH, "rounds": arguments.rounds,
        "others": {"timm": timm.__version__, "webdataset": webdataset.__version__},
        "decoders": decoder_versions(),
        "images_per_second": {name: summary(values) for name, values in rates.items()},
        "ratios": {name: summary([a / b for a, b in zip(rates[one], rates[other])])
                   for name, (one, other) in RATIOS.items()}})


if __name__ == "__main__":
    main()
