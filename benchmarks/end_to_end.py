"""512 photographs to predictions: whole processes, from their start to the written file.

Each round runs, in turn and for each network: `ipucnn run` with its default precision and in single
precision, a plain loop (torchvision, eager, with Pillow in a DataLoader), a loop as timm's
`inference.py` has it (channels last, bytes from the loader, normalised after it), timm itself with
its own network, dataset and loader where it is installed, the same run on
images that need no decoding (`compute alone`), and decoding with nothing after it (`decode alone`).
Before the first round, each program runs once, `ipucnn` with `--tune`, which measures the backends
and stores the fastest one. Ratios are of one round. Seconds are of the wall clock; those of the
processors show how much work there is, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent / "data"))

from common import Measured, measured, save, summary
from images import photograph

from ipucnn.benchmarking.peers import TIMM_NAMES

NETWORKS = ("mobilenet", "efficientnet-b0", "resnet18", "resnet50")
IMAGES, BATCH, DIFFERENT = 512, 16, 64

PROCESSES = 3
"""Processes of each command of `ipucnn` in a round, in turn, of which the median is taken:
differences of tenths of a second are of interest, also on a machine whose speed varies."""

LOOP = """
import csv, sys, numpy, torch, torchvision
from PIL import Image
folder, target, name, timms, batch = sys.argv[1:]
timms, batch = timms == "timm", int(batch)
transforms = torchvision.transforms
steps = [transforms.Resize(256), transforms.CenterCrop(224)]
mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
if timms:
    steps += [lambda image: torch.from_numpy(numpy.array(image).transpose(2, 0, 1))]
else:
    steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
data = torchvision.datasets.ImageFolder(folder, transforms.Compose(steps))
loader = torch.utils.data.DataLoader(data, batch, num_workers=torch.get_num_threads())
model = getattr(torchvision.models, name)().eval()
if timms:
    model = model.to(memory_format=torch.channels_last)
mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (mean, std))
rows = []
with torch.inference_mode():
    for images, _ in loader:
        if timms:
            images = images.float().sub_(mean).div_(std).contiguous(
                memory_format=torch.channels_last)
        best = model(images).softmax(1).topk(5)
        rows += zip(best.indices.tolist(), best.values.tolist())
with open(target, "w", newline="") as file:
    writer = csv.writer(file)
    for (path, _), (classes, values) in zip(data.samples, rows):
        writer.writerow([path, *classes, *values])
"""
DECODE = """
import sys, time
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import DatasetRequest
from ipucnn.data.host_loader import HostLoader
from ipucnn.plugins.datasets._unlabelled_images import make
data = make(DatasetRequest(sys.argv[1]))
started = time.perf_counter()
images = HostLoader(data, Preprocessing(224), int(sys.argv[2]), range(len(data)), arrays=True)
for _ in images:
    pass
print(time.perf_counter() - started)
"""
TIMM = """
import csv, sys, timm, torch
from timm.data import create_dataset, create_loader, resolve_data_config
folder, target, name, batch = sys.argv[1:]
model = timm.create_model(name, pretrained=False).eval()
loader = create_loader(
    create_dataset("", root=folder), batch_size=int(batch), use_prefetcher=False,
    num_workers=torch.get_num_threads(), **resolve_data_config({}, model=model))
rows = []
with torch.no_grad():
    for images, _ in loader:
        best = model(images).softmax(1).topk(5)
        rows += zip(best.indices.tolist(), best.values.tolist())
with open(target, "w", newline="") as file:
    writer = csv.writer(file)
    for path, (classes, values) in zip(loader.dataset.filenames(), rows):
        writer.writerow([path, *classes, *values])
"""
"""What timm's `inference.py` does, with its own network, dataset and loader."""

TORCHVISIONS = {"mobilenet": "mobilenet_v2", "efficientnet-b0": "efficientnet_b0"}


