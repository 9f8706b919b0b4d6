"""What a CUDA device computes, against the CPU: for one person with a card, in ten minutes.

It trains a small network with every optimizer on both devices, repeats and continues trainings on
the device, and measures a training against a bare loop and against timm: on images that are on the
device already, and on JPEG files, which shows how well decoding, copies and compute overlap. One
file has all results, with versions. `--device cpu` tries the script where there is no card.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Tuple

import torch
import torchvision
from common import save, summary

import ipucnn
from ipucnn.core.errors import IpucnnError
from ipucnn.core.machine import usable_cores
from ipucnn.core.registry.registry import registry

SMALL: Dict[str, Any] = {
    "model": "resnet8-cifar", "backend": "torch", "input_size": 32, "batch_size": 16,
    "iterations": 4, "no_validation": True, "lr": 0.02, "progress": "off"}

Batches = Iterable[Tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Setting:
    """The extent of the measurement.

    Attributes:
        device: `cuda`, or `cpu` to try the script.
        model: the measured network, which ipucnn, torchvision and timm have.
        batch: images of a micro-batch.
        size: their height and width.
        updates: weight updates of a measured training.
        rounds: how often everything is measured, in turn.
    """

    device: str
    model: str
    batch: int
    size: int
    updates: int
    rounds: int

    def wait(self) -> None:
        """Wait until the device has computed everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def weights(folder: Path) -> Dict[str, torch.Tensor]:
    """Return the weights of the last checkpoint in a folder."""
    newest = max(folder.glob("*.pt"), key=lambda path: path.stat().st_mtime)
    found: Dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["model"]
    return found


def difference(one: Dict[str, torch.Tensor], two: Dict[str, torch.Tensor]) -> float:
    """Return the largest absolute difference of two state dictionaries."""
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def trained(photos: Path, **options: Any) -> Dict[str, torch.Tensor]:
    """Return the weights after a short training."""
    with tempfile.TemporaryDirectory() as folder:
        ipucnn.train(data_dir=photos, checkpoint_path=folder, **{**SMALL, **options})
        return weights(Path(folder))


def continued(photos: Path, **options: Any) -> Dict[str, torch.Tensor]:
    """Return the weights after a training that was interrupted and restored."""
    with tempfile.TemporaryDirectory() as folder:
        ipucnn.train(data_dir=photos, checkpoint_path=folder, **{**SMALL, **options, "epoch": 1})
        ipucnn.restore(folder, epoch=2, progress="off")
        return weights(Path(folder))


def correctness(photos: Path, device: str, optimizers: List[str]) -> Dict[str, Any]:
    """Compare trainings in single precision on both devices, for every optimizer."""
    found: Dict[str, Any] = {}
    for optimizer in optimizers:
        options = {"optimizer": optimizer, "precision": "full", "epoch": 1}
        try:
            found[optimizer] = difference(trained(photos, device=device, **options),
                                          trained(photos, device="cpu", **options))
        except IpucnnError as error:
            found[optimizer] = f"{error.message} ({error.hint})"
    return found


def repetition(photos: Path, device: str) -> Dict[str, float]:
    """Repeat and continue trainings on the device; 0 is bit for bit."""
    found = {}
    for precision in ("full", "16.32", "half"):
        options = {"device": device, "precision": precision, "optimizer": "sgd",
                   "lr_schedule": "no", "epoch": 2}
        one = trained(photos, **options)
        found[f"{precision}, repeated"] = difference(one, trained(photos, **options))
        found[f"{precision}, continued"] = difference(one, continued(photos, **options))
    return found


def plain_loop(setting: Setting, network: torch.nn.Module) -> Callable[[Batches], float]:
    """Return a bare training loop in autocast, which returns images per second."""
    half = torch.float16 if setting.device == "cuda" and not torch.cuda.is_bf16_supported() \
        else torch.bfloat16
    model = network.train().to(setting.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9,
                                fused=setting.device == "cuda")

    def train(batches: Batches) -> float:
        started, images = 0.0, 0
        for number, (inputs, labels) in enumerate(batches):
            with torch.autocast(setting.device, half):
                loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if number == 0:  # chooses algorithms, and starts the workers
                setting.wait()
                started, images = time.perf_counter(), -len(inputs)
            images += len(inputs)
        setting.wait()
        return images / (time.perf_counter() - started)

    return train


def on_device(setting: Setting) -> Batches:
    """Return one batch on the device, once more than there are updates."""
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    batch = (images.to(memory_format=torch.channels_last),
             torch.zeros(setting.batch, dtype=torch.int64, device=setting.device))
    return [batch] * (setting.updates + 1)


