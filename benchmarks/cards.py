"""What a CUDA device computes, against the CPU: for one person with a card, in ten minutes.

It trains a small network with every optimizer on both, continues a training exactly, repeats one,
and measures throughput against a bare loop. One file says all, with versions.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import torch
import torchvision
from common import save, summary

import ipucnn
from ipucnn.core.errors import IpucnnError
from ipucnn.core.registry.registry import registry

SMALL: Dict[str, Any] = {
    "model": "resnet8-cifar", "backend": "torch", "input_size": 32, "batch_size": 16,
    "iterations": 4, "no_validation": True, "lr": 0.02, "progress": "off"}


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


def correctness(photos: Path) -> Dict[str, Any]:
    """Compare trainings in single precision on both devices, for every optimizer."""
    found: Dict[str, Any] = {}
    for optimizer in registry().names("optimizer"):
        options = {"optimizer": optimizer, "precision": "full", "epoch": 1}
        try:
            found[optimizer] = difference(trained(photos, device="cuda", **options),
                                          trained(photos, device="cpu", **options))
        except IpucnnError as error:
            found[optimizer] = f"{error.message} ({error.hint})"
    return found


def repetition(photos: Path) -> Dict[str, float]:
    """Repeat and continue trainings on the device; 0 is bit for bit."""
    found = {}
    for precision in ("full", "16.32", "half"):
        options = {"device": "cuda", "precision": precision, "optimizer": "sgd",
                   "lr_schedule": "no", "epoch": 2}
        one = trained(photos, **options)
        found[f"{precision}, repeated"] = difference(one, trained(photos, **options))
        found[f"{precision}, continued"] = difference(one, continued(photos, **options))
    return found


def bare(batch: int, rounds: int) -> List[float]:
    """Return the images per second of a plain loop in bfloat16 or float16 autocast."""
    half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    model = torchvision.models.resnet50().cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device="cuda")
    rates = []
    for turn in range(rounds + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(20):
            with torch.autocast("cuda", half):
                loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if turn:
            rates.append(20 * batch / (time.perf_counter() - started))
    return rates


def ours(batch: int, rounds: int) -> List[float]:
    """Return the images per second of whole trainings on synthetic images."""
    rates = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            result = ipucnn.train(
                model="resnet50", data="synthetic", backend="torch", device="cuda",
                precision="16.32", batch_size=batch, iterations=40, epoch=1, lr=0.01,
                optimizer="sgd", log_dir=folder, progress="off", no_checkpoints=True)
        rates.append(result.images_per_second)
    return rates


def main() -> int:
    """Measure, write the file and print a table."""
    if not torch.cuda.is_available():
        print("there is no CUDA device here: 'ipucnn doctor --deep' says why", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        ipucnn.shapes(photos, per_class=16, size=32)
        measured: Dict[str, Any] = {"difference_to_cpu": correctness(photos),
                                    "difference_on_the_device": repetition(photos)}
    batch, rounds = 128, 5
    loop, whole = bare(batch, rounds), ours(batch, rounds)
    measured["images_per_second"] = {"bare loop": summary(loop, 1), "ipucnn": summary(whole, 1)}
    measured["ratio_to_bare"] = round(summary(whole)["median"] / summary(loop)["median"], 3)
    save("cuda", {"what": "a CUDA device against the CPU, and against a bare loop",
                  "device": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
                  "cudnn": torch.backends.cudnn.version(), **measured}, "cards")
    for title, rows in measured.items():
        print(f"\n{title}")
        for name, value in (rows.items() if isinstance(rows, dict) else [("", rows)]):
            print(f"  {name:24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
