"""The options of every command that works on a model, each declared once.

`ipucnn.core.declaration` turns a declaration into a command-line option, a profile key and a line
of the reference. Spellings of the older applications stand under `names`. Defaults are those of
the applications' README, except where a comment says otherwise.
"""

from typing import Dict

from ipucnn.core.options.bench import BenchOptions
from ipucnn.core.options.convert import ConvertOptions
from ipucnn.core.options.export import ExportOptions
from ipucnn.core.options.plan import LaunchOptions, PlanOptions
from ipucnn.core.options.run import RunOptions
from ipucnn.core.options.stored import AverageOptions, ValidateOptions
from ipucnn.core.options.train import RestoreOptions, TrainOptions

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
