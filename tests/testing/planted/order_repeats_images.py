"""A dataset whose order of an epoch repeats images."""

import numpy

import ipucnn
from ipucnn.plugin import ImageDataset


class Planted(ImageDataset):
    class_names = ("a", "b")
    ready = True

    def __init__(self, request):
        self.size, self.length = request.input_size, request.length

    def __len__(self):
        return self.length

    def name(self, index):
        return f"planted/{index}"

    def label(self, index):
        return index % 2

    def order(self, seed, epoch):
        return numpy.random.default_rng((seed, epoch)).integers(0, self.length, self.length)

    def image(self, index):
        import torch

        return torch.full((3, self.size, self.size), index, dtype=torch.uint8)


@ipucnn.hookimpl
def ipucnn_datasets():
    return [ipucnn.DatasetSpec(name="planted", summary="planted", target=Planted, labelled=True)]
