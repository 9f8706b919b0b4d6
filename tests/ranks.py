"""Processes of one run, with the variables of `torchrun`."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from forked import CONTEXT, call, ipucnn

TINY = ["--plugin", str(Path(__file__).parent / "tiny_plugin.py")]


def free_port():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


class Ranks:
    """The processes of one run.

    Args:
        folder: for their output.
        commands: the words of the command line of each.
        variables: further environment variables of each; None removes one.
        **common: further environment variables of all.
    """

    def __init__(self, folder, commands, variables=None, **common):
        port = free_port()
        self.outputs = [str(folder / f"rank{rank}") for rank in range(len(commands))]
        self.processes = []
        for rank, words in enumerate(commands):
            environment = {
                **os.environ,
                "TORCHELASTIC_RUN_ID": "none", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", **common,
                **(variables[rank] if variables else {})}
            process = CONTEXT.Process(target=call, args=(
                ipucnn, [*TINY, *map(str, words)],
                {name: value for name, value in environment.items() if value is not None},
                self.outputs[rank]))
            process.start()
            self.processes.append(process)

    def codes(self, timeout=90):
        """Wait for all, and return their exit codes."""
        for process in self.processes:
            process.join(timeout)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
            process.join()
            process.close()
        return codes

    def out(self, rank=0):
        return Path(self.outputs[rank] + ".out").read_text()

    def err(self, rank=0):
        return Path(self.outputs[rank] + ".err").read_text()


def run(folder, count, *words):
    """Run one command in `count` processes and return them, after they have ended with 0."""
    ranks = Ranks(folder, [words] * count)
    codes = ranks.codes()
    assert codes == [0] * count, [ranks.err(rank) for rank in range(count)]
    return ranks


def last(folder, epoch=2):
    """Return the checkpoint of an epoch."""
    return torch.load(next(folder.glob(f"*_{epoch}.pt")), weights_only=True)


def same_progress(folder, other, rel):
    """Compare positions and metrics of two trainings, without the measured speeds."""
    assert last(folder)["position"] == last(other)["position"]
    rows = [[{name: value for name, value in json.loads(line).items()
              if name not in ("images_per_second", "data_wait_share")}
             for line in (each / "metrics.jsonl").read_text().splitlines()]
            for each in (folder, other)]
    assert len(rows[0]) == len(rows[1]) > 4
    for own, expected in zip(*rows):
        assert own.keys() == expected.keys()
        for name, value in own.items():
            assert value == (pytest.approx(expected[name], rel=rel)
                             if isinstance(value, float) else expected[name]), name
