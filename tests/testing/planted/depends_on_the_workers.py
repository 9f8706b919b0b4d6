"""A dataset whose images depend on the number of workers."""

import threading

import ipucnn
from ipucnn.plugin import ImageDataset


class Planted(ImageDataset):
    class_names = ("a", "b")
    ready = True

    def __init__(self, request):
        self.size, self.length = request.input_size, request.length
        self.workers = {}

    def __len__(self):
        return self.length

    def name(self, index):
        return f"planted/{index}"

    def label(self, index):
        return index % 2

    def worker(self):
        return self.workers.setdefault(threading.get_ident(), len(self.workers))

    def image(self, index):
        import torch

        return torch.full((3, self.size, self.size), index + 20 * self.worker(), dtype=torch.uint8)


@ipucnn.hookimpl
def ipucnn_datasets():
    return [ipucnn.DatasetSpec(name="planted", summary="planted", target=Planted, labelled=True)]
