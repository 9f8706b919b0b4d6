"""Selects the device, and the execution provider of ONNX Runtime for it."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout, suppress
from functools import lru_cache
from typing import Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.warning_filters import own_filters
from ipucnn.onnx.runtime_library import onnxruntime
from ipucnn.plugins.backends._gpus import of_instance

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Execution providers by the kind of the device."""


def picked(wanted: Optional[str]) -> Tuple[str, int]:
    """Return the kind and the number of the device called `wanted`, or of the best one.

    Raises:
        UsageError: this machine does not have the device.
    """
    there = onnxruntime.get_available_providers()
    wanted = of_instance(wanted)
    name, _, index = (wanted or (
        "cuda" if PROVIDERS["cuda"] in there and starts("cuda") else "cpu")).partition(":")
    if name not in PROVIDERS or (index and not index.isdecimal()):
        raise UsageError(f"the onnxruntime backend has no device {wanted!r}",
                         "devices: cpu, cuda, cuda:N")
    if PROVIDERS[name] not in there:
        raise UsageError(f"there is no device {wanted!r} here: this ONNX Runtime is built without "
                         "CUDA", "pip install onnxruntime-gpu, or use '--device cpu'")
    if name == "cuda" and not starts(name, int(index or 0)):
        raise UsageError(f"ONNX Runtime cannot use device {wanted or name!r}",
                         "check the driver, CUDA and cuDNN with 'ipucnn doctor --deep', or use "
                         "'--device cpu'")
    return name, int(index or 0)


@lru_cache(maxsize=None)
def starts(name: str, index: int = 0) -> bool:
    """Return whether a provider works; built-in providers are listed even without a device."""
    from onnx import TensorProto, helper

    if name == "cuda":
        _load_libraries()
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1],
                              value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)  # suppresses messages about the missing driver
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[
            (PROVIDERS[name], {"device_id": index})])
    except Exception:  # its exceptions have no common base
        return False
    finally:
        onnxruntime.set_default_logger_severity(2)
    return bool(session.get_providers()[0] == PROVIDERS[name])


def _load_libraries() -> None:
    """Load the CUDA libraries that pip has installed, which the system's loader does not find."""
    load = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    # missing ones are printed; whether the provider works is found out in any case
    with suppress(Exception), own_filters(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if load is not None:
            load()
