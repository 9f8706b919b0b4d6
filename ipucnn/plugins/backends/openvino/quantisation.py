"""Post-training quantisation with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from typing import Any, Iterator, List

from ipucnn.core.environment import environment_with
from ipucnn.core.errors import IpucnnError
from ipucnn.core.warning_filters import own_filters

_NO_TELEMETRY = {"NNCF_CI": "1"}
"""The variable that disables NNCF's telemetry; it is read on import."""

_FLOATING = ("Multiply", "ReduceMean")
"""Operators between convolutions that stay floating-point, as those of Swish and of squeeze and
excitation."""


def _floating(model: Any) -> List[str]:
    """Return the names of the operators that are not quantised.

    Converting to integers and back around each of them, and around depthwise convolutions, takes
    more time than quantisation saves: EfficientNet would be slower than in single precision.
    """
    return [node.get_friendly_name() for node in model.get_ops()
            if node.get_type_name() in _FLOATING
            or (node.get_type_name() == "GroupConvolution"
                and list(node.input(1).get_shape())[1:3] == [1, 1])]


def quantise(model: Any, batches: List[Any]) -> Any:
    """Return a model that computes in 8-bit integers where that is possible.

    Activations are quantised asymmetrically (NNCF's mixed preset), which has little overhead and is
    necessary for networks with other activations than ReLU.

    Args:
        model: of OpenVINO, in single precision.
        batches: arrays to calibrate with, of the model's input type and shape.

    Raises:
        IpucnnError: NNCF fails.
    """
    with _quiet():
        import nncf

        try:
            return nncf.quantize(
                model, nncf.Dataset(batches), subset_size=len(batches),
                preset=nncf.QuantizationPreset.MIXED, target_device=nncf.TargetDevice.CPU,
                ignored_scope=nncf.IgnoredScope(names=_floating(model)))
        except Exception as error:  # its exceptions, and those of its dependencies
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise IpucnnError(f"NNCF cannot quantise the network: {reason}",
                              "use '--precision half' or 'full'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress NNCF's log, progress bars, warnings and telemetry.

    It replaces the class of new loggers and draws random numbers; both are restored.
    """
    logger = logging.getLogger("nncf")
    disabled = logger.disabled
    loggers, drawn = logging.getLoggerClass(), random.getstate()
    try:
        with own_filters(), environment_with(_NO_TELEMETRY), \
                contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logger.disabled = True
            yield
    finally:
        logger.disabled = disabled
        logging.setLoggerClass(loggers)
        random.setstate(drawn)
