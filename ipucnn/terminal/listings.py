"""Output settings for commands that list plugins."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator


@contextmanager
def without_loader_warnings() -> Iterator[None]:
    """Suppress plugin-load warnings while a listing shows the same states in its rows."""
    import logging

    loader = logging.getLogger("ipucnn.plugins")

    def no_warning(record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING

    loader.addFilter(no_warning)
    try:
        yield
    finally:
        loader.removeFilter(no_warning)
