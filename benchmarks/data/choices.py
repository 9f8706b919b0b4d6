"""What the choices of the data pipeline are worth, one by one, in one thread.

Each group is measured in turns; ratios are to the first of the group, within a turn.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy
import simplejpeg
import torch
import torchvision.io  # noqa: F401 - registers the operator
from PIL import Image
from torch.nn.functional import interpolate

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import save, summary
from images import QUALITY, jpeg, photograph, write_shards

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset
from ipucnn.data.augment import TrainTransform
from ipucnn.data.images import decode
from ipucnn.data.prepare import Preparation
from ipucnn.data.resize import resized
from ipucnn.plugins.datasets._webdataset.shard_index import File, samples

SIZE = 224
IMAGES = 64


class Encoded(ImageDataset):
    """JPEG files in memory."""

    def __init__(self, files: List[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        """Return file `index`."""
        return self.files[index]

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`."""
        return decode(self.files[index], self.name(index))

    def name(self, index: int) -> str:
        """Return what it is called."""
        return str(index)


def prepared(files: List[bytes]) -> Callable[[int], None]:
    """Return what prepares a file as a training does."""
    dataset = Encoded(files)
    prepare = Preparation(dataset, Preprocessing(SIZE), TrainTransform(SIZE, 0, dataset))
    out = numpy.empty((SIZE, SIZE, 3), numpy.uint8)
    return lambda index: prepare(index, 0, out)


def prepared_whole(files: List[bytes]) -> Callable[[int], None]:
    """Return what does the same with all pixels of a file."""
    transform = TrainTransform(SIZE, 0, Encoded(files))
    return lambda index: transform.draw(index, 0)(
        simplejpeg.decode_jpeg(files[index], "RGB", fastupsample=True))


def groups(files: List[bytes]) -> Dict[str, Dict[str, Callable[[int], Any]]]:
    """Return what is compared."""
    pixels = [simplejpeg.decode_jpeg(file, "RGB") for file in files]
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    together = [torch.from_numpy(image.reshape(1, *image.shape)).permute(0, 3, 1, 2)
                for image in pixels]
    apart = [image.contiguous() for image in together]
    small = [jpeg(resized(image, 256), QUALITY) for image in pixels]
    large = [jpeg(numpy.tile(image, (4, 4, 1)), QUALITY) for image in pixels[:8]] * (IMAGES // 8)

    def at(eighths: int) -> Callable[[int], Any]:
        height, width = (-(-side * eighths // 8) for side in pixels[0].shape[:2])
        return lambda i: simplejpeg.decode_jpeg(files[i], "RGB", min_height=height, min_width=width)

    def size(images: List[torch.Tensor]) -> Callable[[int], Any]:
        return lambda i: interpolate(images[i][:, :, 40:340, 50:450], (SIZE, SIZE),
                                     mode="bilinear", antialias=True)

    return {
        "decoders": {
            "simplejpeg": lambda i: simplejpeg.decode_jpeg(files[i], "RGB"),
            "torchvision": lambda i: torch.ops.image.decode_jpeg(tensors[i], 0),
            "Pillow": lambda i: numpy.asarray(Image.open(io.BytesIO(files[i])))},
        "decoding": {
            "in full": at(8),
            "fast upsampling": lambda i: simplejpeg.decode_jpeg(files[i], "RGB", fastupsample=True),
            "fast DCT": lambda i: simplejpeg.decode_jpeg(files[i], "RGB", fastdct=True),
            **{f"at {eighths}/8": at(eighths) for eighths in (7, 6, 4, 2, 1)}},
        "resizing": {"channels together": size(together), "channels apart": size(apart)},
        "whole preparation": {
            "all rows": prepared_whole(files), "down to the crop": prepared(files),
            "shorter side 256": prepared(small)},
        "whole preparation of 2000x1500": {
            "in full": prepared_whole(large), "what is needed": prepared(large)},
    }


def seconds(work: Callable[[int], Any]) -> float:
    """Return the time that one image takes."""
    begin = time.perf_counter()
    for index in range(IMAGES):
        work(index)
    return (time.perf_counter() - begin) / IMAGES


def compared(works: Dict[str, Callable[[int], Any]], turns: int) -> Dict[str, Any]:
    """Return milliseconds of each, and how much faster or slower than the first it is."""
    found: Dict[str, List[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            took = seconds(work)
            if turn:
                found[name].append(took)
    first = next(iter(found.values()))
    return {name: {"ms": summary([1000 * value for value in values]),
                   "speed": summary([one / other for one, other in zip(first, values)])}
            for name, values in found.items()}


def teams(turns: int) -> Dict[str, Any]:
    """Return the processor time of resizing a crop in two threads, with teams and without."""
    image = torch.randint(0, 256, (1, 375, 500, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    image = image[:, :, :300, :400]

    def work(alone: bool) -> None:
        torch.get_num_threads()
        torch.set_num_threads(1 if alone else 2)
        for _ in range(1000):
            interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True)

    spent: Dict[bool, List[float]] = {True: [], False: []}
    for _ in range(turns):
        for alone, values in spent.items():
            threads = [threading.Thread(target=work, args=(alone,)) for _ in range(2)]
            begin = time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            values.append((time.process_time() - begin) / 2)
    torch.set_num_threads(1)
    return {"ms alone": summary(spent[True]), "ms in a team of two": summary(spent[False]),
            "ratio": summary([b / a for a, b in zip(spent[True], spent[False])])}


def headers(files: List[bytes], turns: int) -> Dict[str, Any]:
    """Return the milliseconds of finding 1024 samples in a shard, and `tarfile`'s."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), [files[i % len(files)] for i in range(1024)], 1024)
        path = str(next(Path(folder).glob("*.tar")))
        ours, theirs = [], []
        for _ in range(turns):
            begin = time.perf_counter()
            assert len(samples(File(path))) == 1024
            ours.append(1000 * (time.perf_counter() - begin))
            begin = time.perf_counter()
            with tarfile.open(path) as tar:
                assert len(tar.getmembers()) >= 1024
            theirs.append(1000 * (time.perf_counter() - begin))
    return {"ms": summary(ours), "ms of tarfile": summary(theirs),
            "ratio": summary([b / a for a, b in zip(ours, theirs)])}


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    files = [photograph(number) for number in range(IMAGES)]
    save("data/choices", {
        "what": "steps of the data pipeline, in one thread", "images": IMAGES, "turns": turns,
        **{name: compared(works, turns) for name, works in groups(files).items()},
        "teams of threads": teams(turns), "headers of a shard": headers(files, turns)})


if __name__ == "__main__":
    main()
