"""Converts configuration files of other programs into profiles of `ipucnn`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.files import expanded_path, make_folder, read_limited, write_text
from ipucnn.core.names import flag_of, key
from ipucnn.core.options.parts import other_input
from ipucnn.core.options.profiles import LIMIT, load, resolve
from ipucnn.migration.acceptance import check_plan
from ipucnn.migration.draft import Row
from ipucnn.migration.job import AUTO
from ipucnn.migration.old_arguments import Argument, Arguments
from ipucnn.migration.scripts import (
    FAMILIES,
    MANY,
    OPTIONS,
    Script,
    declaration,
    scripts,
)
from ipucnn.migration.translation import translate

_PROFILED = ("run", "train")
"""The commands that configurations are for."""

_OF_PLUGINS = {"--optimizer": ("nesterov", "momentum"),
               "--lr-schedule": ("lr_epoch_decay", "lr_decay"), "--loss": ("label_smoothing",)}
"""Options of the defaults that belong to the plugins they select."""

_DEPTH = re.compile(r"(?:[\[{]\s*){10}")

_MOST = 100_000
"""Maximum number of values of a configuration; those of Graphcore have some thousand."""


@dataclass(frozen=True)
class Converted:
    """A converted profile.

    Attributes:
        name: its name in the configuration.
        path: the file that was written.
        command: the command that reads it.
        values: its options by name.
        rows: the translation of each option.
        problems: reasons why the command would not accept it unchanged.
    """

    name: str
    path: str
    command: str
    values: Mapping[str, Any]
    rows: Tuple[Row, ...]
    problems: Tuple[str, ...]

    def as_dict(self) -> Dict[str, Any]:
        """Return plain types for JSON."""
        return {"name": self.name, "path": self.path, "command": self.command,
                "values": dict(self.values), "options": [row.as_dict() for row in self.rows],
                "problems": list(self.problems)}


def convert(config: str, meant: Tuple[str, Any], out: str) -> List[Converted]:
    """Write a profile for each of a configuration file's, and return them.

    A file is a mapping of names to options, or of options alone (the `args.yaml` of timm). A
    profile also states the defaults of the script, which the old one relied on.

    Args:
        config: the file.
        meant: the program, or `auto`, and the name of the script, or None for the one whose options
            fit.
        out: the folder to write into.

    Raises:
        UsageError: the file cannot be read, or is no such mapping; or a profile exists already.
    """
    content = _read(config)
    named = {str(name): options for name, options in content.items()}
    if not all(isinstance(options, Mapping) for options in named.values()):
        named = {Path(config).stem: content}
    places = {name: Path(out, key(name).replace("/", "-") + ".yaml") for name in named}
    for number, (name, place) in enumerate(places.items()):
        if os.path.lexists(str(place)):
            raise UsageError(f"'{place}' exists, and is not overwritten",
                             "name another folder with '--out DIR'")
        other = next((other for other in list(places)[:number] if places[other] == place), None)
        if other is not None:
            raise UsageError(f"profiles {other!r} and {name!r} would both be '{place}'",
                             "rename one of them")
    make_folder(out, "--out")
    script = _script([str(key) for options in named.values() for key in options], config, meant)
    return [_converted(name, options, (config, script), places[name])
            for name, options in named.items()]


def _read(config: str) -> Mapping[str, Any]:
    import yaml

    try:
        text = read_limited(expanded_path(config), LIMIT).decode("utf-8")
        if _DEPTH.search(text):
            raise UsageError(f"{config!r} is nested too deeply", "it is a mapping of options")
        if _has_too_many(yaml.compose(text, yaml.SafeLoader)):
            raise UsageError(f"{config!r} stands for more than {_MOST:,} values",
                             "write values where they are used instead of references to them")
        content = yaml.safe_load(text)
        str(content)  # raises ValueError for a number of thousands of digits
    except OSError as error:
        raise UsageError(f"cannot read {config!r}: {error.strerror or error}",
                         "give the file of the old configuration") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
            yaml.YAMLError) as error:  # such as a date of month 13, or a value not of its tag
        raise UsageError(f"cannot read {config!r}: it is not YAML",
                         "give the file of the old configuration") from error
    if not isinstance(content, Mapping) or not content:
        raise UsageError(f"{config!r} is not a mapping of options",
                         "it has names of profiles with their options, or options alone")
    return content


def _has_too_many(root: Any) -> bool:
    """Return whether a node of YAML has more values than `_MOST`, counted with each reference.

    A few lines of references can stand for more values than fit into memory.
    """
    waiting = [root]
    for _ in range(_MOST):
        if not waiting or len(waiting) > _MOST:
            break
        value = getattr(waiting.pop(), "value", None)
        for item in value if isinstance(value, list) else ():
            waiting.extend(item if isinstance(item, tuple) else (item,))
    return bool(waiting)


def _converted(name: str, options: Mapping[str, Any], where: Tuple[str, Script],
               path: Path) -> Converted:
    config, script = where
    draft = translate(script, Arguments(tuple(
        argument for spelling, value in options.items()
        for argument in [_argument(script, str(spelling), value)] if argument is not None), ()))
    given = {flag[2:].replace("-", "_"): value for flag, words in draft.options.items()
             if flag != "--config" for flag, value in [_typed(draft.command, flag, words)]}
    values = _defaults(script, draft.options)
    values = {name: value for name, value in values.items()
              if name not in other_input(values, given)}
    values.update(given)
    rows = tuple(draft.rows)
    dropped = [f"# {row.given}: dropped, {row.why}" for row in rows if not row.becomes]
    _write(path, [f"# Profile {name!r} of {Path(config).name}, for '{draft.command}'.", *dropped],
           values)
    problems = list(draft.problems)
    try:
        check_plan(resolve(OPTIONS[draft.command][0], {"config": str(path)}, draft.command))
    except IpucnnError as error:
        problems.append(str(error))
    return Converted(name, str(path), draft.command, values, rows, tuple(problems))


def _script(options: List[str], config: str, meant: Tuple[str, Any]) -> Script:
    """Return the script whose options these are."""
    program, wanted = meant
    found = [script for family in FAMILIES if program in (AUTO, family)
             for script in scripts(family).values()
             if script.command in _PROFILED and script.options and wanted in (None, script.name)]
    if not found:
        raise UsageError(f"there is no script {wanted!r} with profiles",
                         "scripts: " + ", ".join(sorted(
                             {script.name for family in FAMILIES
                              for script in scripts(family).values()
                              if script.command in _PROFILED})))
    parent = expanded_path(config).resolve().parent.name
    return min(found, key=lambda script: (
        sum(flag_of(name) not in script.by_spelling() for name in options),
        (parent == "train") != (script.command == "train"), FAMILIES.index(script.family)))


def _argument(script: Script, spelling: str, value: Any) -> Optional[Argument]:
    """Return an option of a configuration as on a command line; None if it is not set."""
    option = script.by_spelling().get(flag_of(spelling))
    if isinstance(value, Mapping):  # `--model-kwargs a=1`
        value = [f"{name}={item}" for name, item in value.items()]
    values = value if isinstance(value, list) else [value]
    many = option is None or option.takes == MANY
    words = [word for item in values for word in (str(item).split() if many else [str(item)])
             if word.strip()]
    if value is None or not words or (value is False and option is not None):
        return None
    return Argument((f"{spelling}:", *words), option,
                    () if isinstance(value, bool) else tuple(words))


def _defaults(script: Script, given: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the values of the profile of a script's defaults that fit the given options."""
    if not script.profile:
        return {}
    values = dict(load(script.profile, script.command).values)
    if "--checkpoint-path" in given:
        values.pop("no_checkpoints", None)
    if "--data-dir" in given and "--data" not in given:
        values.pop("data", None)
    for selector, names in _OF_PLUGINS.items():
        here = str(values.get(selector[2:].replace("-", "_")))
        if given.get(selector, (here,)) != (here,):
            values = {name: value for name, value in values.items() if name not in names}
    return values


def _typed(command: str, flag: str, words: Tuple[str, ...]) -> Tuple[str, Any]:
    """Return a flag and its value as YAML has it."""
    if not words:
        item = declaration(command, flag)
        if item is None and flag.startswith("--no-"):
            return "--" + flag[5:], False
        return flag, True
    item = declaration(command, flag)
    many = item is not None and item.many
    values = [_number(word) for word in words]
    return flag, values if many or len(values) > 1 else values[0]


def _number(word: str) -> Any:
    if re.fullmatch(r"-?(0|[1-9]\d{0,15})", word):
        return int(word)
    try:
        value = float(word)
    except ValueError:
        return word
    return value if re.fullmatch(r"[-+\d.eE]+", word) and not re.fullmatch(r"\d\d\.\d\d", word) \
        else word


def _write(path: Path, comments: List[str], values: Mapping[str, Any]) -> None:
    import yaml

    text = "\n".join(re.sub(r"\s+", " ", line) for line in comments)
    write_text(str(path), f"{text}\n{yaml.safe_dump(dict(values), sort_keys=False)}")
