"""Completion in a shell: names for arguments, and words that bash divides at colons."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Callable, Iterator, List, Sequence, Tuple

from ipucnn.core.errors import IpucnnError
from ipucnn.terminal.tables import emit

_ASKS = "_IPUCNN_COMPLETE"
_BREAKS = (":", "=")


def of_words(*words: str) -> Callable[[str], List[str]]:
    """Return a completion function for fixed words."""
    def complete(incomplete: str) -> List[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def of_plugins(kind: str, *words: str) -> Callable[[str], List[str]]:
    """Return a completion function for the names of plugins of a kind, and fixed words."""
    def complete(incomplete: str) -> List[str]:
        from ipucnn.core.registry.registry import registry
        from ipucnn.terminal.completed_names import completions

        return [*of_words(*words)(incomplete), *completions(registry(), kind, incomplete)]

    return complete


def of_profiles(*commands: str) -> Callable[[str], List[str]]:
    """Return a completion function for the names of profiles of some commands."""
    def complete(incomplete: str) -> List[str]:
        from ipucnn.core.options.profiles import available

        return list(dict.fromkeys(
            profile.name for command in commands for profile in available(command)
            if profile.name.startswith(incomplete)))

    return complete


def of_names(*words: str) -> Callable[[str], List[str]]:
    """Return a function that completes some words, and the built-in plugins of all kinds."""
    def complete(incomplete: str) -> List[str]:
        from ipucnn.core.registry.kinds import KINDS
        from ipucnn.core.registry.registry import registry

        names = [name for kind in KINDS for name in registry().names(kind)]
        return of_words(*dict.fromkeys([*words, *names]))(incomplete)

    return complete


def joined(words: Sequence[str], place: int) -> Tuple[List[str], int]:
    """Return the words of a command line that bash has divided at `:` and `=`, and its place.

    Args:
        words: as in `COMP_WORDS`.
        place: as in `COMP_CWORD`.
    """
    found: List[str] = []
    at, glued = place, False
    for number, word in enumerate(words):
        if found and len(found) > 1 and (glued or word in _BREAKS):
            found[-1] += word
            at -= number <= place
        else:
            found.append(word)
        glued = word in _BREAKS
    return found, at


@contextlib.contextmanager
def completing() -> Iterator[None]:
    """Adapt the process to a completion, if the shell requests one.

    Values with colons are supported in bash, and no error is printed: it would be inserted into
    the user's command line.

    Raises:
        SystemExit: instead of an error of ipucnn.
    """
    if not os.environ.get(_ASKS):
        yield
        return
    try:
        with _with_colons():
            yield
    except IpucnnError as error:
        raise SystemExit(error.exit_code) from error


@contextlib.contextmanager
def _with_colons() -> Iterator[None]:
    """Support completion of values with colons in bash.

    Bash inserts a completion after the last colon of the word.
    """
    words = os.environ.get("COMP_WORDS", "").split("\n")
    if os.environ.get(_ASKS) != "complete_bash" or not set(words) & set(_BREAKS):
        yield
        return
    whole, place = joined(words, int(os.environ.get("COMP_CWORD", "0")))
    word = whole[place].rpartition("=")[2] if place < len(whole) else ""
    behind = word.rpartition(":")[0] + ":" if ":" in word else ""
    before = {name: os.environ.get(name, "") for name in ("COMP_WORDS", "COMP_CWORD")}
    os.environ.update(COMP_WORDS="\n".join(whole), COMP_CWORD=str(place))
    answers = io.StringIO()
    try:
        with contextlib.redirect_stdout(answers):
            yield
    finally:
        os.environ.update(before)
        for answer in answers.getvalue().splitlines():
            emit(answer[len(behind):] if answer.startswith(behind) else answer)
