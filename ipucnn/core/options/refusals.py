"""Errors for options that cannot be assigned to one plugin."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean, flag_of, key
from ipucnn.core.options.composition import Given, common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import (
    AUTO,
    Having,
    Owner,
    builtin_owners,
    in_words,
    third_party_owners,
)
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.targets import missing_requirements


def several_owners(given: Given, names: Sequence[str]) -> UsageError:
    """Return the error for an option of several selected plugins, with its qualified names."""
    spellings = " and ".join(f"'{flag_of(name)}'" for name in names)
    return UsageError(f"'{given.flag}' is an option of several plugins in use{given.where}",
                      f"name the plugin: {spellings}")


def second_spelling(given: Given, meant: Tuple[str, str],
                    spelt: Dict[Tuple[str, str], Given]) -> None:
    """Reject a second spelling of an option in one source; record this one in `spelt`."""
    if meant in spelt:
        raise UsageError(f"{given.spelling!r} and {spelt[meant].spelling!r} are spellings of one "
                         f"option{given.where}", "keep one of them")
    spelt[meant] = given


def no_effect(item: Declared, needed: Declared) -> UsageError:
    """Return the error for an option without the one that it needs (`Option.needs`)."""
    value = f" {needed.option.metavar}" if needed.option.metavar else ""
    return UsageError(f"'{item.flag}' has no effect without '{needed.flag}'",
                      f"add '{needed.flag}{value}', or leave it out")


def not_selected(missing: Sequence[Tuple[Given, Having]], job: str,
                 value_of: Callable[[str], Any], kept: Sequence[Declared] = ()) -> UsageError:
    """Return the error for options that no selected plugin has.

    Args:
        missing: the options and their owners.
        job: the job of the command.
        value_of: returns the value of a common option by name.
        kept: options that select plugins and keep their value in this command.
    """
    flags: Dict[str, List[str]] = {}
    for given, having in missing:
        flags.setdefault(names_of(having), []).append(
            f"'{_as_given(given, having)}'" + (given.where if len(missing) > 1 else ""))
    owned = "; ".join(
        f"{', '.join(named)} {'is an option' if len(named) == 1 else 'are options'} of {owners}"
        for owners, named in flags.items())
    together = [row for _, having in missing for row in having]
    hint = "leave it out" if len(missing) == 1 else "leave them out"
    fitting = [(owner, item) for owner, item in together if item.option.applies_to(job)]
    same = [item.flag for item in kept
            if item.name in [owner.kind.selector for owner, _ in together]]
    if same:
        hint += f": a training is restored with the same {' and '.join(map(repr, same))}"
    elif fitting and len(flags) == 1:
        hint += f", or choose {_choices(fitting)}"
    away = " ".join(f"'{flag_of('no_' + item.name)}'" for given, having in missing
                    for item in [having[0][1]] if given.origin and item.boolean)
    if away:
        hint += f"; to run the profile without, add {away}"
    where = missing[0][0].where if len(missing) == 1 else ""
    return UsageError(f"{owned}; this run uses {_selection(together, value_of)}{where}", hint)


def _as_given(given: Given, having: Having) -> str:
    """Return the flag of an option; on the command line, False is given by its negated form."""
    negated = given.value is False and having[0][1].boolean and not given.origin
    return f"--no-{given.flag[2:]}" if negated else given.flag


def unknown_option(spelling: str, options_class: type, registry: Registry,
                   where: str = "") -> UsageError:
    """Return the error for an option that neither the command nor any plugin has."""
    kinds: Sequence[str] = getattr(options_class, "kinds", ())
    foreign = [(owner, item) for owner in builtin_owners(KINDS, registry)
               for item in [owner.option(spelling)] if item is not None]
    if foreign:
        return UsageError(f"{spelling!r} is an option of {names_of(foreign)}, which this command "
                          f"does not use{where}", "leave it out")
    flags = [flag for item in common_options(options_class) for flag in item.flags]
    flags += [flag for owner in (*builtin_owners(kinds, registry),
                                 *third_party_owners(kinds, registry))
              for item in declared(owner.options) for flag in item.flags]
    dashes = spelling.startswith("-")
    close = did_you_mean(spelling.lstrip("-"), [flag.lstrip("-") for flag in flags])
    return UsageError(f"unknown option {spelling!r}{where}",
                      (close.replace("'", "'--", 1).replace(", '", ", '--") if dashes else close)
                      or "the command's '--help' lists its options")


def names_of(having: Sequence[Tuple[Owner, Declared]]) -> str:
    """Return the owners of options in words: "backends poptorch, popart (training only)"."""
    job = {item.option.only for _, item in having}
    only = f" ({job.pop()} only)" if len(job) == 1 and "" not in job else ""
    return in_words([owner for owner, _ in having], " and ") + only


def _selection(having: Sequence[Tuple[Owner, Declared]], value_of: Callable[[str], Any]) -> str:
    names = []
    for kind in dict.fromkeys(owner.kind for owner, _ in having):
        try:
            value = value_of(kind.selector)
        except KeyError:
            value = None
        names.append(f"no {kind.name}" if value is None else
                     " ".join(value) if isinstance(value, tuple) else
                     f"'{flag_of(kind.selector)} {value}'" if key(value) == AUTO
                     else str(value))
    return ", ".join(names)


def _choices(having: Sequence[Tuple[Owner, Declared]]) -> str:
    """Return how to select one of the owners, one that is installed if there is any."""
    owners = [owner for owner, _ in having]
    owner = next((one for one in owners if not missing_requirements(one.spec)), owners[0])
    return f"'{flag_of(owner.kind.selector)} {owner.name}'"
