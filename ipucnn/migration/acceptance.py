"""Checks that a command line is accepted, without running it."""

from __future__ import annotations

from typing import Any, List, Sequence

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.launching import stages_of
from ipucnn.core.options.building import build
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.registry import registry
from ipucnn.migration.scripts import OPTIONS
from ipucnn.terminal.flags import flag_table, parsed
from ipucnn.terminal.launch import LaunchOptions
from ipucnn.terminal.spellings import normalise

_LAUNCHED = ("run", "train", "restore", "validate")


def refusal(command: str, words: Sequence[str]) -> str:
    """Return why a command line would be refused; empty if it is accepted.

    Args:
        command: the command.
        words: its words, which begin with its name.
    """
    kinds = OPTIONS.get(command)
    if kinds is None or command == "plan":
        return ""
    try:
        rest = normalise(words[len(command.split()):])
        if command in _LAUNCHED:
            rest = _without_launcher(rest, kinds)
        given = parsed(kinds[0], rest, registry())
        if command in ("run", "train", "export"):
            check_plan(resolve(kinds[0], given, command))
        else:
            build(kinds[0], given)
    except IpucnnError as error:
        return str(error)
    return ""


def check_plan(options: Any) -> None:
    """Raise `UsageError` if a run or a training cannot be planned; an export has no plan."""
    if not hasattr(options, "plan"):
        return
    count = stages_of(options) - 1
    if len(options.get("pipeline_splits")) != count:  # 'auto:N' needs the network
        options = options.with_values(pipeline_splits=tuple(map(str, range(count))))
    options.plan(synthetic=False)


def _without_launcher(words: List[str], kinds: Sequence[type]) -> List[str]:
    """Return the words without the options of launchers, which are parsed before the others."""
    own = flag_table([LaunchOptions], words, registry()).by_spelling()
    kept: List[str] = []
    skip = False
    for word in words:
        if word.startswith("--"):
            skip = word in own and word not in flag_table(kinds, words, registry()).by_spelling()
        if not skip:
            kept.append(word)
    return kept
