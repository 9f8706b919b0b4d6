"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_loggers() -> List[ipucnn.LoggerSpec]:
    """Return the logger."""
    return [ipucnn.LoggerSpec(
        name="frozen-logger", summary="a line of JSON per row",
        target="ipucnn_frozen_logger.logger:FrozenLoggerLogger",
        options="ipucnn_frozen_logger.options:LoggerOptions")]
