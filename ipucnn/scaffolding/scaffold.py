"""The files of a new plugin, from the templates."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.files import write_text
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.registry.kinds import KINDS, Kind, kind_named
from ipucnn.core.registry.registry import registry
from ipucnn.scaffolding.sources import hoisted, joined
from ipucnn.version import __version__

TEMPLATES = Path(__file__).parent / "templates"

TRAINING_BACKEND = "training-backend"
CHOICES = (*KINDS, TRAINING_BACKEND)
"""What `--kind` takes; `backend` is one for inference alone."""

KEPT = ("LICENSE", "README.md", ".gitignore")
"""Files of a new repository; those that exist are kept."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_EXAMPLES: Mapping[str, str] = {
    "model": "run --model {} --data generated --weights random",
    "dataset": "train --model resnet8-cifar --data {} --epoch 1",
    "norm-layer": "train --model resnet8-cifar --normlayer {} --data shapes --epoch 1",
    "optimizer": "train --model resnet8-cifar --optimizer {} --data shapes --epoch 1",
    "lr-schedule": "train --model resnet8-cifar --lr-schedule {} --data shapes --epoch 1",
    "loss": "train --model resnet8-cifar --loss {} --data shapes --epoch 1",
    "logger": "train --model resnet8-cifar --logger {} --log-dir logs --data shapes --epoch 1",
    "launcher": "train --model resnet8-cifar --launcher {} --data shapes --epoch 1",
    "backend": "run --model resnet8-cifar --backend {} --precision full --data generated "
               "--weights random",
    TRAINING_BACKEND: "train --model resnet8-cifar --backend {} --precision full --data shapes "
                      "--epoch 1",
}
"""A command that uses a plugin of each kind."""


@dataclass(frozen=True)
class NewPlugin:
    """A plugin to be written.

    Attributes:
        name: of its records, which are of different kinds.
        kinds: of `CHOICES`.

    Raises:
        UsageError: the name or the kinds cannot be used.
    """

    name: str
    kinds: Tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"the name {self.name!r} cannot be that of a plugin",
                             "use lower-case letters, digits and '-', for example 'my-net'")
        if {"backend", TRAINING_BACKEND} <= set(self.kinds):
            raise UsageError("'--kind backend' and '--kind training-backend' exclude each other",
                             "a training backend runs inference too: leave 'backend' out")
        for kind in self.records:
            if registry().is_builtin(kind.name, self.name):
                raise UsageError(f"{self.name!r} is the name of a built-in {kind.name}",
                                 "choose another name")

    @property
    def records(self) -> List[Kind]:
        """The kinds of its records."""
        return [KINDS["backend" if name == TRAINING_BACKEND else name] for name in self.kinds]

    @property
    def distribution(self) -> str:
        """Name of the distribution."""
        return f"ipucnn-{self.name}"

    @property
    def package(self) -> str:
        """Name of the package."""
        return self.distribution.replace("-", "_")

    def files(self) -> Dict[str, str]:
        """Return the texts of the files of a distribution, by their paths in its folder."""
        source = f"src/{self.package}"
        files = {
            "pyproject.toml": self._text("distribution/pyproject.toml.txt"),
            "README.md": self._text("distribution/README.md.txt"),
            "LICENSE": self._text("distribution/LICENSE.txt"),
            ".gitignore": self._text("distribution/gitignore.txt"),
            ".github/workflows/test.yml": self._text("distribution/test.yml.txt"),
            f"{source}/__init__.py": f'"""{self._summary} for ipucnn."""\n',
            f"{source}/py.typed": "",
            f"{source}/plugin.py": self._joined(
                "hook", "The hooks: what this distribution offers. Imports no torch."),
            f"{source}/options.py": self._joined(
                "options", "The options that the plugin declares. Imports no torch."),
            "tests/test_conformance.py": self._joined(
                "test", "The conformance suites of ipucnn."),
        }
        for kind in self._parts:
            text = hoisted(self._text(f"{kind}/implementation.py.txt"))
            docstring = text.split('"""')[1]
            files[f"{source}/{kind.replace('-', '_')}.py"] = joined(
                [text], docstring, self.package)
        return files

    def single_file(self) -> Dict[str, str]:
        """Return the text of one file for `--plugin`, by its name."""
        text = joined(
            [self._text(f"{kind}/{part}.py.txt") for part in ("options", "implementation")
             for kind in self._parts if (TEMPLATES / kind / f"{part}.py.txt").exists()]
            + [self._text(f"{kind}/hook.py.txt") for kind in self.kinds],
            f"{self._summary} for ipucnn, used by '--plugin {self._module}.py'.", self.package,
            local=True)
        # what a package names as text is in this file
        text = re.sub(rf'"{self.package}\.\w+:(\w+)"', r"\1", text)
        return {f"{self._module}.py": text}

    def examples(self) -> List[str]:
        """Return a command line for each kind that uses the plugin."""
        return [f"ipucnn {_EXAMPLES[kind].format(self.name)}" for kind in self.kinds]

    @property
    def _module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def _parts(self) -> List[str]:
        """The kinds with an implementation: that of a training backend has two parts."""
        return [part for kind in self.kinds
                for part in (("backend", kind) if kind == TRAINING_BACKEND else (kind,))]

    @property
    def _summary(self) -> str:
        words = [kind.replace("lr-", "learning-rate ").replace("-", " ", 1)
                 if kind.startswith("lr-") else kind.replace("-", " ") for kind in self.kinds]
        named = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        return f"{named[0].upper()}{named[1:]} '{self.name}'"

    def _joined(self, part: str, docstring: str) -> str:
        kinds = self._parts if part == "options" else self.kinds
        return joined([self._text(f"{kind}/{part}.py.txt") for kind in kinds
                       if (TEMPLATES / kind / f"{part}.py.txt").exists()], docstring, self.package)

    def _text(self, template: str) -> str:
        """Return a template with its placeholders filled in."""
        module = self._module
        values = {
            "name": self.name, "distribution": self.distribution, "package": self.package,
            "registered": f"{self.distribution}:{self.name}", "option": module,
            "flag": self.name, "VARIABLE": module.upper(), "summary": self._summary,
            "Class": "".join(part.capitalize() for part in self.name.split("-")),
            "version": __version__, "year": str(datetime.date.today().year),
            "entry_points": "\n".join(f'"{kind.prefix}.{module}" = "{self.package}.plugin"'
                                      for kind in self.records),
            "rows": "\n".join(f"| {kind} | `{self.name}` | `{kind.replace('-', '_')}.py` |"
                              for kind in self.kinds),
            "example": "\n".join(self.examples()),
        }
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", value)
        return text


