"""What `ipucnn train --data-dir FOLDER` reaches with no other option, on a folder of shapes.

Eight classes, 200 images of 96 pixels each; a tenth of each class is held out for validation. Whole
processes, as a user starts them.
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

from common import save

PER_CLASS, SIZE = 200, 96


def main() -> None:
    """Draw the images, train on them, and name some of them by the trained model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=float, default=95.0, help="accuracy to wait for, in %%")
    target = parser.parse_args().target
    ipucnn = [sys.executable, "-m", "ipucnn"]
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        subprocess.run([*ipucnn, "data", "shapes", "--out", str(photos), "--per-class",
                        str(PER_CLASS), "--size", str(SIZE)], check=True, stdout=sys.stderr)
        started = time.time()
        subprocess.run([*ipucnn, "train", "--data-dir", "photos", "--result", "result.json"],
                       check=True, cwd=folder, stdout=sys.stderr)
        seconds = time.time() - started
        result: Dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
        (run,) = os.listdir(Path(folder) / "logs")
        rows = map(json.loads, (Path(folder) / "logs" / run / "metrics.jsonl").read_text().split(
            "\n")[:-1])
        validations: List[Dict[str, Any]] = [row for row in rows if row["kind"] == "validation"]
        reached = next((row["epoch"] for row in validations if row["top1"] >= target), None)
        named = json.loads(subprocess.run(
            [*ipucnn, "run", "--weights", f"logs/{run}", "--data-dir", "photos", "--json"],
            check=True, cwd=folder, stdout=subprocess.PIPE).stdout)
    save("first_training", {
        "what": f"a training with no option but its folder: 8 classes, {PER_CLASS} images of "
                f"{SIZE} pixels each, a tenth held out",
        "model": result["model"], "epochs": len(validations), "seconds": round(seconds, 1),
        "best_top1": max(row["top1"] for row in validations),
        "target": target, "epoch_of_target": reached,
        "seconds_to_target": None if reached is None else round(
            seconds * reached / len(validations), 1),
        "top1_of_run_on_all_images": named["accuracy"]["top1"]})


if __name__ == "__main__":
    main()
