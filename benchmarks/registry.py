"""The plugin registry at size: listings of many records, and a built-in name among many plugins."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict

from common import save, summary

from ipucnn.testing.distributions import write_distribution

RECORDS = (0, 1_000, 10_000)
DISTRIBUTIONS = (0, 1_000)

MANY = """
import ipucnn
@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name=f"{zoo}/net{{i}}.v1", summary="a net", target="json:loads",
                             aliases=(f"{zoo}{{i}}",)) for i in range({count})]
"""
TIMED = """
import json, sys, time
start = time.process_time()
from ipucnn.core.registry.registry import registry
from ipucnn.terminal.completed_names import completions
imported = time.process_time()
result = {call}
done = time.process_time()
for _ in range(20):
    {call}
print(json.dumps({{"first": done - imported, "again": (time.process_time() - done) / 20,
                   "third_party": sorted(m for m in sys.modules if m.startswith("fake_"))}}))
"""


def measured(folder: Path, call: str) -> Dict[str, Any]:
    """Return processor seconds of a registry call, the first and a later one, in a new process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
    environment["IPUCNN_CACHE"] = str(folder / "cache")
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), str(folder)])
    done = subprocess.run([sys.executable, "-c", TIMED.format(call=call)], env=environment,
                          check=True, capture_output=True, text=True)
    result: Dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure processor time in processes of their own, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        cases = {}
        for count in RECORDS:
            folder = Path(temporary, f"records-{count}")
            source = MANY.format(zoo="zoo", count=count)
            write_distribution(folder, "fake-zoo", {"fake_zoo.py": source},
                               {"models.zoo": "fake_zoo"})
            cases[f"list, {count} records of one plugin"] = (folder, "registry().rows()")
            cases[f"a third party's name, {count} records"] = (
                folder, f"registry().get('model', 'zoo/net{count - 1}.v1')")
        del cases["a third party's name, 0 records"]
        for count in DISTRIBUTIONS:
            folder = Path(temporary, f"distributions-{count}")
            folder.mkdir()
            for i in range(count):
                source = MANY.format(zoo=f"zoo{i}", count=1)
                write_distribution(folder, f"fake-{i}", {f"fake_{i}.py": source},
                                   {f"models.fake{i}": f"fake_{i}"})
            cases[f"a built-in name, {count} distributions"] = (
                folder, "registry().get('optimizer', 'sgd')")
            cases[f"list, {count} distributions"] = (folder, "registry().rows()")
            cases[f"all names of a kind, {count} distributions"] = (
                folder, "registry().spellings('model')")
            cases[f"completion of a third party's name, {count} distributions"] = (
                folder, "completions(registry(), 'model', 'zoo0/net0')")
        seconds: Dict[str, Any] = {name: {"first": [], "again": []} for name in cases}
        for turn in range(rounds + 1):
            for name, (folder, call) in cases.items():
                result = measured(folder, call)
                if "built-in" in name and result["third_party"]:
                    raise SystemExit(f"{name}: imported {result['third_party']}")
                if turn:  # the first writes bytecode and fills the file cache
                    for when in ("first", "again"):
                        seconds[name][when].append(result[when])
    listed = [seconds[f"list, {count} records of one plugin"]["first"] for count in RECORDS]
    save("registry", {
        "what": "processor seconds of a registry call: the first of a process, and later ones",
        "rounds": rounds,
        "seconds": {name: {when: summary(values, digits=6) for when, values in found.items()}
                    for name, found in seconds.items()},
        "listing_beyond_none": {
            str(count): summary([a - b for a, b in zip(values, listed[0])])
            for count, values in zip(RECORDS[1:], listed[1:])},
        "listing_per_distribution": summary([
            (a - b) / DISTRIBUTIONS[-1] for a, b in zip(
                seconds[f"list, {DISTRIBUTIONS[-1]} distributions"]["first"],
                seconds["list, 0 distributions"]["first"])], digits=6),
        "budget": {"listing of 1000 records beyond none": 0.2, "listing per distribution": 0.0005,
                   "completion": 0.3},
    })


if __name__ == "__main__":
    main()
