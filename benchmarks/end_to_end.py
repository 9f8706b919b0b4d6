"""From the start of a process to a file of predictions of many photographs.

Each round runs, in turn: `ipucnn run`; a plain loop with torchvision, Pillow and torch's
`DataLoader`; and a loop with timm's network, dataset and loader, as timm's `inference.py` has it.
All of them write a table with a class for every file. What the machine needs at least is measured
in the same rounds: the same network on as many images that are in memory already, and decoding the
files with libjpeg-turbo alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from common import save, summary
from processes import Finished, described, finished

from ipucnn.benchmarking.peers import TIMM_NAMES, TORCHVISION_NAMES

NETWORKS = ("resnet50", "mobilenet", "efficientnet-b0")

PLAIN = """
import csv, sys, torch, torchvision
from pathlib import Path
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
folder, name, batch, workers, out = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5]
prepare = transforms.Compose([
    transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])

class Photos:
    files = sorted(Path(folder).rglob("*.jpg"))
    def __len__(self):
        return len(self.files)
    def __getitem__(self, index):
        return prepare(Image.open(self.files[index]).convert("RGB")), str(self.files[index])

if __name__ == "__main__":
    model = getattr(torchvision.models, name)(weights=None).eval()
    with open(out, "w", newline="") as file, torch.inference_mode():
        rows = csv.writer(file)
        for images, names in DataLoader(Photos(), batch, num_workers=workers):
            best = model(images).softmax(1).topk(5)
            rows.writerows([path, *classes, *values] for path, classes, values in zip(
                names, best.indices.tolist(), best.values.tolist()))
"""

TIMM = """
import csv, sys, timm, torch
from timm.data import create_dataset, create_loader, resolve_data_config
folder, name, batch, workers, out = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5]

if __name__ == "__main__":
    model = timm.create_model(name, pretrained=False).eval()
    config = resolve_data_config({}, model=model)
    dataset = create_dataset("", root=folder)
    loader = create_loader(dataset, batch_size=batch, use_prefetcher=False, num_workers=workers,
                           **config)
    classes, values = [], []
    with torch.no_grad():
        for images, _ in loader:
            best = model(images).softmax(1).topk(5)
            classes += best.indices.tolist()
            values += best.values.tolist()
    with open(out, "w", newline="") as file:
        csv.writer(file).writerows([path, *one, *other] for path, one, other in zip(
            loader.dataset.filenames(basename=True), classes, values))
"""


def commands(network: str, folder: Path, batch: int, out: Path) -> Dict[str, List[str]]:
    """Return the command lines of a network, by name."""
    peers = {"torchvision, plain loop": (PLAIN, TORCHVISION_NAMES),
             "timm, loop of its inference.py": (TIMM, TIMM_NAMES)}
    workers = str(len(os.sched_getaffinity(0)))
    found = {"ipucnn run": [
        *_run(network, batch), "--data", "image_folder", "--data-dir", str(folder),
        "--match-classes", "position", "--predictions", str(out / "ours.csv")]}
    for name, (script, names) in peers.items():
        other = names.get(network, network.replace("-", "_"))
        found[name] = [sys.executable, "-c", script, str(folder), other, str(batch), workers,
                       str(out / "theirs.csv")]
    return found


def _run(network: str, batch: int) -> List[str]:
    return [sys.executable, "-m", "ipucnn", "run", "--model", network, "--weights", "random",
            "--batch-size", str(batch), "--precision", "full", "--progress", "off"]


def computed(network: str, batch: int, images: int, out: Path,
             environment: Dict[str, str]) -> float:
    """Return the seconds of `ipucnn run` on images in memory, without its preparation."""
    place = out / "computed.json"
    finished([*_run(network, batch), "--data", "synthetic", "--iterations", str(images // batch),
              "--result", str(place)], environment)
    return float(json.loads(place.read_text())["seconds"])


def decoded(folder: Path) -> float:
    """Return the seconds of decoding the files with libjpeg-turbo alone, on all cores."""
    from ipucnn.benchmarking.case import Case
    from ipucnn.benchmarking.limits import measured

    class Once:
        """A link that asks for one turn."""

        def __init__(self) -> None:
            self.left, self.seconds = 1, 0.0

        def ready(self) -> None:
            """Do nothing."""

        def wait(self) -> Any:
            """Ask for the turn."""
            self.left -= 1
            return 0.0 if self.left >= 0 else None

        def done(self, _: float, seconds: float) -> None:
            """Keep the seconds."""
            self.seconds = seconds

    link = Once()
    measured("decoding", Case("", 1, folder=str(folder), samples=10 ** 9), link)
    return link.seconds


def main() -> None:
    """Measure each network in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS))
    arguments = parser.parse_args()
    measured: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        out, photos = Path(temporary), Path(temporary, "photos")
        environment = {**os.environ, "IPUCNN_CACHE": str(out / "cache")}
        subprocess.run([sys.executable, "-m", "ipucnn", "data", "shapes", "--out", str(photos),
                        "--per-class", str(-(-arguments.images // 8)), "--size", "500"],
                       check=True, stdout=subprocess.DEVNULL)
        images = len(list(photos.rglob("*.jpg")))
        for network in arguments.models:
            batch = arguments.batch_size
            todo = commands(network, photos, batch, out)
            finished([*todo["ipucnn run"], "--tune"], environment)
            found: Dict[str, List[Finished]] = {name: [] for name in todo}
            compute, decode = [], []
            begin = time.perf_counter()
            for _ in range(arguments.rounds):
                for name, command in todo.items():
                    found[name].append(finished(command, environment))
                compute.append(computed(network, batch, images, out, environment))
                decode.append(decoded(photos))
            ours = summary([one.seconds for one in found["ipucnn run"]])["median"]
            measured[network] = {
                **described(found),
                "seconds_of_computing_alone": summary(compute),
                "seconds_of_decoding_alone": summary(decode),
                "seconds_beyond_computing": round(ours - summary(compute)["median"], 3),
                "times_faster": {
                    name: round(summary([one.seconds for one in each])["median"] / ours, 3)
                    for name, each in found.items()},
                "measured_in": round(time.perf_counter() - begin, 1)}
    save("end_to_end", {
        "what": "JPEG files of 500 x 500 pixels to a file of predictions, from the start of the "
                "process to its end, in single precision", "images": images,
        "batch_size": arguments.batch_size, "rounds": arguments.rounds, "networks": measured})


if __name__ == "__main__":
    main()
