"""Imports plugins by the name of a module or a file (`--plugin`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Dict, List, Optional, Sequence

from ipucnn.core.errors import PluginError
from ipucnn.core.files import expanded_path
from ipucnn.core.registry.discovery import OWN_DISTRIBUTION, normal_name


def distinct(extras: Sequence[str]) -> List[str]:
    """Return files and modules without other spellings of the same file."""
    found: Dict[str, str] = {}
    for extra in extras:
        found.setdefault(place_of(extra), extra)
    return list(found.values())


def place_of(extra: str) -> str:
    """Return the path of a file, however it is spelt; the name of a module."""
    return os.path.realpath(str(expanded_path(extra))) if extra.endswith(".py") else extra


def file_suffix(extra: str, extras: Sequence[str]) -> str:
    """Return what distinguishes a file from others of its name, and from ipucnn; usually empty.

    It depends on the path alone, so that all processes of a run have the same modules.

    Args:
        extra: the file, or a module.
        extras: all files and modules of the run.
    """
    def label(one: str) -> str:
        return normal_name(re.sub(r"\W", "_", Path(one).stem if one.endswith(".py") else one))

    path = place_of(extra)
    same = [one for one in extras if label(one) == label(extra) and place_of(one) != path]
    if not same and label(extra) != OWN_DISTRIBUTION:
        return ""
    return f"_{zlib.crc32(os.fsencode(path)):08x}"


def advice(extra: str, error: Optional[BaseException]) -> str:
    """Return how to fix the import of a module that a plugin file cannot find, or an empty string.

    Args:
        extra: the file, or a module.
        error: the error of the import.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if not missing or not extra.endswith(".py"):
        return ""
    path = expanded_path(extra)
    if missing == path.stem:
        return "refer to its own functions and classes directly instead of by text (target=build)"
    beside = path.parent / missing.partition(".")[0]
    return (f"add its folder to PYTHONPATH ('PYTHONPATH={path.parent}')"
            if beside.is_dir() or beside.with_suffix(".py").is_file() else "")


def import_plugin(extra: str, local: bool, suffix: str = "") -> ModuleType:
    """Import a plugin module by its name.

    Args:
        extra: the name.
        local: it may also be a file.
        suffix: of the name of a file's module.
    """
    if not local or (not extra.endswith(".py") and os.sep not in extra):
        return importlib.import_module(extra)
    path = expanded_path(extra)
    if not path.is_file():
        raise PluginError("it is a folder, not a Python file" if path.is_dir()
                          else "there is no such file")
    name = "ipucnn_local_" + re.sub(r"\W", "_", path.stem) + suffix
    spec = importlib.util.spec_from_file_location(name, str(path))
    if spec is None or spec.loader is None:
        raise PluginError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that "module:attr" targets and pickling find it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
