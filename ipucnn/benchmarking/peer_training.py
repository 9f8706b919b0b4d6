"""Training loops of other programs as contenders of `ipucnn bench --train`.

That of torchvision's networks is the fastest plain one in torch: channels-last, SGD (fused where
torch has that), bfloat16 autocast in half precision; it computes no accuracy, writes nothing and
shows nothing. That of timm is what timm's `train.py` does in an epoch: its optimizer, its loss, its
loader and augmentation.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any, Callable, Iterator, Tuple

from ipucnn.benchmarking.case import FILES, Case, Facts, Link, RefusedError, repeated, serve
from ipucnn.benchmarking.limits import jpeg_files
from ipucnn.benchmarking.own import AHEAD, FIRST_UPDATES
from ipucnn.benchmarking.peers import Pictures, check_files, timm_network, torchvision_network
from ipucnn.core.machine import compute_threads, thread_count

_LOOPS = ("torchvision", "torch-compile", "timm")


def training(name: str, case: Case, link: Link) -> Facts:
    """Measure the training loop of another program; see `Link`.

    Raises:
        RefusedError: it does not train, or not this.
    """
    if name not in _LOOPS:
        raise RefusedError("trains no network")
    check_files(case)
    import torch

    torch.set_num_threads(compute_threads())
    update = _update(name, case)
    source = _endless(name, case)
    ahead = AHEAD if case.data == FILES else 0

    def step() -> None:
        update(*next(source))

    for _ in range(FIRST_UPDATES):
        step()

    def measure(wanted: float) -> Tuple[float, float]:
        for _ in range(ahead):
            step()
        count, seconds = repeated(step, wanted)
        return count * case.batch_size, seconds

    serve(link, measure)
    return {"threads": torch.get_num_threads()}


def _update(name: str, case: Case) -> Callable[[Any, Any], None]:
    """Return a function that updates the weights with one batch."""
    import torch

    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = torch.float16 if place.type == "cuda" else torch.bfloat16
    compute = torch.autocast(place.type, half, enabled=case.precision != "32.32")
    if name == "timm":
        losses: Any = import_module("timm.loss")
        optimizers: Any = import_module("timm.optim")
        module = timm_network(case).to(place).train()
        optimizer = optimizers.create_optimizer_v2(
            module, opt="sgd", lr=0.05, weight_decay=2e-5, momentum=0.9)
        loss_of: Any = losses.LabelSmoothingCrossEntropy(smoothing=0.1)
    else:
        module = torchvision_network(case).to(place, memory_format=torch.channels_last).train()
        fused: Any = {"fused": True} if "fused" in signature(torch.optim.SGD).parameters else {}
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4,
                                    **fused)
        loss_of = torch.nn.CrossEntropyLoss()
        if name == "torch-compile":
            module = torch.compile(module)  # type: ignore[assignment]
    layout = torch.contiguous_format if name == "timm" else torch.channels_last

    def update(images: Any, labels: Any) -> None:
        images = images.to(place, memory_format=layout)
        with compute:
            loss = loss_of(module(images), labels.to(place))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if place.type == "cuda":
            torch.cuda.synchronize()

    return update


def _endless(name: str, case: Case) -> Iterator[Tuple[Any, Any]]:
    """Yield batches of images and labels without end."""
    import torch

    if case.data != FILES:
        images, labels = torch.randn(case.shape), torch.zeros(case.batch_size, dtype=torch.int64)
        while True:
            yield images, labels
    while True:
        yield from _timm_batches(case) if name == "timm" else _batches(case)


def _batches(case: Case) -> Iterator[Tuple[Any, Any]]:
    """Yield an epoch of random crops, read by Pillow, torchvision and `DataLoader`."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms

    how = case.preprocessing
    prepare = transforms.Compose([
        transforms.RandomResizedCrop(how.input_size), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize(how.mean, how.std)])
    pictures: Any = Pictures(jpeg_files(case.folder, case.samples), prepare)
    for images in DataLoader(pictures, case.batch_size, shuffle=True, drop_last=True,
                             num_workers=thread_count()):
        yield images, torch.zeros(len(images), dtype=torch.int64)


def _timm_batches(case: Case) -> Iterator[Tuple[Any, Any]]:
    """Yield an epoch of timm's dataset, loader and augmentation, with its `train.py`'s defaults."""
    timm: Any = import_module("timm.data")
    how = case.preprocessing
    dataset = timm.create_dataset("", root=case.folder, is_training=True)
    dataset.reader.samples = dataset.reader.samples[:case.samples]
    yield from timm.create_loader(
        dataset, case.shape[1:], case.batch_size, is_training=True, use_prefetcher=False,
        hflip=0.5, color_jitter=0.4, num_workers=thread_count(), mean=how.mean, std=how.std,
        interpolation="random")
