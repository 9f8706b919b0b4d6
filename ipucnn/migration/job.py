"""The job behind `migrate`: finds the script in a command line and translates its arguments."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean
from ipucnn.migration.acceptance import refusal
from ipucnn.migration.draft import Draft, Row, quoted
from ipucnn.migration.old_arguments import Arguments, parse
from ipucnn.migration.scripts import FAMILIES, Script, scripts, table
from ipucnn.migration.shell_line import Part, divided, expands, quoted_word, typed
from ipucnn.migration.translation import translate

AUTO = "auto"

_HINTS = {"references/classification": "torchvision", "pytorch-image-models": "timm",
          "timm": "timm"}
"""Parts of a script's path that identify its program."""

_PROMPT = re.compile(r"(\([\w.-]+\)\s*)?(\S+@\S+)?\$\s+|PS [^>]*>\s*|!\s*|%run\s+")
"""What stands before a command that was copied from a terminal or a notebook."""

_LAUNCHERS = {"torchrun": "torchrun", "torch.distributed.launch": "torchrun",
              "torch.distributed.run": "torchrun", "accelerate": "accelerate",
              "deepspeed": "deepspeed"}
"""Programs that start Python scripts only, and their names in the table of launchers."""

_WITH_VALUES = ("-W", "-X", "-o")
"""Switches of Python and of shells that a value follows."""


@dataclass(frozen=True)
class Migration:
    """The translation of a command line.

    Attributes:
        given: the command line.
        program: the program that its script belongs to.
        script: the name of the script; empty for a line of the shell.
        command: the command that replaces it; empty if nothing does.
        rows: the translation of each option.
        notes: notes for the user.
        problems: reasons why the command cannot run unchanged.
    """

    given: str
    program: str
    script: str
    command: str
    rows: Tuple[Row, ...] = ()
    notes: Tuple[str, ...] = ()
    problems: Tuple[str, ...] = field(default=())

    def as_dict(self) -> Dict[str, Any]:
        """Return plain types for JSON."""
        return {"given": self.given, "program": self.program, "script": self.script or None,
                "command": self.command or None, "options": [row.as_dict() for row in self.rows],
                "notes": list(self.notes), "problems": list(self.problems)}