def choices_named(names: Sequence[str]) -> Tuple[str, ...]:
    """Return kinds in the spelling of `CHOICES`, each once.

    Raises:
        UsageError: there is no such kind.
    """
    found = []
    for name in names:
        word = key(name).replace("_", "-")
        if word in (TRAINING_BACKEND, "training-backends"):
            found.append(TRAINING_BACKEND)
        elif word in ("inference-backend", "inference-backends"):
            found.append("backend")
        else:
            try:
                found.append(kind_named(name).name)
            except UsageError as error:
                close = did_you_mean(name, CHOICES)
                raise UsageError(error.message, (close + " " if close else "")
                                 + "kinds: " + ", ".join(CHOICES)) from None
    return tuple(dict.fromkeys(found))


def write(files: Mapping[str, str], folder: Path) -> Tuple[List[Path], List[Path]]:
    """Write files into a folder, none of them over another.

    Args:
        files: texts by path in the folder.
        folder: made when missing.

    Returns:
        The paths that were written, and those of `KEPT` that existed.

    Raises:
        UsageError: a file exists; nothing was written.
        IpucnnError: a file cannot be written.
    """
    kept = [folder / name for name in files if name in KEPT and (folder / name).exists()]
    wanted = {folder / name: text for name, text in files.items() if folder / name not in kept}
    taken = [path for path in wanted if path.exists()]
    if taken:
        raise UsageError(f"'{taken[0]}' exists" + (
            f", and {len(taken) - 1} more of the files" if len(taken) > 1 else ""),
            "nothing was written; choose another name or folder, or remove the file")
    for path, text in wanted.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(str(path), text)
        except OSError as error:
            raise IpucnnError(f"cannot write '{path}': {error.strerror or error}",
                              "choose another folder with '--into'") from error
    return list(wanted), kept
