"""A dataset for tests of several processes: it fails at images that the environment names.

`UNRULY_IMAGES` is how many images it has, `UNRULY_SLEEP` how many seconds each takes;
`UNRULY_RAISE`, `UNRULY_EXIT`, `UNRULY_KILL`, `UNRULY_HANG` and `UNRULY_BAD` are numbers of images.
Processes write their cores into the folder `UNRULY_NOTES`.
"""

import os
import signal
import time

from ipucnn.core.errors import DataError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import ImageDataset


def _at(what, index):
    return str(index) in os.environ.get(f"UNRULY_{what}", "").split()


class Unruly(ImageDataset):
    """Noise in three classes."""

    class_names = ("a", "b", "c")
    ready = True

    def __init__(self, request):
        self.size = request.input_size

    def __len__(self):
        return int(os.environ.get("UNRULY_IMAGES", "12"))

    def name(self, index):
        return f"unruly/{index}"

    def label(self, index):
        return index % 3

    def image(self, index):
        import torch

        notes = os.environ.get("UNRULY_NOTES")
        if notes:
            with open(os.path.join(notes, str(os.getpid())), "w") as file:
                file.write(" ".join(map(str, sorted(os.sched_getaffinity(0)))))
        time.sleep(float(os.environ.get("UNRULY_SLEEP", "0")))
        if _at("RAISE", index):
            raise RuntimeError(f"image {index} is cursed")
        if _at("EXIT", index):
            os._exit(7)
        if _at("KILL", index):
            os.kill(os.getpid(), signal.SIGKILL)
        if _at("HANG", index):
            time.sleep(600)
        if _at("BAD", index):
            raise DataError(f"image {index} is torn")
        return torch.randint(0, 256, (3, self.size, self.size), dtype=torch.uint8,
                             generator=torch.Generator().manual_seed(index))


@hookimpl
def ipucnn_datasets():
    """Return the dataset."""
    return [DatasetSpec(name="unruly", summary="noise and trouble", target=Unruly, labelled=True)]
