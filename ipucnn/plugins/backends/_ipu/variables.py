"""Checks of the Poplar SDK's environment variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.checks import OK, WARNING, Check

Meaning = Optional[Tuple[str, str]]
"""A status and the meaning of a setting; None for a setting without effect."""


def check_variables(env: Mapping[str, str]) -> List[Check]:
    """Return a check for each variable that is set."""
    checks = []
    for name in sorted(env):
        check = _VARIABLES.get(name)
        if check is None and name.startswith("POPTORCH_"):
            check = _unknown
        meaning = check(env[name]) if check else None
        if meaning:
            status, text = meaning
            checks.append(Check(name, status, f"{env[name]}: {text}",
                                f"unset {name}" if status == WARNING else ""))
    return checks


def _switch(on: str, status: str) -> Callable[[str], Meaning]:
    """Return the check of a variable that PopTorch reads as a number; 0 is off."""
    def check(value: str) -> Meaning:
        try:
            return (status, on) if int(value) else None
        except ValueError:
            return WARNING, "PopTorch reads a number here, 0 or 1, and fails on anything else"

    return check


def _always(text: str, status: str = OK) -> Callable[[str], Meaning]:
    return lambda value: (status, text) if value else None


def _log_level(value: str) -> Meaning:
    if value.upper() in ("DEBUG", "TRACE"):
        return WARNING, "so many messages make everything slow"
    return OK, "which messages are written"


def _model_version(value: str) -> Meaning:
    if value in ("ipu1", "ipu2", "ipu21") or value.startswith("ipu:"):
        return OK, "the IPU that is emulated where one is"
    return WARNING, "not an IPU that can be emulated: ipu1, ipu2, ipu21"


def _json(text: str, status: str = WARNING) -> Callable[[str], Meaning]:
    def check(value: str) -> Meaning:
        if not value:
            return None
        try:
            fine = isinstance(json.loads(value), dict)
        except ValueError:
            fine = False
        return (status, text) if fine else (WARNING, "it is not the JSON object that it must be")

    return check


def _engine(value: str) -> Meaning:
    meaning = _json("it goes before what ipucnn sets ('--exchange-memory-target', '--profile')",
                    OK)(value)
    if meaning and meaning[0] == OK and "autoReport" in value:
        return WARNING, "a profile is written, which makes everything slow"
    return meaning


def _file(value: str) -> Meaning:
    if not Path(value).exists():
        return WARNING, "there is no such file, so no IPU is found"
    return OK, "which IPUs are there"


def _unknown(_value: str) -> Meaning:
    return WARNING, "PopTorch 3.3 reads no such variable"


_VARIABLES: Dict[str, Callable[[str], Meaning]] = {
    "POPTORCH_IPU_MODEL": _switch("emulation: measured speeds are meaningless", WARNING),
    "POPTORCH_SMALL_IPU_MODEL": _switch(
        "emulation of an IPU of four tiles: measured speeds and memory are meaningless", WARNING),
    "POPTORCH_IPU_MODEL_VERSION": _model_version,
    "POPTORCH_WAIT_FOR_IPU": _switch("a command waits as long as the IPUs are in use", OK),
    "POPTORCH_CACHE_DIR": _always("compiled models are kept there without '--model-cache-path', "
                                  "and never deleted"),
    "POPTORCH_DEFAULT_OPTIONS": _json("it sets options of PopTorch that ipucnn does not check"),
    "POPTORCH_LOG_LEVEL": _log_level, "POPART_LOG_LEVEL": _log_level,
    "POPLAR_LOG_LEVEL": _log_level,
    "POPTORCH_LOG_DEST": _always("PopTorch's messages go there"),
    "POPTORCH_EXPORT_PROTO_FILE": _always("every compilation writes its graph there", WARNING),
    "POPTORCH_EXPORT_PROTO_AS_BINARY": _always("how the graph is written"),
    "POPTORCH_MAX_GRAPH_LEN": _always("how much of a graph is logged"),
    "POPLAR_ENGINE_OPTIONS": _engine,
    "POPLAR_TARGET_OPTIONS": _json("properties of the IPUs that are compiled for", OK),
    "PVTI_OPTIONS": _json("a trace is written, which takes time"),
    "IPUOF_CONFIG_PATH": _file,
    "IPUOF_VIPU_API_PARTITION_ID": _always("the partition of IPUs in use"),
}
