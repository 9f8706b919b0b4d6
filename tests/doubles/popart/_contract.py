"""What the contract file says, and calls that are bound to its signatures."""

import json
import re
from pathlib import Path

CONTRACT = json.loads((Path(__file__).parents[1] / "contracts" / "popart-3.3.json").read_text())
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
