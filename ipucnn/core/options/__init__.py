"""The options of every command that works on a model, each declared once.

`ipucnn.core.declaration` turns a declaration into a command-line option, a profile key and a line
of the reference. Spellings of the older applications stand under `names`. Defaults are those of
the applications' README, except where a comment says otherwise.
"""

from typing import Dict

from ipucnn.core.options.run import RunOptions
from ipucnn.core.options.stored import AverageOptions, ValidateOptions
from ipucnn.core.options.train import RestoreOptions, TrainOptions

COMMANDS: Dict[str, type] = {
    "run": RunOptions, "train": TrainOptions, "restore": RestoreOptions,
    "validate": ValidateOptions, "average": AverageOptions}
"""The commands whose options are declared, and their declarations."""

__all__ = ["COMMANDS", "AverageOptions", "RestoreOptions", "RunOptions", "TrainOptions",
           "ValidateOptions"]
