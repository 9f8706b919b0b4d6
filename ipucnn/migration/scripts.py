"""Reads the tables of scripts of other programs: the corresponding commands and options."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ipucnn.benchmarking.options import BenchOptions
from ipucnn.core.names import flag_of
from ipucnn.core.options.composition import common_option
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import registry
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.planning.options import PlanOptions
from ipucnn.training.options.stored_options import AverageOptions, ValidateOptions
from ipucnn.training.options.train_options import RestoreOptions, TrainOptions

TABLES = Path(__file__).resolve().parent / "tables"

FAMILIES = ("graphcore", "timm", "torchvision")
"""The tables of scripts, the ones preferred for a script's name first."""

OPTIONS: Mapping[str, Tuple[type, ...]] = {
    "run": (RunOptions,), "train": (TrainOptions,), "restore": (RestoreOptions,),
    "validate": (ValidateOptions,), "average": (AverageOptions,), "export": (ExportOptions,),
    "plan": (TrainOptions, PlanOptions), "data convert": (ConvertOptions,),
    "data bench": (BenchOptions,)}
"""The commands with declared options."""

FLAG, ONE, MANY, OPTIONAL = "flag", "one", "many", "optional"
"""The numbers of values that an option takes."""


@dataclass(frozen=True)
class OldOption:
    """An option of a script.

    Attributes:
        name: its name, as the table has it.
        spellings: with their dashes.
        takes: `FLAG`, `ONE`, `MANY` or `OPTIONAL`.
        to: the flag of its counterpart; empty without one.
        none: the reason why it has no counterpart.
        why: other differences.
        rule: the function of `graphcore_rules` or `option_rules` that translates it.
    """

    name: str
    spellings: Tuple[str, ...]
    takes: str
    to: str = ""
    none: str = ""
    why: str = ""
    rule: str = ""


@dataclass(frozen=True)
class Script:
    """A script of another program.

    Attributes:
        name: its file name.
        family: the table that it is in.
        title: the program, for messages.
        command: the command that replaces it; empty without one.
        none: why there is none.
        profile: the profile with its defaults.
        rule: the function of `script_rules` that looks at all its options together.
        positional: the option that its first argument is the value of.
        processes: its first argument is the number of processes.
        defaults: values of options here that the script has as defaults.
        fixed: words that always follow the command.
        options: by name.
        models: names of models there and here.
        optimizers: likewise, with further words.
    """

    name: str
    family: str
    title: str
    command: str = ""
    none: str = ""
    profile: str = ""
    rule: str = ""
    positional: str = ""
    processes: bool = False
    defaults: Mapping[str, str] = field(default_factory=dict)
    fixed: Tuple[str, ...] = ()
    options: Mapping[str, OldOption] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    optimizers: Mapping[str, List[str]] = field(default_factory=dict)

    def by_spelling(self) -> Dict[str, OldOption]:
        """Return its options by every spelling, with hyphens."""
        return {spelling.replace("_", "-"): option for option in self.options.values()
                for spelling in option.spellings}


def declaration(command: str, spelling: str) -> Optional[Declared]:
    """Return the declaration of an option of a command or of a built-in plugin, or None."""
    for kind in OPTIONS.get(command, ()):
        found = common_option(kind, spelling)
        if found is not None:
            return found
    if command not in OPTIONS:
        return None
    owners = builtin_owners(KINDS, registry())
    return next((found for owner in owners for found in [owner.option(spelling)] if found), None)


def canonical(command: str, spelling: str) -> str:
    """Return the canonical flag of an option of ipucnn."""
    found = declaration(command, spelling)
    return found.flag if found is not None else flag_of(spelling)


@functools.lru_cache(maxsize=None)
def table(family: str) -> Mapping[str, Any]:
    """Return the content of a table."""
    import yaml

    content: Mapping[str, Any] = yaml.safe_load(
        (TABLES / f"{family}.yaml").read_text(encoding="utf-8"))
    return content


@functools.lru_cache(maxsize=None)
def scripts(family: str) -> Mapping[str, Script]:
    """Return the scripts of a table by name."""
    content = table(family)
    return {name: _script(name, family, row) for name, row in content["scripts"].items()}


def _script(name: str, family: str, row: Mapping[str, Any]) -> Script:
    content = table(family)
    options = content["scripts"][row["like"]] if "like" in row else row
    command = row.get("command", "")
    plain = {key: row[key] for key in ("command", "none", "profile", "rule", "positional")
             if key in row}
    return Script(
        name=name, family=family, title=content["title"], processes="processes" in row,
        defaults={key: str(value) for key, value in row.get("defaults", {}).items()},
        fixed=tuple(row.get("fixed", ())), options=_options(command, options),
        models=content.get("models", {}), optimizers=content.get("optimizers", {}), **plain)


def _options(command: str, row: Mapping[str, Any]) -> Dict[str, OldOption]:
    found: Dict[str, OldOption] = {}
    for name in _flat(row.get("same", [])):
        found[name] = _option(command, name, {})
    for name, details in row.get("options", {}).items():
        found[name] = _option(command, name, details)
    return found


def _flat(names: Any) -> List[str]:
    return [name for entry in names for name in (entry if isinstance(entry, list) else [entry])]


def _option(command: str, name: str, details: Mapping[str, Any]) -> OldOption:
    dropped = "none" in details
    to = "" if dropped else canonical(command, details.get("to", name))
    item = None if dropped else declaration(command, details.get("to", name))
    takes = details.get("takes") or (
        ONE if item is None else FLAG if item.boolean else MANY if item.many else ONE)
    return OldOption(
        name=name, takes=takes, to=to, none=details.get("none", ""), why=details.get("why", ""),
        rule=details.get("rule", ""),
        spellings=(flag_of(name), *details.get("short", ()),
                   *("--" + other for other in details.get("also", ()))))
