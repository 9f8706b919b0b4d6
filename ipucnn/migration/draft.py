"""A translation in progress, to which rules add what becomes of each option."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.migration.old_arguments import Arguments
from ipucnn.migration.scripts import Script
from ipucnn.migration.shell_line import expands, quoted_word

SAME = "the same"
DROPPED = "dropped"


@dataclass(frozen=True)
class Row:
    """The translation of an option.

    Attributes:
        given: as it was given.
        becomes: its words here; empty if it is dropped.
        why: what differs, or why it is dropped.
    """

    given: str
    becomes: str
    why: str = ""

    def as_dict(self) -> Dict[str, Any]:
        """Return plain types for JSON."""
        return {"given": self.given, "becomes": self.becomes or None, "why": self.why or None}

    def cells(self) -> Tuple[str, str, str]:
        """Return the cells of a table."""
        becomes = SAME if self.becomes == self.given else self.becomes or DROPPED
        return self.given, becomes, self.why


@dataclass(frozen=True)
class Outcome:
    """The result of a rule for an option.

    Attributes:
        words: its words here; None if it is dropped.
        why: the explanation; the table's when empty.
        part: the rule of the whole script explains it together with others.
    """

    words: Optional[Sequence[str]] = None
    why: str = ""
    part: bool = False


PART = Outcome(part=True)


@dataclass
class Draft:
    """A translation in progress.

    Attributes:
        script: the script.
        arguments: those that it was given.
        command: the command that replaces it.
        options: options here, each with its values.
        positional: arguments here that are no options.
        rows: the translation of each option.
        problems: decisions that the user must make before the command can run.
    """

    script: Script
    arguments: Arguments
    command: str
    options: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    positional: List[str] = field(default_factory=list)
    rows: List[Row] = field(default_factory=list)
    problems: List[str] = field(default_factory=list)

    def given(self, name: str) -> bool:
        """Return whether an option of the script was given."""
        return name in self.arguments.values

    def old(self, name: str, default: str = "") -> str:
        """Return the value of an option of the script, or its default."""
        return " ".join(self.arguments.values.get(name, ())) or default

    def problem(self, text: str, value: str) -> None:
        """Add what has to be decided, unless the value is only known to the shell."""
        if not expands(value) and text not in self.problems:
            self.problems.append(text)

    def numbers(self, texts: Mapping[str, str]) -> Optional[List[float]]:
        """Return the positive numbers in texts, or None if one is not.

        That is a problem, unless the text is only known to the shell.

        Args:
            texts: values by the options of the script.
        """
        found: List[float] = []
        for option, text in texts.items():
            value = number(text)
            if value is not None and value > 0:
                found.append(value)
            else:
                self.problem(f"'{option} {text}' is not a positive number", text)
        return found if len(found) == len(texts) else None

    def put(self, words: Sequence[str]) -> None:
        """Add options; one that is there already gets the new values."""
        flag = ""
        for word in words:
            if word.startswith("--"):
                flag = word
                for other in (_opposite(flag), flag):
                    self.options.pop(other, None)
                self.options[flag] = ()
            else:
                self.options[flag] += (word,)

    def explain(self, names: Sequence[str], words: Sequence[str], why: str = "",
                implied: str = "(its default)") -> None:
        """Add options that replace several options of the script, with an explanation."""
        given = " ".join(quoted(argument.words) for argument in self.arguments.given
                         if argument.option and argument.option.name in names)
        self.put(words)
        self.rows.append(Row(given or implied, quoted(words), why))

    def words(self) -> List[str]:
        """Return the words of the command, without the program's name."""
        fixed = list(self.script.fixed) if self.command == self.script.command else []
        found = [*self.command.split(), *fixed, *self.positional]
        for flag, values in self.options.items():
            found += [flag, *values]
        return found


def number(text: str) -> Optional[float]:
    """Return the finite number in a text, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def quoted(words: Sequence[str]) -> str:
    """Return words as a shell takes them."""
    return " ".join(map(quoted_word, words))


def _opposite(flag: str) -> str:
    return "--" + flag[5:] if flag.startswith("--no-") else "--no-" + flag[2:]
