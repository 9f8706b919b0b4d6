"""What a record refers to: the object of its target, the modules it requires, its options class."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from typing import Any, List

from ipucnn.core.errors import PluginError
from ipucnn.core.names import brief
from ipucnn.core.registry.contract import PluginSpec, Requirement
from ipucnn.core.registry.discovery import is_installed
from ipucnn.core.registry.isolation import isolated


def import_target(target: str, who: str = "", trusted: bool = False) -> Any:
    """Import and return the object that ``"module:attribute"`` names.

    Args:
        target: the module and the attribute, which may have dots.
        who: the plugin it belongs to, for warnings; the target itself when empty.
        trusted: it is a built-in one; see `isolated`.

    Raises:
        Exception: any that the import raises.
    """
    module_name, _, attribute = target.partition(":")
    parts = attribute.split(".")
    imported = parts[0] in vars(sys.modules.get(module_name, object))
    with contextlib.nullcontext() if imported else isolated(
            who or repr(target), trusted):
        result: Any = importlib.import_module(module_name)
        for part in parts:
            result = getattr(result, part)
    return result


def missing_requirements(spec: PluginSpec) -> List[Requirement]:
    """Return the requirements of `spec` that are not installed; nothing is imported."""
    return [requirement for requirement in spec.requires if not is_installed(requirement.module)]


def check_options_class(found: Any) -> None:
    """Check a class that a record names as its `options`.

    Raises:
        PluginError: it is not a frozen dataclass, or one of its fields has no default, is not
            created by `ipucnn.option` or has an unsupported type.
        UsageError: a default is not an allowed value.
        Exception: any that creating an instance with the defaults raises.
    """
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise PluginError(f"{brief(found)} is not a dataclass")
    if not found.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise PluginError(f"dataclass {found.__name__!r} is not frozen")
    for item in dataclasses.fields(found):
        if "option" not in item.metadata:
            raise PluginError(f"field {item.name!r} of {found.__name__!r} is not declared with "
                              "'ipucnn.option'")
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise PluginError(f"field {item.name!r} of {found.__name__!r} has no default")
    for item in dataclasses.fields(found):
        item.metadata["check"](found, item.name)
    found()
