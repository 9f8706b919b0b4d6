"""A logger that raises where a value is not known."""

import ipucnn
from ipucnn.plugin import Logger


class Planted(Logger):
    name = "planted"

    def start(self, run):
        self.lines = []

    def row(self, row):
        if row["kind"] == "train":
            self.lines.append(f"{row['loss']:.3f} at {row['images_per_second']:.0f} images/s")


@ipucnn.hookimpl
def ipucnn_loggers():
    return [ipucnn.LoggerSpec(name="planted", summary="planted", target=Planted)]
