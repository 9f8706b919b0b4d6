"""Creates folders and writes files atomically."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, Optional, Union

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.staging import staged


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
    require_replaceable(path)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with staged(Path(path)) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror or error}",
                        "free space or choose another place") from error


def kind_of(path: Union[str, Path]) -> str:
    """Return what a path names, if not a file: `a folder`, `a FIFO`, `a device` or `a socket`.

    The result is empty for a file, and for a path that does not exist or cannot be examined.
    """
    try:
        mode = os.stat(str(path)).st_mode
    except (OSError, ValueError):
        return ""
    return next((kind for test, kind in _KINDS if test(mode)), "")


_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"))


def require_file(path: Union[str, Path]) -> None:
    """Raise `OSError` for a path to read that would be waited for, such as a FIFO or a device.

    Its `strerror` says what it is, as the reason of other errors of files does.
    """
    kind = kind_of(path)
    if kind and kind != "a folder":  # opening a folder fails by itself
        raise OSError(errno.EINVAL, f"it is {kind}", str(path))


def require_replaceable(path: Union[str, Path]) -> None:
    """Raise `DataError` for a path to write if it names anything but a file.

    A file is replaced by renaming, which would replace a device as well.
    """
    kind = kind_of(path)
    if kind:
        raise DataError(f"cannot write '{path}': it is {kind}", "name a file")
