"""Reads profiles: YAML files of option values, shipped by name or written by the user.

A profile holds options of one command by any of their spellings. The line of each value is
recorded, so that an invalid one is reported with file, line and key.
"""

from __future__ import annotations

import datetime
import functools
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple, Type, TypeVar

from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.files import expanded_path, read_limited
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.options.building import Source, build
from ipucnn.core.options.composition import CommandOptions, as_dict, common_option
from ipucnn.core.options.declaration import lookup
from ipucnn.core.registry.kinds import KINDS

OptionsT = TypeVar("OptionsT")

LIMIT = 1 << 20
"""Largest profile in bytes."""

_NESTED = re.compile(r"(?:[\[{]\s*){10}")
_SHIPPED = Path(__file__).resolve().parent.parent.parent / "profiles"


@functools.lru_cache(maxsize=None)
def _aliases() -> Mapping[str, str]:
    """Return other names of shipped profiles, and the names they mean."""
    import yaml

    aliases: Dict[str, str] = yaml.safe_load(
        (_SHIPPED / "aliases.yaml").read_text(encoding="utf-8"))
    return aliases


@dataclass(frozen=True)
class Profile:
    """A profile read from its file.

    Attributes:
        name: its name or path, as the user gave it.
        path: its file.
        summary: its first comment line.
        values: option values by the spelling in the file.
        origins: the location of each spelling's value (``"x.yaml, line 3"``).
    """

    name: str
    path: Path
    summary: str
    values: Mapping[str, Any]
    origins: Mapping[str, str]


def available(command: str = "run") -> List[Profile]:
    """Return the shipped profiles of a command, or of launches, by name."""
    return [_read(path.stem, path) for path in sorted((_SHIPPED / command).glob("*.yaml"))]


def command_of(name: str, kinds: Mapping[str, type]) -> str:
    """Return the command of a profile; the first one if there is none of this name.

    A file is for the command that has most of its options.

    Args:
        name: the name of a shipped profile, or a file.
        kinds: the options of each command that has profiles, by its name; of several commands with
            as many options or with a profile of this name, the first one is returned.

    Raises:
        UsageError: the file is not a mapping of options.
    """
    if _is_file(name):
        spellings = load(name).values
        return max(kinds, key=lambda command: sum(
            common_option(kinds[command], spelling) is not None for spelling in spellings))
    return next((command for command in kinds if _shipped(name, command)), next(iter(kinds)))


def _shipped(name: str, command: str) -> Optional[Path]:
    """Return the file of the shipped profile `name` of a command, or None."""
    paths = {path.stem: path for path in (_SHIPPED / command).glob("*.yaml")}
    return paths.get(key(name)) or paths.get(_aliases().get(key(name), ""))


def load(name: str, command: str = "run") -> Profile:
    """Return the profile called `name`, or the one in the file `name`.

    Raises:
        UnknownNameError: neither exists, or the profile is for another command.
        UsageError: the file is not a mapping of options.
    """
    if _is_file(name):
        return _read(name, Path(name))
    path = _shipped(name, command)
    if path is not None:
        return _read(path.stem, path)
    others = [folder.name for folder in sorted(_SHIPPED.iterdir()) if _shipped(name, folder.name)]
    if others:
        raise UnknownNameError(
            f"the profile {name!r} is for {' and '.join(map(repr, others))}, not for {command!r}",
            "'ipucnn config list' lists the profiles of each command")
    names = [path.stem for path in sorted((_SHIPPED / command).glob("*.yaml"))]
    raise UnknownNameError(
        f"unknown profile {name!r}",
        " ".join(part for part in (did_you_mean(name, [*names, *_aliases()]),
                                   "'ipucnn config list' lists all; a file must end in .yaml")
                 if part))


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or os.path.isfile(os.path.expanduser(name))


def _read(name: str, path: Path) -> Profile:
    import yaml

    path = expanded_path(path)
    try:
        text = read_limited(path, LIMIT).decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no profile {str(path)!r}",
                         "'ipucnn config list' lists the shipped ones") from None
    except (OSError, ValueError) as error:  # a NUL in the name, bytes that are no text
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read profile {str(path)!r}: {reason}") from error
    try:
        if _NESTED.search(text):  # which the parser needs seconds for
            raise RecursionError
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise UsageError(f"profile '{path}': it is nested too deeply",
                         "a profile is lines of 'option: value'") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise UsageError(f"profile '{path}'{where}: {problem}",
                         "a profile is lines of 'option: value'") from error
    summary = text.partition("\n")[0].lstrip("# ").rstrip(".") if text.startswith("#") else ""
    if root is None:
        return Profile(name, path, summary, {}, {})
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"profile '{path}', line {root.start_mark.line + 1}: not a mapping",
                         "a profile is lines of 'option: value'")
    return Profile(name, path, summary, *_values(path, root))


def _values(path: Path, root: Any) -> Any:
    values: Dict[str, Any] = {}
    origins: Dict[str, str] = {}
    names: Set[str] = set()
    for key_node, value_node in root.value:
        origin = f"{path.name}, line {key_node.start_mark.line + 1}"
        if not isinstance(key_node.value, str):
            raise UsageError(f"the name of an option is not text ({origin})",
                             "a profile is lines of 'option: value'")
        spelling = key_node.value
        if key(spelling) in names:
            raise UsageError(f"{spelling!r} is given twice ({origin})", "keep one of them")
        names.add(key(spelling))
        values[spelling] = _value(value_node, spelling, origin)
        origins[spelling] = origin
    return values, origins


