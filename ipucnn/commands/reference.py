"""The commands with declared options, for the generated reference and for tests."""

from __future__ import annotations

from typing import Mapping, Tuple

from ipucnn.benchmarking.network_options import NetworkBenchOptions
from ipucnn.benchmarking.options import BenchOptions
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.planning.options import PlanOptions
from ipucnn.training.options.stored_options import AverageOptions, ValidateOptions
from ipucnn.training.options.train_options import RestoreOptions, TrainOptions

COMMANDS: Mapping[str, Tuple[type, ...]] = {
    "run": (RunOptions,), "train": (TrainOptions,), "restore": (RestoreOptions,),
    "validate": (ValidateOptions,), "average": (AverageOptions,), "export": (ExportOptions,),
    "plan": (TrainOptions, PlanOptions), "data convert": (ConvertOptions,),
    "data bench": (BenchOptions,), "bench": (NetworkBenchOptions,)}
"""Each command and the classes that declare its options."""
