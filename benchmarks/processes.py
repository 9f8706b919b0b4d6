"""Measures commands: seconds from start to end, and the largest memory of their processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence

from common import summary

_LAUNCHER = """
import json, os, resource, subprocess, sys, time
answer = os.fdopen(int(sys.argv[1]), "w")
begin = time.perf_counter()
done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
seconds = time.perf_counter() - begin
peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
json.dump([done.returncode, seconds, peak, done.stderr[-2000:].decode("utf-8", "replace")], answer)
"""
"""A small process between this one and the command: `ru_maxrss` of a process is at least what the
one that started it had, and this one may have imported torch."""


@dataclass(frozen=True)
class Finished:
    """A command that ended.

    Attributes:
        seconds: of the wall clock.
        peak: the largest resident memory of any of its processes, in bytes.
    """

    seconds: float
    peak: int


def finished(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a command and measure it; its failure is an error that shows what it wrote."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as answer:
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writing),
                                    *command], pass_fds=[writing], env=dict(environment))
        os.close(writing)
        text = answer.read()
        process.wait()
    code, seconds, peak, error = json.loads(text)
    if code:
        raise RuntimeError(f"{' '.join(command)[:300]} ended with exit code {code}: {error}")
    return Finished(seconds, peak)


def in_turn(commands: Mapping[str, Sequence[str]], environment: Mapping[str, str],
            rounds: int) -> Dict[str, List[Finished]]:
    """Run commands in turn, a round to fill caches before those that count."""
    found: Dict[str, List[Finished]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            once = finished(command, environment)
            if turn:
                found[name].append(once)
    return found


def described(found: Mapping[str, Sequence[Finished]]) -> Dict[str, Dict[str, Dict[str, float]]]:
    """Return seconds and megabytes of commands, for a file of results."""
    return {"seconds": {name: summary([one.seconds for one in each])
                        for name, each in found.items()},
            "peak_megabytes": {name: summary([one.peak / 1e6 for one in each], 0)
                               for name, each in found.items()}}