def commands(network: str, photos: Path, folder: Path) -> Dict[str, List[str]]:
    """Return the command lines for a network, by name."""
    run = [sys.executable, "-m", "ipucnn", "run", "--model", network, "--weights", "random",
           "--batch-size", str(BATCH), "--progress", "off"]
    real = [*run, "--data-dir", str(photos), "--predictions", str(folder / "ours.csv")]
    loop = [sys.executable, "-c", LOOP, str(photos), str(folder / "loop.csv"),
            TORCHVISIONS.get(network, network)]
    timm = {} if find_spec("timm") is None else {"timm": [
        sys.executable, "-c", TIMM, str(photos), str(folder / "timm.csv"),
        TIMM_NAMES.get(network, network.replace("-", "_")), str(BATCH)]}
    return {
        "ipucnn": [*real, "--result", str(folder / "ipucnn.json")],
        "ipucnn, full": [*real, "--precision", "full", "--result", str(folder / "full.json")],
        "compute alone": [*run, "--data", "synthetic", "--iterations", str(IMAGES // BATCH),
                          "--result", str(folder / "compute.json")],
        "compute alone, full": [
            *run, "--data", "synthetic", "--iterations", str(IMAGES // BATCH), "--precision",
            "full", "--result", str(folder / "compute_full.json")],
        "plain loop": [*loop, "plain", str(BATCH)],
        "loop as timm's": [*loop, "timm", str(BATCH)], **timm,
    }


def computed(name: str, folder: Path) -> float:
    """Return the seconds of the host calls of a run without images."""
    file = "compute_full.json" if name.endswith("full") else "compute.json"
    return float(json.loads((folder / file).read_text())["seconds"])


def of_network(network: str, rounds: int, photos: Path, folder: Path,
               environment: Dict[str, str]) -> Dict[str, Any]:
    """Measure everything for a network."""
    todo = commands(network, photos, folder)
    found: Dict[str, List[Measured]] = {name: [] for name in todo}
    alone: Dict[str, List[float]] = {name: [] for name in todo if name.startswith("compute")}
    own = [name for name in todo if name.startswith(("ipucnn", "compute"))]
    for name, command in todo.items():  # fills the caches, and chooses backends
        measured([*command, "--tune"] if name in own else command, environment)
    for _ in range(rounds):
        processes: Dict[str, List[Measured]] = {name: [] for name in todo}
        seconds: Dict[str, List[float]] = {name: [] for name in alone}
        for name in [name for _ in range(PROCESSES) for name in own] + [*todo][len(own):]:
            processes[name].append(measured(todo[name], environment))
            if name in alone:
                seconds[name].append(computed(name, folder))
        for name, many in processes.items():
            found[name].append(statistics.median_low(many))
        for name, several in seconds.items():
            alone[name].append(statistics.median(several))
    loops = [name for name in ("plain loop", "loop as timm's", "timm") if name in found]
    return {
        **{figure: {name: summary([getattr(one, figure) for one in many], 3)
                    for name, many in found.items()} for figure in Measured._fields},
        "compute_alone_seconds": {name: summary(values, 3) for name, values in alone.items()},
        "seconds_beside_compute": {name: summary([
            one.seconds - bare for one, bare in zip(
                found[name], alone[name.replace("ipucnn", "compute alone")])], 3)
            for name in ("ipucnn", "ipucnn, full")},
        "times_as_fast_as": {name: {loop: summary([
            slow.seconds / one.seconds for slow, one in zip(found[loop], found[name])], 3)
            for loop in loops} for name in ("ipucnn", "ipucnn, full")}}


def main() -> None:
    """Measure the networks, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        environment = {**os.environ, "IPUCNN_CACHE": str(folder / "cache")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
        (photos / "all").mkdir(parents=True)
        files = [photograph(number) for number in range(DIFFERENT)]
        for number in range(IMAGES):
            (photos / "all" / f"{number:04d}.jpg").write_bytes(files[number % DIFFERENT])
        decoding = [float(subprocess.run(
            [sys.executable, "-c", DECODE, str(photos), str(BATCH)], check=True,
            stdout=subprocess.PIPE, env=environment).stdout) for _ in range(given.rounds)]
        save("end_to_end", {
            "what": f"{IMAGES} JPEG files of 500x375 pixels to a file of predictions, batches of "
                    f"{BATCH}, whole processes in turn",
            "rounds": given.rounds,
            "decode_alone_seconds": summary(decoding, 3),
            "networks": {network: of_network(network, given.rounds, photos, folder, environment)
                         for network in given.networks}})


if __name__ == "__main__":
    main()