_YAML = "tag:yaml.org,2002:"


def _value(node: Any, spelling: str, origin: str) -> Any:
    """Return the value of a node: a list of texts, numbers and truth values, or one of these.

    Only types of options are constructed: numbers are decimal (`010` is ten,
    `1:30` no number), and a date is a text.
    """
    import yaml

    if isinstance(node, yaml.MappingNode):
        raise UsageError(f"{spelling!r} is a mapping ({origin})",
                         "an option takes a value or a list; 'ipucnn migrate --config FILE' "
                         "converts a file of several profiles of another program")
    if isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
        if not all(isinstance(item, yaml.ScalarNode) for item in node.value):
            raise UsageError(f"{spelling!r} is a list of lists or mappings ({origin})",
                             "an option takes a value or a list of values")
        return [_value(item, spelling, origin) for item in node.value]
    tag, text = node.tag.replace(_YAML, ""), node.value
    if tag == "null":
        return None
    if tag == "bool" and text.lower() in yaml.SafeLoader.bool_values:
        return yaml.SafeLoader.bool_values[text.lower()]
    if tag in ("int", "float"):
        return _number(text)
    if tag == "timestamp":
        _check_date(text, spelling, origin)
    if tag in ("str", "timestamp"):
        return text
    raise UsageError(f"{spelling!r}: the tag {node.tag.replace(_YAML, '!!')!r} is not allowed "
                     f"({origin})", "write the value alone")


def _check_date(text: str, spelling: str, origin: str) -> None:
    """Raise an error for an invalid date, because YAML would otherwise read it as a text."""
    try:
        datetime.date(*map(int, re.findall(r"\d+", text)[:3]))
    except (ValueError, TypeError):
        raise UsageError(f"{spelling!r}: there is no date {text!r} ({origin})",
                         f"put a text in quotes: '{text}'") from None


def _number(text: str) -> Any:
    """Return a number that is written the way Python writes it; other spellings as text."""
    if re.fullmatch(r"[1-9]\d{0,17}|0", text):
        return int(text)
    with suppress(ValueError):
        if str(float(text)) == text:
            return float(text)
    return text


def source_of(options_class: Any, name: str, command: str) -> Source:
    """Return the option values of the profile called `name`, unchecked, for `build`.

    Raises:
        UsageError: an unknown profile, or an option that acts on the command line only.
    """
    profile = load(name, command)
    for spelling in profile.values:
        found = common_option(options_class, spelling)
        if found is not None and found.option.switch \
                and not found.option.in_profiles:
            raise UsageError(f"{spelling!r} is not allowed in a profile "
                             f"({profile.origins[spelling]})", "give it on the command line")
    return Source(profile.values, profile.origins, shipped=_SHIPPED in profile.path.parents)


def described(options_class: Any, name: str,
              command: str) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the options of a profile with all defaults, and those defaults that are not fixed.

    Values of a shipped profile for devices that this machine does not have are included.

    Returns:
        All options as plain types, and those among them that the profile does not set and that
        depend on other options: `CommandOptions.dependent`, and options of plugins selected by
        these.

    Raises:
        UsageError: an unknown profile or option, or a value that is not allowed.
    """
    source = source_of(options_class, name, command)
    made = build(options_class, source)
    if not isinstance(made, CommandOptions):
        return as_dict(made), {}
    stated = {key(spelling).replace("-", "_"): value for spelling, value in source.values.items()}
    left_out = (*made.left_out, *made.plugins.left_out)
    values = {**as_dict(made), **{name: stated[name] for name in left_out if name in stated}}
    return values, {name: values[name] for name in _dependent(made, source) if name in values}


def _dependent(made: CommandOptions, source: Source) -> Iterator[str]:
    """Yield the names of options whose defaults depend on other options.

    A profile that sets an option of a plugin selects this plugin.
    """
    kinds = {KINDS[kind].selector: kind for kind in made.kinds}
    bare = [spelling.rpartition(".")[2] for spelling in source.values]
    for selector in made.dependent:
        kind = kinds.get(selector)
        owned = [type(options) for (of, _), options in made.plugins.owned.items() if of == kind]
        if selector in made.given or any(lookup(one, name) for one in owned for name in bare):
            continue
        yield selector
        for (of, _, _), (name, _, _) in zip(made.plugins.declared(), made.plugins.items()):
            if of == kind:
                yield name


def resolve(options_class: Type[OptionsT], given: Mapping[str, Any], command: str = "run",
            named_by: str = "config") -> OptionsT:
    """Build a command's options: defaults, then the profile in `given`, then `given` itself.

    Args:
        options_class: the class of the options.
        given: values by any spelling; `named_by` among them names the profile.
        command: the command that the profile is for.
        named_by: the option that names it.

    Raises:
        UsageError: an unknown profile or option, or a value that is not allowed.
    """
    name = given.get(named_by)
    return build(options_class, source_of(options_class, str(name), command) if name else {},
                 given)
