"""Translates the arguments of a script into a command of `ipucnn`, and explains each."""

from __future__ import annotations

from typing import Sequence

from ipucnn.migration import graphcore_rules, option_rules, script_rules
from ipucnn.migration.draft import Draft, Outcome, Row, quoted
from ipucnn.migration.old_arguments import Argument, Arguments
from ipucnn.migration.scripts import FLAG, MANY, OldOption, Script, declaration


def translate(script: Script, arguments: Arguments, before: Sequence[str] = ()) -> Draft:
    """Return the command that replaces a script with these arguments.

    Args:
        script: the script.
        arguments: those that it was given.
        before: further options of the command, those of a launcher.
    """
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
    """Return which backends have an option, as text; empty if it is not one of backends."""
    item = declaration(draft.command, option.to)
    if item is None or not option.to:
        return ""
    from ipucnn.core.options.owners import builtin_owners
    from ipucnn.core.registry.registry import registry

    having = [owner.spec.name for owner in builtin_owners(["backend"], registry())
              if owner.option(option.to)]
    return f"of the backends {', '.join(having)}" if having else ""
