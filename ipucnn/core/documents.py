"""JSON and YAML: texts from outside within limits, and small files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Dict, Optional, Union

from ipucnn.core.files import read_limited, write_text

LARGEST_JSON = 1 << 24
"""Largest small JSON file in bytes: a record of a checkpoint, or of a download."""

_DIGITS = 40
"""Maximum number of digits of a number in a JSON text."""

_DEEPEST = 100
"""Maximum depth of lists and mappings in a JSON or YAML text: other functions recurse into them."""

_TOO_DEEP = "it is nested too deeply"


def parsed_json(text: Union[str, bytes]) -> Any:
    """Return the value of a JSON text from outside.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number that is not finite or
            has too many digits; the message states the reason.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [item for part in level if isinstance(part, (dict, list))
                 for item in (part.values() if isinstance(part, dict) else part)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def parsed_yaml(text: str) -> Any:
    """Return the value of a YAML text that a program has written: plain types, without references.

    Raises:
        ValueError: it is not YAML, is nested too deeply, has references (a few lines of them can
            stand for more values than fit into memory), or has a value that is not of its tag.
    """
    import yaml

    # libyaml reads the options of a thousand trainings ten times as fast
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST or isinstance(event, yaml.AliasEvent):
                raise ValueError(_TOO_DEEP if depth > _DEEPEST else "it has references")
        return yaml.load(text, loader)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"it is not YAML: {(str(error) or type(error).__name__).splitlines()[0]}"
                         ) from error


def read_mapping(path: Path, limit: int = LARGEST_JSON) -> Dict[str, Any]:
    """Return the mapping in a file of JSON, or of YAML by its suffix; empty if it cannot be read.

    Args:
        path: of the file.
        limit: in bytes; a larger file is not read.
    """
    try:
        content = read_limited(path, limit)
        value = parsed_yaml(content.decode(errors="replace")) if path.suffix == ".yaml" \
            else parsed_json(content)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def json_text(value: Any, indent: Optional[int] = None) -> str:
    """Return `value` as ASCII JSON; numbers that are not finite are null, as JSON has none."""
    return json.dumps(_finite(value), indent=indent, default=str, allow_nan=False)


def write_json(path: str, value: Any) -> None:
    """Write `value` as JSON, atomically; see `json_text` and `write_text`."""
    write_text(path, json_text(value, indent=2) + "\n")


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits is too large")
    return int(digits)


def _real(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:_DIGITS]} is not a finite number")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
