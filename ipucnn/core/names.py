"""Names and other text for people: comparison, close matches, and how it is shown."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Any, Iterable, List, Match, Sequence

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
                          "\ud800-\udfff\ufdd0]")


_SECRETS = re.compile(r"((?<![A-Za-z0-9+.-])(?!file:)(?:[A-Za-z][A-Za-z0-9+.-]*://|https?:/))"
                      r"(?:[^\s/?#]*@)?([^\s?'\"]*)(?:\?[^\s'\"<>)]*[^\s'\"<>),;:.])?")
"""A URL: scheme, user and password, host and path, query without the punctuation of a sentence.

In a path, a single slash follows the scheme. Files have no query.
"""

_BRIEF = 80
_DOTS = "..."

GLOBAL_SWITCHES = ("--no-plugins", "--traceback", "--verbose", "-v", "--quiet", "-q")
GLOBAL_OPTIONS = ("--plugin", "--disable-plugins")
RESERVED = frozenset({*GLOBAL_SWITCHES, *GLOBAL_OPTIONS, "--help", "-h", "--help-all",
                      "--launcher", "--images", "--callbacks"})
"""Flags that mean the same with any command, and the names of arguments that only the functions of
Python have: no option of a plugin can have them."""


def key(name: str) -> str:
    """Return the normalised form of a name (case, hyphen, underscore)."""
    return name.strip().lower().replace("_", "-")


def composed(text: str) -> str:
    """Return a text whose accented letters are one character each, as macOS does not store them."""
    return unicodedata.normalize("NFC", text)


def class_key(name: str) -> str:
    """Return the form in which names of classes are compared; numbers lose their leading zeros."""
    form = composed(key(name)).replace(" ", "-")
    return (form.lstrip("0") or "0") if re.fullmatch("[0-9]+", form) else form


def close_matches(name: str, candidates: Iterable[str]) -> List[str]:
    """Return up to three candidates that look like `name`, best first."""
    by_key = {key(candidate): candidate for candidate in candidates}
    found = difflib.get_close_matches(key(name), list(by_key))
    return [by_key[match] for match in found]


def flag_of(name: str) -> str:
    """Return the flag of an option with a flat name: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return "did you mean 'a', 'b'?" or an empty string without a close match."""
    matches = close_matches(name, candidates)
    if not matches:
        return ""
    return "did you mean " + ", ".join(repr(match) for match in matches) + "?"


def printable(text: str) -> str:
    """Return `text` with characters escaped that control a terminal or break a line.

    These are the control characters (newlines and the escape character included), Unicode's line
    separators and bidirectional marks, and lone surrogates, which no stream can encode.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Return `text` with its line breaks kept and all else escaped that `printable` escapes."""
    return "\n".join(map(printable, text.split("\n")))


def cells(text: str) -> int:
    """Return how many columns `text` occupies on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(character) else
               2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def padded(text: str, width: int) -> str:
    """Return `text` with spaces after it, in `width` columns of a terminal at least."""
    return text + " " * (width - cells(text))


def shortened(text: str, width: int, begin: float = 1 / 3) -> str:
    """Return `text` in at most `width` columns, with dots in place of the rest.

    Args:
        text: the text.
        width: in columns of a terminal.
        begin: the share of its beginning in what is kept; the rest is its end, which is the name
            of the file in a path.
    """
    if cells(text) <= width:
        return text
    room = max(0, width - len(_DOTS))
    head, tail = "", ""
    for character in text:
        if cells(head + character) > room * begin:
            break
        head += character
    for character in reversed(text):
        if cells(character + tail) > room - cells(head):
            break
        tail = character + tail
    return (head + _DOTS + tail)[:max(0, width)]


def without_secrets(value: Any) -> Any:
    """Return plain types with every URL in their texts without user, password and query."""
    if isinstance(value, str):
        return _SECRETS.sub(r"\1\2", value)
    if isinstance(value, dict):
        return {name: without_secrets(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_secrets, value))
    return value


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message, the first ones of many: "'a', 'b' and 3 more"."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def brief(value: Any) -> str:
    """Return `repr(value)` for a message, shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, a list in itself
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF - 20]}...{text[-12:]}"


def described(value: Any) -> str:
    """Return a value of a wrong type in words: its type, with its shape if it has one."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__!r}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        what = "a tensor" if hasattr(value, "layout") else f"{name!r}"
        place = getattr(value, "device", None)
        where = f" on {place}" if hasattr(value, "layout") and str(place) != "cpu" else ""
        layout = getattr(value, "layout", None)
        how = f" ({layout})" if layout is not None and str(layout) != "torch.strided" else ""
        return f"{what}{how} of {value.dtype} {tuple(value.shape)}{where}"
    return f"{brief(value)} of type {name!r}" if isinstance(value, (str, int, float)) \
        else f"an object of type {name!r}"


def _escaped(match: Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
