"""Translates the arguments of a script into a command of `ipucnn`, and explains each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.migration.old_arguments import Argument, Arguments
from ipucnn.migration.scripts import FLAG, MANY, OldOption, Script, declaration
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


def translate(script: Script, arguments: Arguments, before: Sequence[str] = ()) -> Draft:
    """Return the command that replaces a script with these arguments.

    Args:
        script: the script.
        arguments: those that it was given.
        before: further options of the command, those of a launcher.
    """
    from ipucnn.migration import script_rules

    draft = Draft(script, arguments, script.command)
    draft.put(before)
    if script.profile:
        draft.put(["--config", script.profile])
    positional = list(arguments.positional)
    if script.processes and positional:
        count = positional.pop(0)
        draft.put(["--launcher", "torchrun", "--nproc", count])
        draft.rows.append(Row(count, f"--launcher torchrun --nproc {count}"))
    if script.positional and positional:
        place = positional.pop(0)
        draft.put(["--" + script.positional, place])
        draft.rows.append(Row(place, f"--{script.positional} {place}"))
    for word in positional:
        draft.rows.append(Row(word, "", f"{script.name} takes no such argument"))
    for argument in arguments.given:
        _translate(draft, argument)
    if script.rule:
        getattr(script_rules, script.rule)(draft)
    for name, value in script.defaults.items():
        flag = "--" + name
        if flag not in draft.options:
            draft.put([flag, value])
            draft.rows.append(Row("(its default)", f"{flag} {value}"))
    return draft


def _translate(draft: Draft, argument: Argument) -> None:
    option = argument.option
    given = quoted(argument.words)
    if option is None:
        draft.rows.append(Row(given, "", f"{draft.script.name} has no such option"))
        return
    outcome = _outcome(draft, argument, option)
    if outcome.part:
        return
    why = outcome.why or option.why or option.none
    if outcome.words is None:
        draft.rows.append(Row(given, "", why))
        return
    draft.put(outcome.words)
    draft.rows.append(Row(given, quoted(outcome.words), why or _owners(draft, option)))


def _outcome(draft: Draft, argument: Argument, option: OldOption) -> Outcome:
    from ipucnn.migration import graphcore_rules, option_rules

    if option.rule:
        rule = getattr(graphcore_rules, option.rule, None) or getattr(option_rules, option.rule)
        made: Outcome = rule(draft, argument)
        return made
    if option.none:
        return Outcome(None)
    return same(argument, option)


def same(argument: Argument, option: OldOption) -> Outcome:
    """Return the outcome of an option that has a counterpart with the same values."""
    if option.takes == FLAG:
        return Outcome(["--no-" + option.to[2:] if argument.negated else option.to])
    if option.takes != MANY and not argument.values:
        return Outcome(None, "it has no value")
    return Outcome([option.to, *argument.values])


def _owners(draft: Draft, option: OldOption) -> str:
    """Return the backend feature that an option needs, or an empty string."""
    item = declaration(draft.command, option.to)
    if item is None or not option.to:
        return ""
    from ipucnn.core.options.owners import builtin_owners
    from ipucnn.core.registry.registry import registry

    having = [owner.spec.name for owner in builtin_owners(["backend"], registry())
              if owner.option(option.to)]
    return f"of the backends {', '.join(having)}" if having else ""
