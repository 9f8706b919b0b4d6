"""Making folders, and writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ipucnn.core.errors import DataError, UsageError


def make_folder(path: str, option: str) -> str:
    """Make the folder that an option names, where it is not there yet, and return its full path.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path!r}: {error.strerror}",
                         f"choose another one with '{option}'") from error
    return os.path.abspath(path)


def write_json(path: str, value: Any) -> None:
    """Write `value` as JSON, whole or not at all; see `write_text`."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a text file, whole or not at all; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        DataError: it cannot be written (no such folder allowed, a full disk).
    """
    target = Path(path)
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=str(target.parent), prefix=f".{target.name}.",
                                         delete=False) as file:
            partial = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, str(target))
    except OSError as error:
        if partial and os.path.exists(partial):
            os.unlink(partial)
        raise DataError(f"cannot write {path!r}: {error.strerror or error}",
                        "free space or choose another place") from error
