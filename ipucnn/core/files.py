"""Creates folders and writes files atomically."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from ipucnn.core.errors import DataError, UsageError


def make_folder(path: str, option: str) -> str:
    """Create the folder named by an option if it is missing, and return its full path.

    Raises:
        UsageError: it cannot be created.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path!r}: {error.strerror}",
                         f"choose another one with '{option}'") from error
    return os.path.abspath(path)


def json_text(value: Any, indent: Optional[int] = None) -> str:
    """Return `value` as JSON in ASCII; numbers that are not finite, which JSON lacks, are null."""
    return json.dumps(_finite(value), indent=indent, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def write_json(path: str, value: Any) -> None:
    """Write `value` as JSON, atomically; see `json_text` and `write_text`."""
    write_text(path, json_text(value, indent=2) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a text file, atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        DataError: it cannot be written (no such folder allowed, a full disk).
    """
    target = Path(path)
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(partial), str(target))
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror or error}",
                        "free space or choose another place") from error
    finally:
        with suppress(OSError):  # after success it has its final name
            partial.unlink()
