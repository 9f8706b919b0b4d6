"""A launcher that returns the exit code of the first process only."""

import os
import subprocess

import ipucnn
from ipucnn.plugin import Instances, Launch, Launcher, UsageError


class Planted(Launcher):
    def launch(self, environment):
        if "PLANTED_RANK" not in environment:
            return None
        rank, size = environment["PLANTED_RANK"], environment.get("PLANTED_SIZE", "")
        if not (rank.isdecimal() and size.isdecimal()):
            raise UsageError(f"PLANTED_RANK is {rank!r} and PLANTED_SIZE {size!r}")
        return Launch(int(rank), int(size))

    def environment(self, index, count):
        return {"PLANTED_RANK": str(index), "PLANTED_SIZE": str(count)}

    def start(self, command):
        running = [subprocess.Popen(command, env={**os.environ, **self.environment(rank, 2)})
                   for rank in range(2)]
        codes = [process.wait() for process in running]
        return codes[0]

    def join(self):
        return Instances()


@ipucnn.hookimpl
def ipucnn_launchers():
    return [ipucnn.LauncherSpec(name="planted", summary="planted", target=Planted,
                                variables=("PLANTED_RANK",))]