def from_files(setting: Setting, photos: Path) -> Batches:
    """Return timm's loader of augmented photographs, with its copies ahead of the device."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(photos), split="train", is_training=True)
    loader: Batches = create_loader(
        dataset, (3, setting.size, setting.size), setting.batch, is_training=True,
        color_jitter=0.0, num_workers=usable_cores(), pin_memory=setting.device == "cuda",
        device=torch.device(setting.device), use_prefetcher=setting.device == "cuda",
        persistent_workers=False)
    return loader


def ours(setting: Setting, **options: Any) -> float:
    """Return the images per second of a training of ipucnn."""
    with tempfile.TemporaryDirectory() as folder:
        result = ipucnn.train(
            model=setting.model, backend="torch", device=setting.device, precision="16.32",
            batch_size=setting.batch, input_size=setting.size, epoch=1, lr=0.01, optimizer="sgd",
            momentum=0.9, weights="random", warmup_epochs=0, log_dir=folder, progress="off",
            no_checkpoints=True, no_validation=True, **options)
    return float(result.images_per_second)


def throughput(setting: Setting, photos: Path) -> Dict[str, List[float]]:
    """Measure everything in turn, and return the rates of each."""
    cases: Dict[str, Callable[[], float]] = {}
    bare = plain_loop(setting, torchvision.models.get_model(setting.model))
    cases["bare loop, images on the device"] = lambda: bare(on_device(setting))
    cases["ipucnn, images on the device"] = lambda: ours(
        setting, data="synthetic", iterations=setting.updates)
    cases["ipucnn, JPEG files"] = lambda: ours(setting, data_dir=photos)
    if importlib.util.find_spec("timm"):
        import timm

        of_timm = plain_loop(setting, timm.create_model(setting.model))
        cases["timm's network, images on the device"] = lambda: of_timm(on_device(setting))
        cases["timm's network and loader, JPEG files"] = lambda: of_timm(
            from_files(setting, photos))
    rates: Dict[str, List[float]] = {name: [] for name in cases}
    for turn in range(setting.rounds + 1):
        for name, measure in cases.items():
            rate = measure()
            if turn:  # the first one fills caches
                rates[name].append(rate)
    return rates


def ratios(rates: Dict[str, Dict[str, float]]) -> Dict[str, float]:
    """Return what the rates say of this program; above 1 it is the faster one."""
    def ratio(one: str, other: str) -> float:
        return round(rates[one]["median"] / rates[other]["median"], 3)

    found = {
        "to the bare loop": ratio("ipucnn, images on the device",
                                  "bare loop, images on the device"),
        "overlap: files to images on the device": ratio("ipucnn, JPEG files",
                                                        "ipucnn, images on the device")}
    if "timm's network and loader, JPEG files" in rates:
        found["to timm, images on the device"] = ratio("ipucnn, images on the device",
                                                       "timm's network, images on the device")
        found["to timm, JPEG files"] = ratio("ipucnn, JPEG files",
                                             "timm's network and loader, JPEG files")
    return found


def main() -> int:
    """Measure, write the file and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--optimizers", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--photographs", type=int, default=5120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--result", default="cuda", help="name of the file in results/")
    given = parser.parse_args()
    cuda = given.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print("there is no CUDA device here: 'ipucnn doctor --deep' shows why", file=sys.stderr)
        return 2
    setting = Setting(given.device, given.model, given.batch_size, given.size,
                      given.updates, given.rounds)
    with tempfile.TemporaryDirectory() as place:
        small, photos = Path(place, "small"), Path(place, "photographs")
        ipucnn.shapes(small, per_class=16, size=32)
        classes = len([folder for folder in small.rglob("*") if any(folder.glob("*.jp*g"))])
        ipucnn.shapes(photos, per_class=-(-given.photographs // classes), size=2 * given.size)
        measured: Dict[str, Any] = {
            "difference_to_cpu": correctness(small, given.device, given.optimizers or
                                             list(registry().names("optimizer"))),
            "difference_on_the_device": repetition(small, given.device)}
        rates = throughput(setting, photos)
    measured["images_per_second"] = {name: summary(values, 1) for name, values in rates.items()}
    measured["ratios"] = ratios(measured["images_per_second"])
    save(given.result, {
        "what": "a device against the CPU, and a training against a bare loop and "
                "against timm",
        "device": torch.cuda.get_device_name() if cuda else "cpu", "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None, "model": setting.model,
        "batch_size": setting.batch, "input_size": setting.size, **measured}, "cards")
    for title, rows in measured.items():
        print(f"\n{title}")
        for name, value in rows.items():
            print(f"  {name:40} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
