"""The options of every command that works on a model, each declared once.

`declaration` turns a declaration into a command-line option, a profile key and a line of the
reference. Spellings of the older applications stand under `names`. Defaults are those of
the applications' README, except where a comment says otherwise.
"""

from typing import Dict

from ipucnn.bench.options import BenchOptions
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.planning.options import LaunchOptions, PlanOptions
from ipucnn.training.options import RestoreOptions, TrainOptions
from ipucnn.training.stored_options import AverageOptions, ValidateOptions

COMMANDS: Dict[str, type] = {
    "run": RunOptions, "train": TrainOptions, "restore": RestoreOptions,
    "validate": ValidateOptions, "average": AverageOptions, "export": ExportOptions,
    "plan": PlanOptions, "data convert": ConvertOptions, "data bench": BenchOptions}
"""The commands whose options are declared, and their declarations."""

PROFILED: Dict[str, type] = {"run": RunOptions, "train": TrainOptions, "export": ExportOptions,
                             "launch": LaunchOptions}
"""What a profile may be for, and what it may hold."""

__all__ = ["COMMANDS", "PROFILED", "AverageOptions", "BenchOptions", "ConvertOptions",
           "ExportOptions", "LaunchOptions", "PlanOptions", "RestoreOptions", "RunOptions",
           "TrainOptions", "ValidateOptions"]
