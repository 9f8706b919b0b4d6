"""Divides a line of a shell into its commands, and quotes words for one."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import List, Tuple

_WORD = r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|\$\([^()]*\)|`[^`]*`|<[^<>\s]+>|[^\s"'\\;&|<>`])+"""
_TOKEN = re.compile(
    r"(?P<gap>\s+)|(?P<comment>#.*)|(?P<placeholder><[^<>\s]+>)"
    r"|(?P<redirection>(?:\d*|&)(?:>>?|<)&?)|(?P<operator>[;&|]+)|(?P<word>" + _WORD + ")")

_TYPOGRAPHY = {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u00a0": " "}
_PLACEHOLDER = re.compile(r"(?<![^\s=])<[^\W\d_]\w*(?: [^\W\d_]\w*)+>(?!\S)")
"""A placeholder of several words, as in `--checkpoint-path <File path>`."""

_EXPANSION = re.compile(r"\$[\w{(]|`")
_HOME = re.compile(r"~[\w.-]*(?:/|$)")


@dataclass(frozen=True)
class Part:
    """One command of a line.

    Attributes:
        text: the command, without redirections.
        start: where it begins in the line.
        stop: where it ends.
        tail: where its redirections end.
        following: where the next command begins.
    """

    text: str
    start: int
    stop: int
    tail: int
    following: int


def typed(text: str) -> str:
    """Return text with a shell's quotes and dashes in place of those of a word processor.

    Placeholders of several words are quoted, because a shell reads them as redirections.
    """
    for printed, plain in _TYPOGRAPHY.items():
        text = text.replace(printed, plain)
    text = re.sub(r"(?<!\S)[\u2013\u2014](?=\w)", "--", text)
    return _PLACEHOLDER.sub(r"'\g<0>'", text)


def divided(line: str) -> List[Part]:
    """Return the commands of a line (`cd a && python b.py > c`); comments belong to none.

    A line that cannot be divided, as a quotation is not closed, is one command.
    """
    parts: List[Part] = []
    start = place = 0
    stop = -1  # where the redirections of the current command begin
    end = len(line)
    while place < end:
        token = _TOKEN.match(line, place)
        if token is None:
            return [Part(line, 0, len(line), len(line), len(line))]
        if token.lastgroup == "comment":
            end = place
        elif token.lastgroup == "redirection" and stop < 0:
            stop = place
        elif token.lastgroup == "operator":
            parts.append(_part(line, (start, stop, place), token.end()))
            start, stop = token.end(), -1
        place = token.end()
    parts.append(_part(line, (start, stop, end), end))
    return [part for part in parts if part.text]


def _part(line: str, bounds: Tuple[int, int, int], following: int) -> Part:
    start, stop, tail = bounds
    stop = tail if stop < 0 else stop
    text = line[start:stop]
    return Part(text.strip(), start + len(text) - len(text.lstrip()), start + len(text.rstrip()),
                start + len(line[start:tail].rstrip()), following)


def expands(word: str) -> bool:
    """Return whether a shell replaces a part of a word: a variable, or the output of a command."""
    return _EXPANSION.search(word) is not None


def quoted_word(word: str) -> str:
    """Return a word as a shell takes it; variables and a `~` at its beginning are expanded."""
    home = _HOME.match(word)
    if home is not None:
        rest = word[home.end():]
        return home.group() + (quoted_word(rest) if rest else "")
    if expands(word):
        return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'
    return shlex.quote(word)
