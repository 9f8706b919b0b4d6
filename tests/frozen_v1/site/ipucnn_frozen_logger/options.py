"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class LoggerOptions:
    """Options of the logger."""

    frozen_logger_file: str = ipucnn.option("frozen-logger.jsonl", "Name of the file in the log folder.")
