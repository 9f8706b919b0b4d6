"""The content of the contract file, and calls that are bound to its signatures."""

import json
import re
from pathlib import Path

CONTRACT = json.loads((Path(__file__).parents[1] / "contracts" / "popart-3.3.json").read_text())
RULES = json.loads((Path(__file__).parents[1] / "rules" / "popart.json").read_text())
REQUIRED = object()
"""Stands for the default of a parameter that has none."""


def parameters(signature):
    """Return names and C++ defaults from a signature as the contract writes it."""
    parts, depth, start, inside = [], 0, 1, signature
    for place, character in enumerate(inside):
        depth += (character in "([{<") - (character in ")]}>")
        if depth == 0 or (character == "," and depth == 1):
            parts.append(inside[start:place])
            start = place + 1
    found = {}
    for part in parts:
        name, equals, default = part.strip().partition("=")
        if name.isidentifier():
            found[name] = default if equals else REQUIRED
    return found


def bound(name, wanted, args, kwargs):
    """Return the arguments by name; `wanted` are the parameters with their C++ defaults.

    Raises:
        TypeError: as pybind11 does, for arguments that do not fit.
    """
    if len(args) > len(wanted):
        raise TypeError(f"{name}(): incompatible function arguments: {len(args)} are too many")
    given = dict(zip(wanted, args))
    for key, value in kwargs.items():
        if key not in wanted or key in given:
            raise TypeError(f"{name}(): incompatible function arguments: {key}")
        given[key] = value
    missing = [key for key, default in wanted.items() if default is REQUIRED and key not in given]
    if missing:
        raise TypeError(f"{name}(): incompatible function arguments: no {', '.join(missing)}")
    return given


def number(text):
    """Return the number in a C++ literal such as `1e-7`, `0.125f` or `{100000}`."""
    found = re.search(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", text)
    if found is None:
        raise ValueError(text)
    return float(found.group()) if set(".e") & set(found.group()) else int(found.group())


def overloaded(name, enums, args, kwargs):
    """Return the arguments of the first overload that takes them, as pybind11 finds it.

    Raises:
        TypeError: none takes them.
    """
    for overload in RULES["overloads"][name]:
        wanted = {entry[0]: REQUIRED if len(entry) == 2 else entry[2] for entry in overload}
        try:
            given = bound(name, wanted, args, kwargs)
        except TypeError:
            continue
        kinds = {entry[0]: entry[1] for entry in overload}
        if all(_fits(value, kinds[key], enums) for key, value in given.items()):
            for key, default in wanted.items():
                if key not in given:
                    kind = kinds[key]
                    given[key] = getattr(enums, kind)[default] if hasattr(enums, kind) else default
            return given
    raise TypeError(f"{name}(): incompatible function arguments: {args} {kwargs}")


def _fits(value, kind, enums):
    if kind == "float":
        return isinstance(value, (int, float))
    if kind == "set":
        return isinstance(value, (set, frozenset)) and all(isinstance(one, str) for one in value)
    if kind == "list":
        return isinstance(value, (list, tuple))
    return isinstance(value, {"str": str, "int": int}.get(kind) or getattr(enums, kind))
