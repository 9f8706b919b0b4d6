"""Log folders of trainings as `ipucnn train` writes them, without training."""

from __future__ import annotations

import json
import math

import torch
from PIL import Image

from ipucnn.core.environment import describe
from ipucnn.reports.evidence import Evidence
from ipucnn.reports.thumbnails import of_file, with_thumbnails

HOSTILE = "</script><script>alert('x')</script>\"'&\x1b[31m\u202e\udce9"
"""Would run as a script, end an attribute, colour a terminal, reverse a line, and not encode."""

COMMAND = ["--weights", "net.pt", "--checkpoint-path", "fast"]


def logits(images, classes, seed=0):
    """Return labels and logits of a model that is often right."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=random)
    values = torch.randn(images, classes, generator=random) * 1.5
    values[torch.arange(images), labels] += 3
    return labels, values


def evidence(names, images=200, seed=0, name_of="photo{}.jpg".format):
    found = Evidence(names)
    labels, values = logits(images, len(names), seed)
    found.add(range(images), values.softmax(1), labels)
    return found.reduced(name_of)


def training(folder, epochs=5, names=("cat", "dog", HOSTILE), lr=0.1, rows_per_epoch=1, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "picture.jpg"
    Image.new("RGB", (40, 20), "red").save(picture)
    rows = []
    for place in range(1, epochs * rows_per_epoch + 1):
        epoch = place / rows_per_epoch
        rows.append({"kind": "train", "epoch": epoch, "update": place, "loss": 3 / (1 + epoch),
                     "accuracy": 90 - 60 / (1 + epoch), "loss_scaling": 2.0 ** int(epoch / 2),
                     "learning_rate": lr * (1 + math.cos(math.pi * epoch / epochs)) / 2,
                     "images_per_second": 1000 + place % 7, "data_wait_share": 0.1})
        if place % rows_per_epoch == 0:
            rows.append({"kind": "validation", "weights": "raw", "epoch": int(epoch),
                         "update": place, "loss": 3.5 / (1 + epoch), "top1": 80 - 60 / (1 + epoch),
                         "top5": 99.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "status": "completed", "format": "ipucnn.train/1", "model": "resnet18",
        "dataset": "image_folder", "backend": "torch", "device": "CPU",
        "options": {"lr": lr, "data_dir": HOSTILE, "epoch": epochs},
        "environment": {**describe(), "command": ["ipucnn", "train", *8 * COMMAND]},
        "plan": {"precision": "32.32", "half": "", "combined_batch": 8, "update_batch": 8},
        "card": {"model": "resnet18", "class_names": list(names)}, "epochs": epochs,
        "images_per_second": 1000.0, "data_wait_share": 0.1, "loss": 0.5, "seconds": 75.0,
        "notes": [HOSTILE], **changes}
    (folder / "training.json").write_text(json.dumps(document))
    shown = with_thumbnails(evidence(names, name_of=(HOSTILE + "{}").format),
                            lambda _: of_file(str(picture)))
    (folder / "validation.json").write_text(json.dumps(
        {"format": "ipucnn.validation/1", "epoch": epochs, "weights": "raw", "top1": 70.0,
         "loss": 0.6, "evidence": shown}))
    return folder
