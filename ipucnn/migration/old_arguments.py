"""Parses the arguments of a script as argparse or absl would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.migration.scripts import FLAG, MANY, ONE, OPTIONAL, OldOption, Script

_NEGATIONS = ("--no-", "--no")

_FALSE = ("false", "f", "0")
"""Values with which absl negates a flag (`--synthetic=false`)."""


@dataclass(frozen=True)
class Argument:
    """An option as it was given.

    Attributes:
        words: as given.
        option: its entry in the table; None if the script has no such option.
        values: its values.
        negated: it was given as `--noX`.
    """

    words: Tuple[str, ...]
    option: Optional[OldOption]
    values: Tuple[str, ...] = ()
    negated: bool = False

    @property
    def value(self) -> str:
        """Its values as one text."""
        return " ".join(self.values)

    @property
    def to(self) -> str:
        """The flag of its counterpart; empty without one."""
        return self.option.to if self.option else ""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a script.

    Attributes:
        given: the options in order.
        positional: the other words.
        help: whether help was requested.
    """

    given: Tuple[Argument, ...]
    positional: Tuple[str, ...]
    help: bool = False
    values: Mapping[str, Tuple[str, ...]] = field(init=False)
    """Values of the options by name; the last ones count."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {
            argument.option.name: argument.values for argument in self.given if argument.option})

    @property
    def unknown(self) -> int:
        """The number of words that the script would not accept."""
        return sum(argument.option is None for argument in self.given)


def parse(script: Script, words: Sequence[str]) -> Arguments:
    """Return the arguments in a list of words."""
    known = script.by_spelling()
    given: List[Argument] = []
    positional: List[str] = []
    help_wanted = False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help", "-help", "--helpfull"):
            help_wanted = True
        elif not _is_option(word):
            positional.append(word)
        else:
            given.append(_argument(word, rest, known))
    return Arguments(tuple(given), tuple(positional), help_wanted)


def _argument(word: str, rest: List[str], known: Mapping[str, OldOption]) -> Argument:
    name, equals, value = word.partition("=")
    option, negated = _found(name, known)
    if option is None and not word.startswith("--") and len(name) > 2:
        option, negated = _found("-" + name, known)  # absl accepts one dash, too
    if option is None and not word.startswith("--"):
        option = known.get(word[:2])  # -b32
        if option is not None:
            return Argument((word,), option, (word[2:].lstrip("="),))
    if equals and option is not None and option.takes == FLAG:
        return Argument((word,), option, negated=value.lower() in _FALSE)
    if equals:
        return Argument((word,), option, (value,), negated)
    takes = FLAG if negated else option.takes if option is not None else MANY
    values = _values(takes, rest)
    return Argument((word, *values), option, tuple(values), negated)


def _found(name: str, known: Mapping[str, OldOption]) -> Tuple[Optional[OldOption], bool]:
    """Return the option with a spelling, an unambiguous beginning of one or a negation."""
    spelling = name.replace("_", "-")
    if spelling in known:
        return known[spelling], False
    longer: Dict[str, OldOption] = {
        option.to or option.name: option for other, option in known.items()
        if spelling.startswith("--") and other.startswith(spelling)}
    if len(longer) == 1:
        return next(iter(longer.values())), False
    for negation in _NEGATIONS:
        positive = known.get("--" + spelling[len(negation):])
        if spelling.startswith(negation) and positive is not None and positive.takes == FLAG:
            return positive, True
    return None, False


def _values(takes: str, rest: List[str]) -> List[str]:
    """Take the values of an option from the remaining words."""
    values: List[str] = []
    if takes == ONE and rest:
        values.append(rest.pop(0))
    elif takes in (MANY, OPTIONAL):
        most = 1 if takes == OPTIONAL else len(rest)
        while rest and len(values) < most and not _is_option(rest[0]):
            values.append(rest.pop(0))
    return values


def _is_option(word: str) -> bool:
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False
