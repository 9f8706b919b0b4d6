"""How names are compared and how an unknown one is answered."""

from __future__ import annotations

import difflib
from typing import Iterable, List


def key(name: str) -> str:
    """Return the form in which two spellings of one name are equal (case, hyphen, underscore)."""
    return name.strip().lower().replace("_", "-")


def close_matches(name: str, candidates: Iterable[str], limit: int = 3) -> List[str]:
    """Return up to `limit` candidates that look like `name`, best first."""
    by_key = {key(candidate): candidate for candidate in candidates}
    found = difflib.get_close_matches(key(name), list(by_key), n=limit, cutoff=0.6)
    return [by_key[match] for match in found]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return "did you mean 'a', 'b'?" or an empty string when nothing is close."""
    matches = close_matches(name, candidates)
    if not matches:
        return ""
    return "did you mean " + ", ".join(repr(match) for match in matches) + "?"
