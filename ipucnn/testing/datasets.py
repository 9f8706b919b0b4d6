"""Conformance suite for datasets."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Dict, List, Optional, Tuple
from unittest import SkipTest

from ipucnn.core.names import described
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.dataset_checks import opened
from ipucnn.testing.suite import Suite, require


class DatasetSuite(Suite):
    """Checks of a dataset.

    Attributes:
        data_dir: a folder in the dataset's layout; if it is required and None, checks are skipped.
        input_size: requested height and width, in pixels.
        num_classes: number of outputs of the model; None for the classes of the dataset.
        length: requested number of samples of a generated dataset.
    """

    data_dir: Optional[str] = None
    input_size: int = 32
    num_classes: Optional[int] = None
    length: int = 12
    sample: ClassVar[int] = 24

    @property
    def spec(self) -> DatasetSpec:
        """The record under test."""
        return self.used_registry.get_typed(DatasetSpec, self.name)

    def arguments(self) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Return the arguments of the target other than its options."""
        return (DatasetRequest(
            data_dir=self.data_dir, input_size=self.input_size, num_classes=self.num_classes,
            length=self.length, seed=3),), {}

    def open(self) -> ImageDataset:
        """Return a newly opened dataset."""
        if self.spec.on_device:
            raise SkipTest("its images are made on the device")
        if self.spec.needs_data_dir and self.data_dir is None:
            raise SkipTest("it needs a folder: set 'data_dir'")
        dataset = self.made(*self.arguments()[0])
        require(isinstance(dataset, ImageDataset), f"the target returned {described(dataset)}")
        return opened(dataset, self.used_registry.in_words(self.spec))

    def exercise(self) -> None:
        """Open the dataset."""
        self.open()

    def indices(self, dataset: ImageDataset) -> List[int]:
        """Return the indices to check, spread over the dataset."""
        step = max(len(dataset) // self.sample, 1)
        return list(range(0, len(dataset), step))[:self.sample]

    def test_length(self) -> None:
        """The dataset has images and returns their number."""
        require(len(self.open()) > 0, "it is empty")

    def test_images_are_rgb_bytes(self) -> None:
        """Images are uint8, `(3, height, width)`, of the input size if it is `ready`."""
        import torch

        dataset = self.open()
        for index in self.indices(dataset):
            image = dataset.image(index)
            require(isinstance(image, torch.Tensor) and image.dtype == torch.uint8,
                    f"image {index} is not a uint8 tensor")
            require(image.dim() == 3 and image.shape[0] == 3 and min(image.shape) > 0,
                    f"image {index} has shape {tuple(image.shape)}")
            require(not dataset.ready or tuple(image.shape[1:]) == (self.input_size,) * 2,
                    f"image {index} of a 'ready' dataset has shape {tuple(image.shape)}")

    def test_names_are_unique(self) -> None:
        """Every image has a unique name."""
        dataset = self.open()
        names = [dataset.name(index) for index in range(min(len(dataset), 1000))]
        require(all(isinstance(name, str) and name for name in names), "a name is no text")
        require(len(set(names)) == len(names), "two images have the same name")

    def test_labels_count_the_classes(self) -> None:
        """Labels are indices of its classes, or all None without labels."""
        dataset = self.open()
        for index in self.indices(dataset):
            label = dataset.label(index)
            if not self.spec.labelled:
                require(label is None, f"an unlabelled dataset gives image {index} a label")
                continue
            require(type(label) is int and 0 <= label < len(dataset.class_names),
                    f"label {label!r} of image {index} is not among its "
                    f"{len(dataset.class_names)} classes")

    def test_the_same_index_gives_the_same_image(self) -> None:
        """An image depends on its index only, not on the order of access or the dataset object."""
        import torch

        dataset, again = self.open(), self.open()
        indices = self.indices(dataset)
        images = [dataset.image(index) for index in indices]
        for position in reversed(range(len(indices))):
            for other in (dataset, again):
                require(torch.equal(images[position], other.image(indices[position])),
                        f"image {indices[position]} is not the same when it is read again")

    def test_images_do_not_depend_on_the_workers(self) -> None:
        """Other threads, alone or concurrently, read the same images as the main thread."""
        import torch

        dataset = self.open()
        indices = self.indices(dataset)
        expected = [dataset.image(index) for index in indices]
        for workers in (1, 4):
            again, start = self.open(), threading.Barrier(workers)

            def read(worker: int, count: int = workers, dataset: ImageDataset = again,
                     start: threading.Barrier = start) -> Dict[int, Any]:
                start.wait(60)  # each thread has a part
                return {index: dataset.image(index) for index in indices[worker::count]}

            with ThreadPoolExecutor(workers) as pool:
                images = {index: image for part in pool.map(read, range(workers))
                          for index, image in part.items()}
            for index, image in zip(indices, expected):
                require(torch.equal(image, images[index]),
                        f"image {index} is another one when {workers} "
                        f"worker{'s read' if workers > 1 else ' reads'} the dataset")

    def test_files_are_the_images(self) -> None:
        """The result of `encoded` decodes to the result of `image`."""
        import torch

        from ipucnn.data.images import decode

        dataset = self.open()
        for index in self.indices(dataset):
            data = dataset.encoded(index)
            if data is not None:
                require(torch.equal(decode(data, dataset.name(index)), dataset.image(index)),
                        f"file {index} is not image {index}")

    def test_order_is_a_permutation(self) -> None:
        """An epoch's order contains every index once, and depends on seed and epoch only."""
        dataset, again = self.open(), self.open()
        for seed, epoch in ((0, 0), (1, 0), (0, 3)):
            order = dataset.order(seed, epoch).tolist()
            require(sorted(order) == list(range(len(dataset))),
                    f"its order of epoch {epoch} is no permutation of its {len(dataset)} images")
            require(order == again.order(seed, epoch).tolist(),
                    f"its order of epoch {epoch} is another one when it is requested again")

    def test_global_random_state_is_left_alone(self) -> None:
        """Reading images changes neither Python's nor torch's global generator."""
        import random

        import torch

        torch_before, python_before = torch.get_rng_state(), random.getstate()
        dataset = self.open()
        dataset.image(0)
        require(torch.equal(torch_before, torch.get_rng_state()), "torch's global generator moves")
        require(python_before == random.getstate(), "Python's global generator moves")
