"""Reads generated malformed files of every external file type, for a given time.

Each target of `tests/fuzzing.py` runs in a process of its own whose memory is limited. A target is
broken by a file that raises anything but an `IpucnnError` of a few printable lines, takes longer
than a few seconds, or more memory than there is. The file is printed, reduced by hypothesis to what
matters.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

HERE = Path(__file__).resolve().parent
# not the folder of the benchmarks: its `cuda.py` is not the package that torch looks for
sys.path[0] = str(HERE.parent / "tests")

CHUNK = 200  # files between two looks at the clock
MEMORY = 2 << 30  # bytes that reading may take above what the process has at its beginning


def tried(number: int, seconds: float, seed: int) -> Dict[str, Any]:
    """Return what came of a target's files."""
    from fuzzing import TARGETS
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    target = TARGETS[number]
    outcomes: Counter[str] = Counter()
    longest, broken = 0.0, ""

    def check(content: Any) -> None:
        nonlocal longest
        begin = time.monotonic()
        outcomes[target.check(content)] += 1
        longest = max(longest, time.monotonic() - begin)

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    begin, chunk = time.monotonic(), seed
    while time.monotonic() - begin < seconds and not broken:
        run = seeded(chunk)(settings(
            max_examples=CHUNK, deadline=None, database=None, report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck))(given(target.made())(check)))
        try:
            run()
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", []))
            broken = f"{type(error).__name__}: {error}\n{notes}"[:2000]
        chunk += 1
    return {"target": target.name, "files": sum(outcomes.values()),
            "seconds": round(time.monotonic() - begin, 1),
            "outcomes": dict(sorted(outcomes.items())),
            "longest_seconds": round(longest, 2), "broken": broken}


def main() -> int:
    """Run the campaign; exit code 1 when a target is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="per target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", type=int, help="number of the only target, here and now")
    parser.add_argument("--out", help="JSON file; results/fuzz.json when not given")
    arguments = parser.parse_args()
    if arguments.target is not None:
        print(json.dumps(tried(arguments.target, arguments.seconds, arguments.seed)))
        return 0
    from fuzzing import TARGETS

    found: List[Dict[str, Any]] = []
    for number, target in enumerate(TARGETS):
        ended = subprocess.run(
            [sys.executable, __file__, "--target", str(number), "--seconds",
             str(arguments.seconds), "--seed", str(arguments.seed)],
            stdout=subprocess.PIPE, universal_newlines=True, check=False)
        lines = ended.stdout.strip().splitlines()
        found.append(json.loads(lines[-1]) if not ended.returncode and lines else {
            "target": target.name, "broken": f"the process ended with {ended.returncode}"})
        print(found[-1], file=sys.stderr, flush=True)
    measured = {"seed": arguments.seed, "targets": found,
                "files": sum(each.get("files", 0) for each in found),
                "broken": sum(bool(each["broken"]) for each in found)}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    else:
        sys.path.append(str(HERE))
        from common import save

        save("fuzz", measured)
    return 1 if measured["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