def migrate(text: str, family: str = AUTO) -> List[Migration]:
    """Return the translations of command lines, one for each script that they run.

    Args:
        text: command lines of other programs; a backslash at its end continues a line.
        family: the program of a script whose name several programs use: one of `FAMILIES`, or
            `auto` for the one whose options fit best.

    Raises:
        UsageError: a line has no known script, or there is no line.
    """
    lines = [line.strip() for line in re.sub(r"\\\s*\n", " ", typed(text)).splitlines()]
    lines = [_without_prompt(line) for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UsageError("no command line is given",
                         "put it in quotes: ipucnn migrate 'python3 train.py --model resnet50'")
    return [found for line in lines for found in _migrated(line, family)]


def _without_prompt(line: str) -> str:
    found = _PROMPT.match(line)
    return line[found.end():] if found else line


def _migrated(line: str, family: str) -> List[Migration]:
    """Return the translations of the commands of a line; what is around them stays as it is."""
    parts = divided(line)
    scripted = [part for part in parts if _place(_words(part.text)) is not None]
    if not scripted:
        return [_without_script(line, parts)]
    found = []
    begin = 0
    for part in scripted:
        end = parts[-1].following if part is scripted[-1] else part.tail
        made = _of_command(part.text, family)
        around = (line[begin:part.start].lstrip(), line[part.stop:end].rstrip())
        command = f"{around[0]}{made.command}{around[1]}" if made.command else ""
        found.append(replace(made, given=line[begin:end].strip(), command=command))
        begin = part.following
    return found


def _words(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read {text!r}: {str(error).lower()}",
                         "put the command line in quotes of the other kind") from error


def _place(words: Sequence[str]) -> Optional[int]:
    """Return the number of the word that names a script, or None."""
    return next((number for number in range(len(words)) if _scripts_named(_path(words, number))),
                None)


def _path(words: Sequence[str], number: int) -> str:
    """Return a word; that of a module (`-m train`) as the path of its file."""
    word = words[number]
    module = number and words[number - 1] == "-m" and word not in _LAUNCHERS
    return word.replace(".", "/") + ".py" if module else word


def _without_script(line: str, parts: Sequence[Part]) -> Migration:
    found = _shell(line)
    if found is not None:
        return found
    words = _words(parts[0].text) if parts else [line]
    if words[0] == "ipucnn":
        raise UsageError(f"{line!r} is a command of ipucnn already",
                         "'ipucnn COMMAND --help' lists its options")
    names = [name for one in FAMILIES for name in scripts(one)]
    named = next((PurePath(word).name for word in words if word.endswith((".py", ".sh"))),
                 words[0])
    raise UsageError(f"{named!r} is not a known script",
                     did_you_mean(named, names) or "known: " + ", ".join(dict.fromkeys(names)))


def _of_command(text: str, family: str) -> Migration:
    words = _words(text)
    place = _place(words) or 0
    prefix, launching = _launcher(words[:place])
    script, arguments = _chosen(_path(words, place), words[place + 1:], family)
    if not script.command:
        return Migration(text, script.title, script.name, "", notes=(script.none,))
    return _translated(text, script, arguments, (prefix, launching))


def _scripts_named(word: str) -> List[Script]:
    name = PurePath(word).name
    return [scripts(one)[name] for one in FAMILIES if name in scripts(one)]


def _chosen(path: str, words: Sequence[str], family: str) -> Tuple[Script, Arguments]:
    """Return the script, found by its path and arguments, and the parsed arguments."""
    found = _scripts_named(path)
    if family != AUTO:
        found = [script for script in found if script.family == family]
        if not found:
            raise UsageError(f"{family} has no script {PurePath(path).name!r}",
                             "its scripts: " + ", ".join(scripts(family)))
    hinted = [name for part, name in _HINTS.items() if part in path]
    parsed = [(script, parse(script, words)) for script in found]
    return min(parsed, key=lambda pair: (
        pair[0].family not in hinted, pair[1].unknown + bool(pair[1].positional)
        * (not (pair[0].positional or pair[0].processes)), FAMILIES.index(pair[0].family)))


def _launcher(words: Sequence[str]) -> Tuple[List[str], Optional[Draft]]:
    """Divide what stands before a script: words that stay, and the launcher of processes."""
    kept: List[str] = []
    words = _without_interpreter(words)
    for number, word in enumerate(words):
        name = _LAUNCHERS.get(PurePath(word).name)
        if name is not None:
            launcher = scripts("launchers")[name]
            rest = [other for other in words[number + 1:] if other not in ("launch", "-m")]
            return kept, translate(launcher, parse(launcher, rest))
        kept.append(word)
    return kept, None


def _without_interpreter(words: Sequence[str]) -> List[str]:
    """Return words without Python or a shell and its switches (`python3 -W ignore -m`)."""
    kept: List[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.fullmatch(r"python[\d.]*|bash|sh", PurePath(word).name):
            kept.append(word)
            continue
        while rest and rest[0].startswith("-"):
            if rest.pop(0) in _WITH_VALUES:
                del rest[:1]
    return kept


def _translated(line: str, script: Script, arguments: Arguments,
                before: Tuple[List[str], Optional[Draft]]) -> Migration:
    prefix, started = before
    draft = translate(script, arguments,
                      [] if started is None else ["--launcher", "torchrun", *started.words()[1:]])
    if arguments.help:
        draft.options = {"--help-all": ()}
    rows = tuple(draft.rows)
    if started is not None:
        rows = (Row(started.script.name, "--launcher torchrun"), *started.rows, *rows)
    words = draft.words()
    problems = list(draft.problems)
    variable = any(map(expands, words))
    if not arguments.help and not problems and not variable:
        problem = refusal(draft.command, words)
        problems += [problem] if problem else []
    notes = [f"'--config {script.profile}' sets the defaults of {script.name}; without it, those "
             f"of 'ipucnn {script.command}' are used"] if (
        draft.options.get("--config") == (script.profile,) and script.profile) else []
    if variable:
        notes.append("values that the shell replaces ('$') are not checked")
    command = " ".join([*map(_prefixed, prefix), quoted(["ipucnn", *words])])
    return Migration(line, script.title, script.name, command, rows, tuple(notes),
                     tuple(problems))


def _prefixed(word: str) -> str:
    """Return a word before a script as a shell takes it; `A=b c` assigns."""
    name, equals, value = word.partition("=")
    return f"{name}={quoted_word(value)}" if equals and name.isidentifier() else quoted_word(word)


def _shell(line: str) -> Optional[Migration]:
    """Return the replacement of a line of a README that runs no script, or None."""
    for row in table("graphcore")["shell"]:
        if re.fullmatch(row["line"], line):
            becomes = row.get("becomes", "")
            notes = (row["why"],) if row.get("why") else ()
            return Migration(line, table("graphcore")["title"], "",
                             line if becomes == "=" else becomes, notes=notes)
    return None

