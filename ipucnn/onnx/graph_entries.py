"""Replaces entries of ONNX graphs, whose lists own them."""

from __future__ import annotations

from typing import Any, Iterable


def copied(message: Any) -> Any:
    """Return a copy of a protocol buffer, which is valid without the list that contained it."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def replace_all(entries: Any, others: Iterable[Any]) -> None:
    """Replace the entries of a list of a protocol buffer; it may contain some of the others."""
    copies = [copied(one) for one in others]
    del entries[:]
    entries.extend(copies)
