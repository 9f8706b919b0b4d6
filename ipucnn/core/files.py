"""Creates folders and writes files atomically."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Union

from ipucnn.core.errors import DataError, UsageError

_DIGITS = 40
"""Digits that a number in a JSON text may have."""


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


def read_limited(path: Union[str, Path], limit: int, flags: int = 0) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Args:
        path: of the file.
        limit: in bytes; a larger file is not read.
        flags: further flags of `os.open`.

    Raises:
        OSError: it cannot be read, is larger, or is a folder, pipe or device (which could block or
            never end); `strerror` says which.
    """
    # opening a pipe would block until something writes to it
    flags |= os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(str(path), flags)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes, the limit for such a file")
    return content


def parsed_json(text: Union[str, bytes]) -> Any:
    """Return the value of a JSON text from outside.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number that is not finite or
            has too many digits; the message says which.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits is too large")
    return int(digits)


def _real(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:_DIGITS]} is not a finite number")


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
