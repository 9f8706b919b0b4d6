"""Run the conformance checks on every built-in plugin: `make conformance`.

Networks are checked with images of 64 pixels where they compute them, the others at the size of
their record. What needs a device, a package or a folder that is missing is skipped, with the
reason.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict

import ipucnn
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.testing import check_plugin
from ipucnn.testing.fixtures import write_tiny_images
from ipucnn.testing.importing import import_checks
from ipucnn.testing.reports import STATUSES, status_of

RESULT = Path(__file__).parent / "results" / "conformance.json"


def written(place: Path) -> Callable[[str], str]:
    """Write small data in every layout, and return a function that gives the folder of a dataset.

    Args:
        place: folder in which they are written.
    """
    images = write_tiny_images(place / "images")
    for split in ("train", "validation"):
        write_tiny_images(place / "imagenet" / split)
    ipucnn.convert(images, place / "webdataset", data="image-folder", progress="off")
    pixels = bytes(range(256)) * 12
    for classes, header, names in ((10, b"\3", ("batches.meta.txt", "data_batch_{}.bin",
                                                "test_batch.bin")),
                                   (100, b"\3\7", ("fine_label_names.txt", "train.bin",
                                                   "test.bin"))):
        folder = place / f"cifar{classes}"
        folder.mkdir()
        (folder / names[0]).write_text("".join(f"class{i}\n" for i in range(classes)))
        for name in {names[1].format(i) for i in range(1, 6)} | {names[2]}:
            (folder / name).write_bytes(2 * (header + pixels))
    return lambda name: str(place / name if (place / name).is_dir() else images)


def checked(registry: Registry, kind: str, name: str,
            folder_of: Callable[[str], str]) -> Dict[str, str]:
    """Return the results of one plugin."""
    if kind == "dataset":
        return check_plugin(kind, name, registry, data_dir=folder_of(name))
    if kind != "model":
        return check_plugin(kind, name, registry)
    results = check_plugin(kind, name, registry, input_size=64)
    if any(status_of(result)[0] == "failed" for result in results.values()):
        results = check_plugin(kind, name, registry)  # it does not compute small images
    return results


def main() -> int:
    """Check all, write the result, and return 1 if a check failed."""
    registry = Registry(PluginSettings(disable_all=True))
    plugins: Dict[str, Any] = {}
    others = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder_of = written(Path(temporary))
        found = {"import/ipucnn": import_checks("ipucnn", registry)}
        for row in registry.rows():
            name = f"{row.kind}/{row.name}"
            found[name] = checked(registry, row.kind, row.name, folder_of)
            print(f"{time.perf_counter() - start:6.0f} s  {name}", flush=True)
    for name, results in found.items():
        outcomes = [(check, *status_of(result)) for check, result in results.items()]
        plugins[name] = {status: count for status in STATUSES
                         for count in [sum(one == status for _, one, _ in outcomes)] if count}
        others += [{"plugin": name, "check": check, "result": status, "reason": reason}
                   for check, status, reason in outcomes if status != "passed"]
    totals = {status: sum(counts.get(status, 0) for counts in plugins.values())
              for status in STATUSES}
    RESULT.write_text(json.dumps({"totals": totals, "plugins": plugins, "not_passed": others},
                                 indent=1).replace(temporary, "DIR") + "\n", encoding="utf-8")
    print(totals)
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
